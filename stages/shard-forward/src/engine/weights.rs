//! From a checkpoint's named tensors to the engine's: in the compute dtype, on its device, mapped where that is possible.

use anyhow::{Context, ensure};
use models::{SharedWeight, WeightDtype, Weights};
use tch::{Device, Kind, Tensor};

use super::memory::{Shared, drop_mapped_pages};
use super::ops::{Linear, Ops};

/// Reads named tensors of a language model for one device and dtype.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loader<'a> {
    weights: &'a Weights,
    kind: Kind,
    device: Device,
    ops: &'a dyn Ops,
    /// What stands before the names of the decoder and of `lm_head` in this checkpoint.
    prefixes: (&'static str, &'static str),
}

/// A matrix or vector of a model: in the mapped file, or converted.
pub(super) type Weight = Shared<MappedBytes>;

/// The bytes of a weight in a mapped file, which it keeps mapped.
#[derive(Debug)]
pub(super) struct MappedBytes(SharedWeight);

impl AsRef<[u8]> for MappedBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl<'a> Loader<'a> {
    pub(super) fn new(weights: &'a Weights, kind: Kind, device: Device, ops: &'a dyn Ops) -> Self {
        Self { weights, kind, device, ops, prefixes: weights.decoder_prefixes() }
    }

    /// Who computes with the weights.
    pub(super) fn ops(&self) -> &dyn Ops {
        self.ops
    }

    /// The tensor that a plain text checkpoint calls `name`, which must have this shape.
    pub(super) fn get(&self, name: &str, shape: &[i64]) -> anyhow::Result<Weight> {
        let (decoder, head) = self.prefixes;
        let name = &match name.strip_prefix("model.") {
            Some(rest) => format!("{decoder}{rest}"),
            None => format!("{head}{name}"),
        };
        let shared = self.weights.get_shared(name).with_context(|| format!("weight `{name}`"))?;
        let found: Vec<i64> = shared.shape.iter().map(|&n| n as i64).collect();
        ensure!(found == shape, "weight `{name}` has shape {found:?}, the config says {shape:?}");
        let kind = match shared.dtype {
            WeightDtype::F32 => Kind::Float,
            WeightDtype::F16 => Kind::Half,
            WeightDtype::Bf16 => Kind::BFloat16,
        };
        let weight = Shared::new(MappedBytes(shared), shape, kind);
        if kind == self.kind && self.device == Device::Cpu {
            return Ok(weight);
        }
        let converted = weight.tensor().to_device(self.device).to_kind(self.kind);
        drop_pages(&weight);
        Ok(Shared::Owned(converted))
    }

    /// A linear layer of one matrix and, where the config says so, a bias.
    pub(super) fn linear(&self, name: &str, shape: [i64; 2], bias: bool) -> anyhow::Result<Box<dyn Linear>> {
        self.fused(&[(name, shape[0])], shape[1], bias)
    }

    /// Several linear layers of the same input as one, their outputs side by side: fewer and larger products.
    /// The parts are copied, so that the mapped ones need not stay in memory.
    pub(super) fn fused(
        &self,
        parts: &[(&str, i64)],
        n_in: i64,
        bias: bool,
    ) -> anyhow::Result<Box<dyn Linear>> {
        let weights = parts.iter().map(|(name, n_out)| self.get(&format!("{name}.weight"), &[*n_out, n_in]));
        let weight = stack(weights.collect::<anyhow::Result<_>>()?);
        if !bias {
            return Ok(self.ops.linear(weight, None));
        }
        let biases = parts.iter().map(|(name, n_out)| self.get(&format!("{name}.bias"), &[*n_out]));
        Ok(self.ops.linear(weight, Some(stack(biases.collect::<anyhow::Result<_>>()?))))
    }
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
