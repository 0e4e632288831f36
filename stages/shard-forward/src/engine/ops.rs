//! The arithmetic of a decoder layer, whoever computes it.

use std::fmt::Debug;

use schemas::hidden::Slice;
use tch::{Kind, Tensor};

use super::kv::KvCache;
use super::rope::Rotation;
use super::weights::Weight;

/// A layer's operations. Hidden states, weights and KV cache are in the engine's dtype; what lies between two of these
/// operations is in [`Ops::between`].
pub(super) trait Ops: Debug + Send {
    /// The dtype of what one operation gives to another, and of the tables of rotations.
    fn between(&self) -> Kind;

    /// A linear layer of these weights.
    fn linear(&self, weight: Weight, bias: Option<Weight>) -> Box<dyn Linear>;

    /// Divides each row of `x`, `[rows, hidden_size]`, by its root mean square, in f32, and scales it by `weight`.
    /// Source: arXiv:1910.07467, eq. 4.
    fn rms_norm(&self, x: &Tensor, weight: &Weight, epsilon: f64) -> Tensor;

    /// Rotates the first `heads` heads of `x`, `[rows, n_heads, head_dim]`, by the rows' positions.
    fn rotate(&self, x: &Tensor, heads: i64, rotation: &Rotation) -> Tensor;

    /// How the rows of a step, for which `kv` has made room, will attend.
    fn attention(&self, slices: &[Slice], kv: &KvCache) -> Box<dyn Attention>;

    /// `silu(gate) * up`: `[rows, 2 * intermediate_size]`, gate and up side by side → `[rows, intermediate_size]`.
    fn swiglu(&self, gate_up: &Tensor) -> Tensor;
}

/// `y = x Wᵀ + b`.
pub(super) trait Linear: Debug + Send {
    /// `x`: `[rows, in_features]` → `[rows, out_features]`.
    fn forward(&self, x: &Tensor) -> Tensor;

    /// Hidden states `to`, `[rows, out_features]`, with `y` for `x` added to them, in place where that is quicker.
    fn add_to(&self, to: Tensor, x: &Tensor) -> Tensor;

    /// Prepares for this number of rows.
    fn warm_up(&self, _rows: i64) {}
}

/// How one step's rows attend, the same in every layer.
pub(super) trait Attention {
    /// `q`: `[rows, n_heads, head_dim]`; `keys_values`: the rows' own, `[rows, 2 * n_kv_heads, head_dim]`, which the cache has
    /// too. Gives `[rows, n_heads * head_dim]`.
    fn forward(&self, layer: usize, kv: &KvCache, q: &Tensor, keys_values: &Tensor) -> Tensor;
}
