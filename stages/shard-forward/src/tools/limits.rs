//! What a machine can do at most, measured.

use std::hint::black_box;
use std::time::Instant;

use serde::Serialize;
use tch::{Cuda, Device, Kind, Tensor};

/// Times that each rate is measured; the median counts.
const ROUNDS: usize = 5;

/// More than any processor's caches hold.
const READ_BYTES: usize = 256 << 20;

/// The two rates that bound a model. On the CPU, all its threads together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Limits {
    /// Of memory that is summed up; on a GPU, of memory that is copied, read and written.
    pub read_bytes_per_second: f64,
    /// Of the product of two square matrices of random numbers in the engine's dtype, the second transposed.
    pub matrix_flops_per_second: f64,
    /// Threads that it was measured with; 0 on a GPU.
    pub threads: usize,
}

impl Limits {
    /// Measures `device`, on which nothing else should run. Leaves libtorch with all threads.
    pub fn measure(device: Device, kind: Kind) -> Self {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        tch::set_num_threads(i32::try_from(all).unwrap_or(i32::MAX));
        let (read, threads) = match device {
            Device::Cpu => (read_rate(all), all),
            _ => (copy_rate(device), 0),
        };
        Self { read_bytes_per_second: read, matrix_flops_per_second: matrix_rate(device, kind), threads }
    }
}

fn read_rate(threads: usize) -> f64 {
    let words: Vec<u64> = (0..READ_BYTES as u64 / 8).collect();
    let chunk = words.len().div_ceil(threads);
    median(|| {
        let started = Instant::now();
        std::thread::scope(|scope| {
            for part in words.chunks(chunk) {
                scope.spawn(move || black_box(part.iter().fold(0, |sum: u64, word| sum.wrapping_add(*word))));
            }
        });
        READ_BYTES as f64 / started.elapsed().as_secs_f64()
    })
}

fn copy_rate(device: Device) -> f64 {
    const BYTES: i64 = 2 << 30;
    let from = Tensor::randn([BYTES / 4], (Kind::Float, device));
    let mut to = from.empty_like();
    rate(device, 10, 2.0 * BYTES as f64, || to.copy_(&from))
}

fn matrix_rate(device: Device, kind: Kind) -> f64 {
    let (side, repeats) = if device == Device::Cpu { (1024, 4) } else { (8192, 20) };
    let random = || Tensor::randn([side, side], (Kind::Float, device)).to_kind(kind);
    let (a, b) = (random(), random());
    rate(device, repeats, 2.0 * (side as f64).powi(3), || drop(a.linear(&b, None::<&Tensor>)))
}

/// `amount` of each `work` over its time in seconds.
fn rate(device: Device, repeats: u32, amount: f64, mut work: impl FnMut()) -> f64 {
    median(|| {
        let started = Instant::now();
        (0..repeats).for_each(|_| work());
        if let Device::Cuda(index) = device {
            Cuda::synchronize(index as i64);
        }
        amount * f64::from(repeats) / started.elapsed().as_secs_f64()
    })
}

/// Of several, after one that does not count.
fn median(mut measure: impl FnMut() -> f64) -> f64 {
    measure();
    let mut values: Vec<f64> = (0..ROUNDS).map(|_| measure()).collect();
    values.sort_by(f64::total_cmp);
    values[ROUNDS / 2]
}
