//! Prints how quickly quantised weights are gone through, and the share of the machine's read bandwidth.
//!
//! `cargo run --release -p kernels --example quant -- [THREADS [FORMAT...]]`: four formats, unless others are named.

use std::hint::black_box;
use std::time::Instant;

use kernels::quant::{Activations, Format, QuantMatrix};
use kernels::threads::Threads;

const N: usize = 4096;
/// Weights that no cache keeps: so many matrices, one after the other.
const MATRICES: usize = 12;
const REPEATS: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(2);
    let named: Vec<String> = arguments.collect();
    let threads = Threads::new(count);
    println!("{count} threads, {MATRICES} matrices of {N} x {N}");
    let usual = [Format::Q4_0, Format::Q8_0, Format::Q4_K, Format::Q6_K];
    let chosen = |format: &Format| match named.as_slice() {
        [] => usual.contains(format),
        names => names.iter().any(|name| name == format.name()),
    };
    for format in Format::ALL.iter().copied().filter(chosen) {
        measure(format, &threads);
    }
}

fn measure(format: Format, threads: &Threads) {
    let row: Vec<f32> = (0..N).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut row_bytes = vec![0; format.row_bytes(N).expect("whole blocks")];
    format.quantise(&row, &mut row_bytes);
    let bytes = row_bytes.repeat(N * MATRICES);
    let gigabytes = bytes.len() as f64 / 1e9;
    let matrices: Vec<_> = bytes
        .chunks(bytes.len() / MATRICES)
        .map(|bytes| QuantMatrix::new(format, N, N, bytes).expect("whole blocks"))
        .collect();
    let plain = gigabytes / fastest(|| read(&bytes, threads));
    for rows in [1, 8, 64] {
        let x: Vec<f32> = (0..rows * N).map(|i| (i as f32 * 0.11).cos()).collect();
        let mut y = vec![0.0; rows * N];
        let rate = gigabytes
            / fastest(|| {
                let x = Activations::new(&x, N, threads);
                matrices.iter().for_each(|matrix| matrix.product(&x, &mut y, threads));
            });
        let multiplications = rate / gigabytes * (rows * N * N * MATRICES) as f64 / 1e9;
        println!(
            "{} rows {rows:2}: {rate:5.2} GB/s of weights, {:3.0} % of {plain:.1} GB/s read, {multiplications:.1} G MAC/s",
            format.name(),
            100.0 * rate / plain
        );
    }
}

/// Reads all of `bytes`.
fn read(bytes: &[u8], threads: &Threads) {
    const PIECE: usize = 128 << 10;
    let (words, _) = bytes.as_chunks::<8>();
    let mut sums = vec![0; words.len().div_ceil(PIECE / 8)];
    threads.chunks(&mut sums, 1, |piece, sum| {
        let words = &words[piece * PIECE / 8..];
        let words = &words[..words.len().min(PIECE / 8)];
        sum[0] = words.iter().fold(0_u64, |sum, word| sum ^ u64::from_le_bytes(*word));
    });
    black_box(sums);
}

/// Seconds of the fastest of some repeats.
fn fastest(mut work: impl FnMut()) -> f64 {
    work();
    let times = (0..REPEATS).map(|_| {
        let started = Instant::now();
        work();
        started.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}
