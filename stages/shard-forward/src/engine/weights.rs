//! From a checkpoint's named tensors to the engine's: in the compute dtype, on its device, mapped where that is possible.

use anyhow::{Context, ensure};
use models::{SharedWeight, WeightDtype, Weights};
use tch::{Device, Kind, Tensor};

use super::memory::{Shared, drop_mapped_pages};

/// Reads named tensors of a language model for one device and dtype.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loader<'a> {
    weights: &'a Weights,
    kind: Kind,
    device: Device,
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

/// `y = x Wᵀ + b`.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[out_features, in_features]`.
    weight: Weight,
    /// `[out_features]`.
    bias: Option<Weight>,
}

impl Linear {
    pub(super) fn new(weight: Weight, bias: Option<Weight>) -> Self {
        Self { weight, bias }
    }

    /// `x`: `[rows, in_features]` → `[rows, out_features]`.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let linear = |x: &Tensor| x.linear(self.weight.tensor(), self.bias.as_ref().map(Weight::tensor));
        let rows = x.size()[0];
        let padded =
            if x.device() == Device::Cpu && x.kind() == Kind::BFloat16 { padded_rows(rows) } else { rows };
        if padded == rows {
            return linear(x);
        }
        linear(&x.constant_pad_nd([0, 0, 0, padded - rows])).narrow(0, 0, rows)
    }

    /// `to`, `[rows, out_features]`, with `y` for `x` added to it: on a GPU in place, in one kernel where there is no bias.
    pub(super) fn add_to(&self, mut to: Tensor, x: &Tensor) -> Tensor {
        if to.device() == Device::Cpu || self.bias.is_some() {
            return to + self.forward(x);
        }
        to.addmm_(x, &self.weight.tensor().tr())
    }

    /// Has the kernel for this number of rows compiled.
    pub(super) fn warm_up(&self, rows: i64) {
        let weight = self.weight.tensor();
        let _ = self.forward(&Tensor::zeros([rows, weight.size()[1]], (weight.kind(), weight.device())));
    }
}

/// The numbers of rows that products have in steps of up to `rows_max` rows, ascending.
pub(super) fn row_counts(rows_max: i64) -> impl Iterator<Item = i64> {
    (1..=rows_max).filter(|&rows| padded_rows(rows) == rows)
}

/// To how many rows a bf16 product on the CPU is padded: up to eight as they are, then four sizes an octave.
///
/// oneDNN compiles and keeps code for every number of rows that it meets, 0.6 to 1 MiB for each weight shape, and keeps the last
/// thousand: without this a shard grows by a gigabyte as prompts of ever new lengths come.
fn padded_rows(rows: i64) -> i64 {
    let rows = rows as u64;
    rows.next_multiple_of(rows.max(8).next_power_of_two() / 8) as i64
}

impl<'a> Loader<'a> {
    pub(super) fn new(weights: &'a Weights, kind: Kind, device: Device) -> Self {
        Self { weights, kind, device, prefixes: weights.decoder_prefixes() }
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
    pub(super) fn linear(&self, name: &str, shape: [i64; 2], bias: bool) -> anyhow::Result<Linear> {
        self.fused(&[(name, shape[0])], shape[1], bias)
    }

    /// Several linear layers of the same input as one, their outputs side by side: fewer and larger products.
    /// The parts are copied, so that the mapped ones need not stay in memory.
    pub(super) fn fused(&self, parts: &[(&str, i64)], n_in: i64, bias: bool) -> anyhow::Result<Linear> {
        let weights = parts.iter().map(|(name, n_out)| self.get(&format!("{name}.weight"), &[*n_out, n_in]));
        let weight = stack(weights.collect::<anyhow::Result<_>>()?);
        if !bias {
            return Ok(Linear::new(weight, None));
        }
        let biases = parts.iter().map(|(name, n_out)| self.get(&format!("{name}.bias"), &[*n_out]));
        Ok(Linear::new(weight, Some(stack(biases.collect::<anyhow::Result<_>>()?))))
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
fn drop_pages(weight: &Weight) {
    if let Shared::Borrowed(mapped) = weight {
        drop_mapped_pages(mapped.bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn few_numbers_of_rows_reach_the_kernels() {
        let sizes: BTreeSet<i64> = (1..=512).map(padded_rows).collect();
        assert_eq!(sizes.len(), 8 + 4 * 6);
        assert!(row_counts(512).eq(sizes));
        assert_eq!([8, 9, 17, 32, 33, 300, 512].map(padded_rows), [8, 10, 20, 32, 40, 320, 512]);
        assert!((1..5000).all(|rows| (rows..=rows + rows / 4).contains(&padded_rows(rows))));
    }
}
