//! What a layer has behind its attention: a gated MLP, or experts of which each row goes through a few.
//! Source: Mixtral, arXiv:2401.04088, sec. 2.1.

use kernels::exp::exp;
use models::{Activation, ExpertsConfig};
use tch::{Device, Kind, Tensor};

use super::layer::Sizes;
use super::memory::elements;
use super::ops::{Linear, Ops};
use super::weights::{Loader, Weight};

/// One MLP, or several.
#[derive(Debug)]
pub(super) enum Mlp {
    Dense(Gated),
    Sparse(Experts),
}

/// `down(norm(activation(gate(x)) * up(x)))`, mostly without the norm.
#[derive(Debug)]
pub(super) struct Gated {
    /// Gate and up side by side: `[2 * intermediate_size, hidden_size]`.
    gate_up_proj: Box<dyn Linear>,
    /// `[intermediate_size]`, and what is added to the mean square.
    ffn_sub_norm: Option<(Weight, f64)>,
    down_proj: Box<dyn Linear>,
}

/// MLPs with what chooses among them.
#[derive(Debug)]
pub(super) struct Experts {
    /// `[experts, hidden_size]`.
    router: Box<dyn Linear>,
    experts: Vec<Gated>,
    per_token: usize,
    normalised: bool,
}

/// The rows that go through one expert, and the shares that it has in each.
#[derive(Debug, Default, PartialEq)]
struct Chosen {
    rows: Vec<i64>,
    shares: Vec<f32>,
}

impl Mlp {
    pub(super) fn load(loader: &Loader<'_>, sizes: &Sizes, i: u32, sparse: bool) -> anyhow::Result<Self> {
        match sizes.experts.filter(|_| sparse) {
            Some(config) => Ok(Self::Sparse(Experts::load(loader, sizes, i, &config)?)),
            None => Ok(Self::Dense(Gated::load(loader, sizes, i)?)),
        }
    }

    /// `x`: `[rows, hidden_size]`, normed → the same shape, in [`Ops::between`].
    pub(super) fn forward(&self, ops: &dyn Ops, activation: Activation, x: &Tensor) -> Tensor {
        match self {
            Self::Dense(mlp) => mlp.forward(ops, activation, x),
            Self::Sparse(experts) => experts.forward(ops, activation, x),
        }
    }

    /// Hidden states `to` with what it gives for `x` added to them.
    pub(super) fn add_to(&self, ops: &dyn Ops, activation: Activation, to: Tensor, x: &Tensor) -> Tensor {
        match self {
            Self::Dense(mlp) => mlp.down_proj.add_to(to, &mlp.gated(ops, activation, x)),
            Self::Sparse(experts) => ops.add(to, &experts.forward(ops, activation, x)),
        }
    }

    /// Bytes of the matrices that one row goes through.
    pub(super) fn row_bytes(&self) -> u64 {
        let gated = |mlp: &Gated| mlp.gate_up_proj.bytes() + mlp.down_proj.bytes();
        match self {
            Self::Dense(mlp) => gated(mlp),
            // All experts are as large.
            Self::Sparse(experts) => {
                let expert = experts.experts.first().map_or(0, gated);
                experts.router.bytes() + experts.per_token as u64 * expert
            }
        }
    }

    /// Its dense matrices; experts all have the same shapes.
    pub(super) fn linears(&self) -> impl Iterator<Item = &dyn Linear> {
        let mlp = match self {
            Self::Dense(mlp) => Some(mlp),
            Self::Sparse(experts) => experts.experts.first(),
        };
        mlp.into_iter().flat_map(|mlp| [&*mlp.gate_up_proj, &*mlp.down_proj])
    }
}

impl Gated {
    fn load(loader: &Loader<'_>, sizes: &Sizes, i: u32) -> anyhow::Result<Self> {
        let Sizes { hidden, intermediate, mlp_bias, .. } = *sizes;
        let name = |name: &str| format!("model.layers.{i}.mlp.{name}");
        let (gate_proj, up_proj) = (name("gate_proj"), name("up_proj"));
        let ffn_sub_norm = match sizes.sub_norms {
            true => {
                let weight = sizes.norm(loader, &format!("{}.weight", name("ffn_sub_norm")), intermediate)?;
                Some((weight, sizes.eps))
            }
            false => None,
        };
        let gate_up = [(&*gate_proj, intermediate), (&*up_proj, intermediate)];
        Ok(Self {
            gate_up_proj: sizes.joined(loader, &name("gate_up_proj"), &gate_up, mlp_bias)?,
            ffn_sub_norm,
            down_proj: loader.linear(&name("down_proj"), [hidden, intermediate], mlp_bias)?,
        })
    }

    fn gated(&self, ops: &dyn Ops, activation: Activation, x: &Tensor) -> Tensor {
        let gated = ops.gated(&self.gate_up_proj.forward(x), activation);
        match &self.ffn_sub_norm {
            Some((weight, eps)) => ops.rms_norm(&gated, weight, *eps),
            None => gated,
        }
    }

