//! The arithmetic of a decoder layer, whoever computes it.

use std::fmt::Debug;

use models::Activation;
use schemas::hidden::Slice;
use tch::{Kind, Tensor};

use super::kv::KvCache;
use super::record::Place;
use super::rope::Rotation;
use super::weights::Weight;

/// A layer's operations. Hidden states, weights and KV cache are in the engine's dtype; what lies between two of these
/// operations is in [`Ops::between`].
pub(super) trait Ops: Debug + Send {
    /// The dtype of what one operation gives to another, and of the tables of rotations.
    fn between(&self) -> Kind;

    /// A linear layer of these weights.
    fn linear(&self, weight: Weight, bias: Option<Weight>) -> Box<dyn Linear>;

    /// `linear` under the name that its matrices have in the checkpoint, for arithmetic that tells them apart.
    fn named(&self, _name: &str, linear: Box<dyn Linear>) -> Box<dyn Linear> {
        linear
    }

    /// That what comes now belongs to this part of the step.
    fn enter(&self, _place: Place) {}

    /// Divides each row of `x`, `[.., width]`, by its root mean square, in f32, and scales it by `weight`, `[width]`. `x` is
    /// contiguous, in either dtype; `weight` is in the engine's or in f32.
    /// Source: arXiv:1910.07467, eq. 4.
    fn rms_norm(&self, x: &Tensor, weight: &Weight, epsilon: f64) -> Tensor;

    /// Rotates `x`, `[rows, n_heads, head_dim]`, by the rows' positions.
    fn rotate(&self, x: &Tensor, rotation: &Rotation) -> Tensor;

    /// How the rows of a step, for which `kv` has made room, will attend: each to its last `window` tokens, its own included, or
    /// to all.
    fn attention(
        &self,
        slices: &[Slice],
        kv: &KvCache,
        window: Option<u32>,
        scoring: Scoring,
    ) -> Box<dyn Attention>;

    /// `activation(gate) * up`: `[rows, 2 * intermediate_size]`, gate and up side by side → `[rows, intermediate_size]`.
    fn gated(&self, gate_up: &Tensor, activation: Activation) -> Tensor;

    /// Hidden states `to` with `y` of the same shape, in [`Ops::between`], added to them.
    fn add(&self, to: Tensor, y: &Tensor) -> Tensor;

    /// Logits bent smoothly into ± `cap`: `cap * tanh(x / cap)`.
    fn softcap(&self, logits: Tensor, cap: f64) -> Tensor;
}

/// How products of queries and keys become scores.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scoring {
    /// They are multiplied by this,
    pub(super) scale: f64,
    /// then bent smoothly into ± this.
    pub(super) softcap: Option<f64>,
}

/// `y = x Wᵀ + b`.
pub(super) trait Linear: Debug + Send {
    /// `x`: `[rows, in_features]` → `[rows, out_features]`.
    fn forward(&self, x: &Tensor) -> Tensor;

    /// Hidden states `to`, `[rows, out_features]`, with `y` for `x` added to them, in place where that is quicker.
    fn add_to(&self, to: Tensor, x: &Tensor) -> Tensor;

    /// Prepares for this number of rows.
    fn warm_up(&self, _rows: i64) {}

    /// What its matrix takes in memory.
    fn bytes(&self) -> u64;
}

/// How one step's rows attend, the same in every layer that sees as far.
pub(super) trait Attention {
    /// `q`: `[rows, n_heads, head_dim]`; `keys_values`: the rows' own, `[rows, 2 * n_kv_heads, head_dim]`, which the cache has
    /// too. Gives `[rows, n_heads * head_dim]`.
    fn forward(&self, layer: usize, kv: &KvCache, q: &Tensor, keys_values: &Tensor) -> Tensor;
}
