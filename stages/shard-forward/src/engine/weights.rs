//! From a checkpoint's named tensors to the engine's: in the compute dtype, on its device, mapped where that is possible.

use std::cell::OnceCell;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use kernels::quant::{Format, QuantMatrix};
use kernels::threads::Threads;
use models::{SharedWeight, TernaryConfig, WeightDtype, Weights};
use tch::{Device, Kind, Tensor};

use super::memory::{Shared, drop_mapped_pages, fill};
use super::ops::{Linear, Ops};
use super::quantised::{QuantisedLinear, SideBySide};
use super::ternary;

/// Reads named tensors of a language model for one device and dtype.
#[derive(Debug)]
pub(super) struct Loader<'a> {
    weights: &'a Weights,
    kind: Kind,
    device: Device,
    ops: &'a dyn Ops,
    /// How many compute with quantised matrices, and they, once there is one.
    threads: (usize, OnceCell<Arc<Threads>>),
    /// What stands before the names of the decoder and of `lm_head` in this checkpoint.
    prefixes: (&'static str, &'static str),
    /// What the linear layers of the decoder's layers are.
    ternary: Option<TernaryConfig>,
}

/// What the names of weights within layers begin with.
const LAYERS: &str = "model.layers.";

/// A matrix or vector of a model: in the mapped file, or converted.
pub(super) type Weight = Shared<MappedBytes>;

/// A matrix of a model.
#[derive(Debug)]
pub(super) enum Matrix {
    /// `[n_out, n_in]`, in the compute dtype on the engine's device.
    Plain(Weight),
    /// As the file has it, on the CPU.
    Quantised(QuantMatrix<MappedBytes>),
}

/// The bytes of a weight in a mapped file, which it keeps mapped.
#[derive(Debug)]
pub(super) struct MappedBytes(SharedWeight);

impl MappedBytes {
    /// All bytes of `weight`.
    pub(super) fn new(weight: SharedWeight) -> Self {
        Self(weight)
    }
}

impl AsRef<[u8]> for MappedBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl<'a> Loader<'a> {
    /// `threads` compute with quantised matrices.
    pub(super) fn new(
        weights: &'a Weights,
        (kind, device): (Kind, Device),
        ops: &'a dyn Ops,
        threads: usize,
        ternary: Option<TernaryConfig>,
    ) -> Self {
        let prefixes = weights.decoder_prefixes();
        Self { weights, kind, device, ops, threads: (threads, OnceCell::new()), prefixes, ternary }
    }

    /// In which dtype weights are.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Where weights are.
    pub(super) fn device(&self) -> Device {
        self.device
    }

    /// Who computes with quantised matrices.
    pub(super) fn threads(&self) -> Arc<Threads> {
        let (count, threads) = &self.threads;
        Arc::clone(threads.get_or_init(|| Arc::new(Threads::new(*count))))
    }

    /// Who computes with the weights.
    pub(super) fn ops(&self) -> &dyn Ops {
        self.ops
    }

    /// The tensor that a plain text checkpoint calls `name`, which must have this shape and not be quantised.
    pub(super) fn get(&self, name: &str, shape: &[i64]) -> anyhow::Result<Weight> {
        let shared = self.find(name, shape)?;
        let kind = match shared.dtype {
            WeightDtype::F32 => Kind::Float,
            WeightDtype::F16 => Kind::Half,
            WeightDtype::Bf16 => Kind::BFloat16,
            WeightDtype::Quantised(found) => {
                bail!("weight `{name}` is `{}`, which only matrices may be", found.name())
            }
            WeightDtype::U8 => bail!("weight `{name}` is `U8`, which the config does not say how to read"),
        };
        let weight = Shared::new(MappedBytes(shared), shape, kind);
        if kind == self.kind && self.device == Device::Cpu {
            return Ok(weight);
        }
        let converted = weight.tensor().to_device(self.device).to_kind(self.kind);
        drop_pages(&weight);
        Ok(Shared::Owned(converted))
    }

    /// A matrix, which stays quantised on the CPU.
    pub(super) fn matrix(&self, name: &str, shape: [i64; 2]) -> anyhow::Result<Matrix> {
        let shared = self.find(name, &shape)?;
        let WeightDtype::Quantised(found) = shared.dtype else {
            return Ok(Matrix::Plain(self.get(name, &shape)?));
        };
        let format = Format::ALL.iter().find(|format| format.name() == found.name());
        let format = *format.with_context(|| format!("weight `{name}` is `{}`", found.name()))?;
        let [n_out, n_in] = shape.map(|size| size as usize);
        let matrix = QuantMatrix::new(format, n_out, n_in, MappedBytes(shared))
            .with_context(|| format!("weight `{name}`"))?;
        if self.device == Device::Cpu {
            return Ok(Matrix::Quantised(matrix));
        }
        let whole = fill::<f32>(&shape, |out| {
            out.chunks_mut(n_in).enumerate().for_each(|(row, out)| matrix.dequantise_row(row, out));
        });
        Ok(Matrix::Plain(Shared::Owned(whole.to_kind(self.kind).to_device(self.device))))
    }