    fn forward(&self, ops: &dyn Ops, activation: Activation, x: &Tensor) -> Tensor {
        self.down_proj.forward(&self.gated(ops, activation, x))
    }
}

impl Experts {
    fn load(loader: &Loader<'_>, sizes: &Sizes, i: u32, config: &ExpertsConfig) -> anyhow::Result<Self> {
        let ExpertsConfig { count, per_token, intermediate_size, normalised, names } = *config;
        let (hidden, intermediate) = (sizes.hidden, intermediate_size as i64);
        let expert = |number: usize| -> anyhow::Result<Gated> {
            let name = |part: &str| format!("model.layers.{i}.{}.{number}.{part}", names.experts);
            let (gate, up) = (name(names.gate), name(names.up));
            Ok(Gated {
                gate_up_proj: loader.fused(&[(&gate, intermediate), (&up, intermediate)], hidden, false)?,
                ffn_sub_norm: None,
                down_proj: loader.linear(&name(names.down), [hidden, intermediate], false)?,
            })
        };
        Ok(Self {
            router: loader.linear(
                &format!("model.layers.{i}.{}", names.router),
                [count as i64, hidden],
                false,
            )?,
            experts: (0..count).map(expert).collect::<anyhow::Result<_>>()?,
            per_token,
            normalised,
        })
    }

    /// Each expert computes its rows together; their shares are added in f32 in the order of the experts, so that a row's sum
    /// does not depend on what is computed with it.
    fn forward(&self, ops: &dyn Ops, activation: Activation, x: &Tensor) -> Tensor {
        let logits = self.router.forward(x).to_device(Device::Cpu).to_kind(Kind::Float);
        let chosen = choose(elements(&logits), self.experts.len(), self.per_token, self.normalised);
        let mut sum = Tensor::zeros(x.size(), (Kind::Float, x.device()));
        for (expert, chosen) in self.experts.iter().zip(&chosen) {
            if chosen.rows.is_empty() {
                continue;
            }
            let rows = Tensor::from_slice(&chosen.rows).to_device(x.device());
            let shares = Tensor::from_slice(&chosen.shares).to_device(x.device()).unsqueeze(1);
            let y = expert.forward(ops, activation, &x.index_select(0, &rows));
            let _ = sum.index_add_(0, &rows, &(y.to_kind(Kind::Float) * shares));
        }
        sum.to_kind(ops.between())
    }
}

/// For each expert the rows that go through it. `logits`: `[rows, experts]`. A row chooses its `per_token` largest, of equal
/// ones the first; their shares are their part of the softmax over all, or over the chosen where they are `normalised`.
fn choose(logits: &[f32], experts: usize, per_token: usize, normalised: bool) -> Vec<Chosen> {
    let mut chosen: Vec<Chosen> = (0..experts).map(|_| Chosen::default()).collect();
    let mut order: Vec<usize> = Vec::with_capacity(experts);
    for (row, logits) in (0..).zip(logits.chunks_exact(experts)) {
        order.clear();
        order.extend(0..experts);
        // Stable: equal ones stay in order.
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let largest = logits[order[0]];
        let weight = |&expert: &usize| exp(logits[expert] - largest);
        let total: f32 = match normalised {
            true => order[..per_token].iter().map(weight).sum(),
            false => order.iter().map(weight).sum(),
        };
        for expert in &order[..per_token] {
            chosen[*expert].rows.push(row);
            chosen[*expert].shares.push(weight(expert) / total);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_through_the_experts_of_its_largest_logits() {
        let logits = [0.0, 2.0, 1.0, 5.0, 5.0, 5.0];
        let chosen = choose(&logits, 3, 2, true);
        let rows: Vec<&[i64]> = chosen.iter().map(|chosen| &*chosen.rows).collect();
        assert_eq!(rows, [&[1][..], &[0, 1], &[0]], "of equal ones the first");
        let share = 1.0 / (1.0 + (-1.0_f32).exp());
        assert!(
            (chosen[1].shares[0] - share).abs() < 1e-6 && (chosen[2].shares[0] - 1.0 + share).abs() < 1e-6
        );
        assert_eq!(chosen[0].shares, [0.5]);
    }

    #[test]
    fn shares_of_all_experts_leave_out_what_is_not_chosen() {
        let chosen = choose(&[0.0, 0.0, 0.0, 0.0], 4, 1, false);
        assert_eq!(chosen[0], Chosen { rows: vec![0], shares: vec![0.25] });
        assert!(chosen[1..].iter().all(|chosen| chosen.rows.is_empty()));
    }

    #[test]
    fn logits_that_are_no_numbers_choose_as_many() {
        let chosen = choose(&[f32::NAN, 1.0, f32::INFINITY], 3, 2, true);
        assert_eq!(chosen.iter().map(|chosen| chosen.rows.len()).sum::<usize>(), 2);
    }
}
