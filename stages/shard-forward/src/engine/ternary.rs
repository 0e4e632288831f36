//! Linear layers of ternary weights and activations of eight bits, for either kind of arithmetic: a row has the same bits whatever is
//! computed with it.
//!
//! On a device other than the CPU, where no kernel of ours runs, the weights are tensors of -1, 0 and 1 and the sums may be rounded.
//! Source: `integrations/bitnet.py` of transformers.

use std::sync::Arc;

use anyhow::{Context, ensure};
use kernels::rows::rms_norm;
use kernels::ternary::{Int8Activations, TernaryMatrix, TernaryScale, quantise};
use kernels::threads::Threads;
use models::{TernaryConfig, TernaryLinears, WeightDtype};
use tch::{Device, Kind, Tensor};

use super::memory::{elements, fill};
use super::ops::Linear;
use super::quantised::added;
use super::weights::{Loader, MappedBytes, drop_pages};

/// Weights of a packed byte.
const PER_BYTE: i64 = 4;

/// On the CPU.
#[derive(Debug)]
struct TernaryLinear {
    matrix: TernaryMatrix<Packed>,
    around: Around,
    threads: Arc<Threads>,
}

/// On any device, in plain tensor operations.
#[derive(Debug)]
struct TernaryTensor {
    /// `[n_in, n_out]`, of -1, 0 and 1 in the compute dtype.
    transposed: Tensor,
    scale: TernaryScale,
    around: Around,
}

/// What stands before and behind the product.
#[derive(Debug)]
struct Around {
    /// Norms the input: `[n_in]`, f32, and what is added to the mean square.
    norm: Option<(Tensor, f64)>,
    /// `[n_out]`, f32, already multiplied where outputs are.
    bias: Option<Tensor>,
    /// Of what it gives: [`Ops::between`](super::ops::Ops::between).
    kind: Kind,
}

/// As the file has the weights, or made of trained ones.
#[derive(Debug)]
enum Packed {
    Mapped(MappedBytes),
    Owned(Vec<u8>),
}

impl AsRef<[u8]> for Packed {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(bytes) => bytes.as_ref(),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// The linear layer `name` of these weights, `[n_out, n_in]`.
pub(super) fn load(
    loader: &Loader<'_>,
    config: &TernaryConfig,
    name: &str,
    shape: [i64; 2],
    bias: bool,
) -> anyhow::Result<Box<dyn Linear>> {
    let matrix = load_matrix(loader, config.linears, name, shape)?;
    // Copies, since a mapped tensor that is f32 already would outlive its file.
    let vector = |part: &str, width: i64| -> anyhow::Result<Tensor> {
        Ok(loader.get(&format!("{name}.{part}"), &[width])?.tensor().to_kind(Kind::Float).copy())
    };
    let norm = config.norm_eps.map(|eps| Ok::<_, anyhow::Error>((vector("rms_norm.weight", shape[1])?, eps)));
    let bias = bias.then(|| vector("bias", shape[0])).transpose()?;
    let bias = match (matrix.scale(), config.linears) {
        (TernaryScale::Times(scale), TernaryLinears::Multiplied) => bias.map(|bias| bias * f64::from(scale)),
        _ => bias,
    };
    let around = Around { norm: norm.transpose()?, bias, kind: loader.ops().between() };
    let linear: Box<dyn Linear> = match loader.device() {
        Device::Cpu => Box::new(TernaryLinear { matrix, around, threads: loader.threads() }),
        device => Box::new(TernaryTensor::new(&matrix, around, (loader.kind(), device))),
    };
    Ok(linear)
}

fn load_matrix(
    loader: &Loader<'_>,
    linears: TernaryLinears,
    name: &str,
    shape: [i64; 2],
) -> anyhow::Result<TernaryMatrix<Packed>> {
    let weight = format!("{name}.weight");
    let [n_out, n_in] = shape;
    let (packed, scale) = match linears {
        TernaryLinears::Trained => trained(loader, &weight, shape)?,
        TernaryLinears::Divided | TernaryLinears::Multiplied => {
            ensure!(n_out % PER_BYTE == 0, "weight `{weight}` of {n_out} outputs is packed by {PER_BYTE}");
            let found = loader.find(&weight, &[n_out / PER_BYTE, n_in])?;
            let dtype = found.dtype;
            ensure!(dtype == WeightDtype::U8, "weight `{weight}` is `{dtype:?}`, packed ternary ones are U8");
            let scale = loader.get(&format!("{name}.weight_scale"), &[1])?.tensor().double_value(&[0]) as f32;
            let scale = match linears {
                TernaryLinears::Divided => TernaryScale::Over(scale),
                _ => TernaryScale::Times(scale),
            };
            (Packed::Mapped(MappedBytes::new(found)), scale)
        }
    };
    TernaryMatrix::new(n_out as usize, n_in as usize, packed, scale)
        .with_context(|| format!("weight `{weight}`"))
}

/// Makes trained weights ternary, in the compute dtype as transformers does.
fn trained(loader: &Loader<'_>, weight: &str, shape: [i64; 2]) -> anyhow::Result<(Packed, TernaryScale)> {
    let weight = loader.get(weight, &shape)?;
    let floats = weight.tensor().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let (packed, scale) = quantise(elements(&floats), shape[1] as usize);
    drop_pages(&weight);
    let size = Tensor::from(f64::from(1.0 / scale)).to_kind(loader.kind()).double_value(&[]) as f32;
    Ok((Packed::Owned(packed), TernaryScale::Times(size)))
}

impl Around {
    /// Of scaled sums.
    fn finish(&self, y: Tensor) -> Tensor {
        match &self.bias {
            Some(bias) => (y + bias).to_kind(self.kind),
            None => y.to_kind(self.kind),
        }
    }
}

impl Linear for TernaryLinear {
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = x.to_kind(Kind::Float).contiguous();
        if let Some((weight, eps)) = &self.around.norm {
            x = fill(&x.size(), |out| {
                rms_norm::<f32, f32>(elements(&x), elements(weight), *eps as f32, out, &self.threads);
            });
        }
        let integers = Int8Activations::new(elements(&x), self.matrix.n_in(), &self.threads);
        let y = fill(&[x.size()[0], self.matrix.n_out() as i64], |y| {
            self.matrix.product(&integers, y, &self.threads);
        });
        self.around.finish(y)
    }

