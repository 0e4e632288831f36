//! What a device can do at most, measured through the library that the engine computes with.

use std::time::Instant;

use serde::Serialize;
use tch::{Cuda, Device, Kind, Tensor};

use super::spread::Spread;

const ROUNDS: u32 = 5;

/// The two rates that bound a model.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limits {
    /// Of a large copy within the device's memory, bytes read plus bytes written.
    pub copy_bytes_per_second: Spread,
    /// Of a linear layer: the product of two square bf16 matrices of random numbers, the second transposed.
    pub matrix_flops_per_second: Spread,
}

/// Enough work to fill a device, and little enough for a CPU that has no bf16 instructions.
struct Sizes {
    copy_bytes: i64,
    matrix_side: i64,
    repeats: u32,
}

impl Limits {
    /// Measures `device`, on which nothing else should run.
    pub fn measure(device: Device) -> Self {
        let sizes = match device {
            Device::Cpu => Sizes { copy_bytes: 256 << 20, matrix_side: 512, repeats: 1 },
            _ => Sizes { copy_bytes: 4 << 30, matrix_side: 8192, repeats: 20 },
        };
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::BFloat16, device));
        let (from, mut to) = (random(&[sizes.copy_bytes / 2]), random(&[sizes.copy_bytes / 2]));
        let copy = rate(device, sizes.repeats, 2.0 * sizes.copy_bytes as f64, || to.copy_(&from));
        let side = sizes.matrix_side;
        let (a, b) = (random(&[side, side]), random(&[side, side]));
        let operations = 2.0 * (side as f64).powi(3);
        let matrix = rate(device, sizes.repeats, operations, || drop(a.linear(&b, None::<&Tensor>)));
        Self { copy_bytes_per_second: copy, matrix_flops_per_second: matrix }
    }
}

/// `amount` of each `work` over its time in seconds, after one that is not measured.
fn rate(device: Device, repeats: u32, amount: f64, mut work: impl FnMut()) -> Spread {
    let mut seconds = || {
        let started = Instant::now();
        (0..repeats).for_each(|_| work());
        synchronize(device);
        started.elapsed().as_secs_f64()
    };
    seconds();
    Spread::of((0..ROUNDS).map(|_| amount * f64::from(repeats) / seconds()).collect::<Vec<_>>())
}

/// Waits until `device` has done all that it was asked to do.
fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}
