//! A layer's arithmetic by libtorch: the quickest there is, but the last bits of a row may depend on how many rows are
//! computed with it and on the number of threads.

use models::Activation;
use schemas::hidden::Slice;
use tch::{Device, Kind, Tensor};

use super::attention::AttentionPlan;
use super::kv::KvCache;
use super::ops::{Attention, Linear, Ops, Scoring};
use super::rope::Rotation;
use super::weights::Weight;

/// Kernels of libtorch for one dtype on one device.
#[derive(Debug)]
pub(super) struct Libtorch {
    pub(super) kind: Kind,
    pub(super) device: Device,
}

#[derive(Debug)]
struct LibtorchLinear {
    /// `[out_features, in_features]`.
    weight: Weight,
    /// `[out_features]`.
    bias: Option<Weight>,
}

impl Ops for Libtorch {
    fn between(&self) -> Kind {
        self.kind
    }

    fn linear(&self, weight: Weight, bias: Option<Weight>) -> Box<dyn Linear> {
        Box::new(LibtorchLinear { weight, bias })
    }

    fn rms_norm(&self, x: &Tensor, weight: &Weight, epsilon: f64) -> Tensor {
        let weight = weight.tensor();
        if weight.kind() == x.kind() {
            return x.rms_norm(weight.size(), Some(weight), epsilon);
        }
        x.to_kind(weight.kind()).rms_norm(weight.size(), Some(weight), epsilon).to_kind(x.kind())
    }

    fn rotate(&self, x: &Tensor, rotation: &Rotation) -> Tensor {
        rotation.apply(x)
    }

    fn attention(
        &self,
        slices: &[Slice],
        kv: &KvCache,
        window: Option<u32>,
        scoring: Scoring,
    ) -> Box<dyn Attention> {
        Box::new(AttentionPlan::new(slices, kv, window, scoring, (self.kind, self.device)))
    }

    fn gated(&self, gate_up: &Tensor, activation: Activation) -> Tensor {
        let halves = gate_up.chunk(2, 1);
        let gate = match activation {
            Activation::Silu => halves[0].silu(),
            Activation::GeluTanh => halves[0].gelu("tanh"),
            Activation::Relu2 => halves[0].relu().square(),
        };
        gate * &halves[1]
    }

    fn add(&self, to: Tensor, y: &Tensor) -> Tensor {
        to + y
    }

    fn softcap(&self, logits: Tensor, cap: f64) -> Tensor {
        (logits / cap).tanh() * cap
    }
}

impl Linear for LibtorchLinear {
    fn forward(&self, x: &Tensor) -> Tensor {
        let linear = |x: &Tensor| x.linear(self.weight.tensor(), self.bias.as_ref().map(Weight::tensor));
        let rows = x.size()[0];
        let padded =
            if x.device() == Device::Cpu && x.kind() == Kind::BFloat16 { padded_rows(rows) } else { rows };
        if padded == rows {
            return linear(x);
        }
        linear(&x.constant_pad_nd([0, 0, 0, padded - rows])).narrow(0, 0, rows)
    }

    /// On a GPU in place, in one kernel where there is no bias.
    fn add_to(&self, mut to: Tensor, x: &Tensor) -> Tensor {
        if to.device() == Device::Cpu || self.bias.is_some() {
            return to + self.forward(x);
        }
        to.addmm_(x, &self.weight.tensor().tr())
    }

    /// Has the kernel for this number of rows compiled.
    fn warm_up(&self, rows: i64) {
        let weight = self.weight.tensor();
        let _ = self.forward(&Tensor::zeros([rows, weight.size()[1]], (weight.kind(), weight.device())));
    }

    fn bytes(&self) -> u64 {
        let weight = self.weight.tensor();
        (weight.numel() * weight.kind().elt_size_in_bytes()) as u64
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