    fn add_to(&self, to: Tensor, x: &Tensor) -> Tensor {
        added(to, &self.forward(x))
    }

    fn bytes(&self) -> u64 {
        // Four weights a byte.
        (self.matrix.n_out() * self.matrix.n_in().div_ceil(4)) as u64
    }
}

impl TernaryTensor {
    fn new(matrix: &TernaryMatrix<Packed>, mut around: Around, (kind, device): (Kind, Device)) -> Self {
        let n_in = matrix.n_in();
        let weights = fill::<f32>(&[matrix.n_out() as i64, n_in as i64], |out| {
            out.chunks_mut(n_in).enumerate().for_each(|(row, out)| matrix.unpack_row(row, out));
        });
        let to_device = |tensor: &Tensor| tensor.to_device(device);
        around.norm = around.norm.map(|(weight, eps)| (to_device(&weight), eps));
        around.bias = around.bias.as_ref().map(to_device);
        Self { transposed: weights.to_kind(kind).to_device(device).tr(), scale: matrix.scale(), around }
    }
}

impl Linear for TernaryTensor {
    fn forward(&self, x: &Tensor) -> Tensor {
        let mut x = x.to_kind(Kind::Float);
        if let Some((weight, eps)) = &self.around.norm {
            x = x.rms_norm(weight.size(), Some(weight), *eps);
        }
        let scales = Tensor::from(127.0) / x.abs().amax([-1], true).clamp_min(1e-5);
        // Up to 127, so the same in bf16.
        let integers = (x * &scales).round().clamp(-128.0, 127.0).to_kind(self.transposed.kind());
        let sums = integers.matmul(&self.transposed).to_kind(Kind::Float);
        self.around.finish(match self.scale {
            TernaryScale::Times(scale) => sums / scales * f64::from(scale),
            TernaryScale::Over(scale) => sums / (scales * f64::from(scale)),
        })
    }

    fn add_to(&self, to: Tensor, x: &Tensor) -> Tensor {
        added(to, &self.forward(x))
    }

    fn bytes(&self) -> u64 {
        (self.transposed.numel() * self.transposed.kind().elt_size_in_bytes()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_give_what_the_kernel_gives() {
        let numbers = |count: usize| -> Vec<f32> { (0..count).map(|i| (i as f32 * 0.7).sin()).collect() };
        let (n_out, n_in, rows) = (20, 36, 5);
        let x = Tensor::from_slice(&numbers(rows * n_in)).view([rows as i64, n_in as i64]);
        for scale in [TernaryScale::Times(0.3), TernaryScale::Over(3.0)] {
            let (packed, _) = quantise(&numbers(n_out * n_in), n_in);
            let matrix = TernaryMatrix::new(n_out, n_in, Packed::Owned(packed), scale).unwrap();
            let around = || Around {
                norm: Some((Tensor::full([n_in as i64], 1.5, (Kind::Float, Device::Cpu)), 1e-5)),
                bias: Some(Tensor::from_slice(&numbers(n_out))),
                kind: Kind::Float,
            };
            let tensor = TernaryTensor::new(&matrix, around(), (Kind::Float, Device::Cpu));
            let linear = TernaryLinear { matrix, around: around(), threads: Arc::new(Threads::new(1)) };
            let delta = (tensor.forward(&x) - linear.forward(&x)).abs().max().double_value(&[]);
            assert!(delta < 1e-5, "{scale:?}: {delta}");
        }
    }
}
