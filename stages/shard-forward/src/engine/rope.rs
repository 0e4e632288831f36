//! Rotary position embedding.

use std::f64::consts::PI;

use models::{LlamaConfig, RopeScaling};
use tch::{Device, Kind, Tensor};

const FIRST_TABLE_POSITIONS: u32 = 512;

/// Cosines and sines by position, made as far as positions have come.
///
/// Pairs are (i, i + head_dim/2), as in the Hugging Face checkpoints, not interleaved as in the paper.
/// Source: RoFormer, arXiv:2104.09864, eq. 34.
#[derive(Debug)]
pub(super) struct Rope {
    /// `[head_dim / 2]`, f32, in radians a token.
    inverse_frequencies: Tensor,
    /// `[positions, 1, head_dim]`: the cosine of each element's angle.
    cos: Tensor,
    /// `[positions, 1, head_dim]`: the sine of each element's angle, negative in the first half.
    sin: Tensor,
    positions: u32,
    kind: Kind,
}

/// One step's rows of the tables: `[rows, 1, head_dim]` each.
#[derive(Debug)]
pub(super) struct Rotation {
    cos: Tensor,
    sin: Tensor,
    half: i64,
}

impl Rope {
    /// Tables in `kind` on `device`.
    pub(super) fn new(config: &LlamaConfig, kind: Kind, device: Device) -> Self {
        let inverse_frequencies = Tensor::from_slice(&inverse_frequencies(config)).to_device(device);
        let empty = Tensor::zeros([0], (kind, device));
        let mut rope =
            Self { inverse_frequencies, cos: empty.shallow_clone(), sin: empty, positions: 0, kind };
        rope.grow(FIRST_TABLE_POSITIONS);
        rope
    }

    /// Picks the rows for `positions`: `[rows]`, i64, in tokens from the sequence start, all below `end`.
    pub(super) fn at(&mut self, positions: &Tensor, end: u32) -> Rotation {
        if end > self.positions {
            self.grow(end.next_power_of_two());
        }
        Rotation {
            cos: self.cos.index_select(0, positions),
            sin: self.sin.index_select(0, positions),
            half: self.inverse_frequencies.size()[0],
        }
    }

    fn grow(&mut self, positions: u32) {
        let device = self.inverse_frequencies.device();
        let position = Tensor::arange(i64::from(positions), (Kind::Float, device));
        let angle = position.outer(&self.inverse_frequencies).unsqueeze(1);
        let sin = angle.sin();
        self.cos = Tensor::cat(&[angle.cos(), angle.cos()], -1).to_kind(self.kind);
        self.sin = Tensor::cat(&[sin.neg(), sin], -1).to_kind(self.kind);
        self.positions = positions;
    }
}

impl Rotation {
    /// Rotates `heads`, `[rows, n_heads, head_dim]`, by the rows' positions into a new contiguous tensor.
    pub(super) fn apply(&self, heads: &Tensor) -> Tensor {
        let swapped = heads.roll([self.half], [-1]);
        (heads * &self.cos).addcmul_(&swapped, &self.sin)
    }
}

/// Angles a token of each pair, in f32 as transformers has them.
fn inverse_frequencies(config: &LlamaConfig) -> Vec<f32> {
    let head_dim = config.head_dim as f32;
    let theta = config.rope_theta as f32;
    let plain = (0..config.head_dim / 2).map(|pair| 1.0 / theta.powf(2.0 * pair as f32 / head_dim));
    match &config.rope_scaling {
        None => plain.collect(),
        Some(RopeScaling::Linear { factor }) => plain.map(|frequency| frequency / *factor as f32).collect(),
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        }) => {
            let context = *original_max_position_embeddings as f32;
            let (factor, low, high) = (*factor as f32, *low_freq_factor as f32, *high_freq_factor as f32);
            plain.map(|frequency| llama3(frequency, factor, low, high, context)).collect()
        }
    }
}

/// Stretches waves that are long against the original context, leaves short ones, and goes over smoothly between.
/// Source: `_compute_llama3_parameters` of transformers.
fn llama3(frequency: f32, factor: f32, low: f32, high: f32, context: f32) -> f32 {
    let wavelength = 2.0 * PI as f32 / frequency;
    if wavelength > context / low {
        return frequency / factor;
    }
    if wavelength < context / high {
        return frequency;
    }
    let smooth = (context / wavelength - low) / (high - low);
    (1.0 - smooth) * frequency / factor + smooth * frequency
}