    /// The weight that a plain text checkpoint calls `name`, which must have this shape.
    pub(super) fn find(&self, name: &str, shape: &[i64]) -> anyhow::Result<SharedWeight> {
        let (decoder, head) = self.prefixes;
        let name = &match name.strip_prefix("model.") {
            Some(rest) => format!("{decoder}{rest}"),
            None => format!("{head}{name}"),
        };
        let shared = self.weights.get_shared(name).with_context(|| format!("weight `{name}`"))?;
        let found: Vec<i64> = shared.shape.iter().map(|&n| n as i64).collect();
        ensure!(found == shape, "weight `{name}` has shape {found:?}, the config says {shape:?}");
        Ok(shared)
    }

    /// A linear layer of one matrix and, where the config says so, a bias.
    pub(super) fn linear(&self, name: &str, shape: [i64; 2], bias: bool) -> anyhow::Result<Box<dyn Linear>> {
        self.fused(&[(name, shape[0])], shape[1], bias)
    }

    /// Several linear layers of the same input as one, their outputs side by side: fewer and larger products.
    /// The parts are copied, so that the mapped ones need not stay in memory; quantised ones stay where they are.
    pub(super) fn fused(
        &self,
        parts: &[(&str, i64)],
        n_in: i64,
        bias: bool,
    ) -> anyhow::Result<Box<dyn Linear>> {
        let name = joined_name(parts.iter().map(|(name, _)| *name));
        if let Some(config) = self.ternary.filter(|_| parts[0].0.starts_with(LAYERS)) {
            let parts =
                parts.iter().map(|(name, n_out)| ternary::load(self, &config, name, [*n_out, n_in], bias));
            let linear = SideBySide::of(parts.collect::<anyhow::Result<_>>()?);
            return Ok(self.ops.named(&name, linear));
        }
        let weights =
            parts.iter().map(|(name, n_out)| self.matrix(&format!("{name}.weight"), [*n_out, n_in]));
        let biases = parts.iter().filter(|_| bias);
        let biases = biases.map(|(name, n_out)| self.get(&format!("{name}.bias"), &[*n_out]));
        let (weights, biases): (Vec<Matrix>, Vec<Weight>) =
            (weights.collect::<anyhow::Result<_>>()?, biases.collect::<anyhow::Result<_>>()?);
        if weights.iter().any(|matrix| matches!(matrix, Matrix::Quantised(_))) {
            let mut biases = biases.into_iter();
            let parts = weights.into_iter().map(|matrix| self.one(matrix, biases.next()));
            return Ok(self.ops.named(&name, SideBySide::of(parts.collect())));
        }
        let plain = weights.into_iter().filter_map(|matrix| match matrix {
            Matrix::Plain(weight) => Some(weight),
            Matrix::Quantised(_) => None,
        });
        let linear = self.ops.linear(stack(plain.collect()), (!biases.is_empty()).then(|| stack(biases)));
        Ok(self.ops.named(&name, linear))
    }

    /// A linear layer of one matrix as it is.
    fn one(&self, matrix: Matrix, bias: Option<Weight>) -> Box<dyn Linear> {
        match matrix {
            Matrix::Plain(weight) => self.ops.linear(weight, bias),
            Matrix::Quantised(matrix) => {
                Box::new(QuantisedLinear::new(matrix, bias, self.ops.between(), self.threads()))
            }
        }
    }
}

/// `q_proj+k_proj+v_proj` of these under one layer.
fn joined_name<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let last = |name: &'a str| name.rsplit('.').next().unwrap_or(name);
    names.map(last).collect::<Vec<_>>().join("+")
}

/// Joins tensors along their first dimension; one alone stays where it is.
fn stack(mut parts: Vec<Weight>) -> Weight {
    if parts.len() == 1 {
        return parts.remove(0);
    }
    let tensors: Vec<&Tensor> = parts.iter().map(Weight::tensor).collect();
    let joined = Tensor::cat(&tensors, 0);
    parts.iter().for_each(drop_pages);
    Shared::Owned(joined)
}

/// Frees the memory of a weight that was copied from the mapped file.
pub(super) fn drop_pages(weight: &Weight) {
    if let Shared::Borrowed(mapped) = weight {
        drop_mapped_pages(mapped.bytes());
    }
}
