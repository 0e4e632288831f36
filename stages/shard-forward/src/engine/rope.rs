//! Rotary position embedding.

use std::f64::consts::PI;

use models::{RopeConfig, RopeScaling};
use tch::{Device, Kind, Tensor};

use super::positions::{Lengths, Positions};

const FIRST_TABLE_POSITIONS: u32 = 512;

/// Cosines and sines by position.
///
/// Pairs are (i, i + rotary_dim/2), as in the Hugging Face checkpoints, not interleaved as in the paper.
/// Source: RoFormer, arXiv:2104.09864, eq. 34.
#[derive(Debug)]
pub(super) struct Rope {
    /// How many pairs each axis of positions turns; none where there is one axis.
    sections: Option<[i64; 3]>,
    table: Table,
    /// Of sequences longer than the first training; none where it is the same.
    long: Option<Table>,
}

/// Cosines and sines of one set of frequencies, made as far as positions have come.
#[derive(Debug)]
struct Table {
    /// `[rotary_dim / 2]`, in radians a token.
    inverse_frequencies: Vec<f32>,
    /// What cosines and sines are multiplied by.
    scale: f32,
    /// `[positions, 1, rotary_dim]`: the cosine of each element's angle.
    cos: Tensor,
    /// `[positions, 1, rotary_dim]`: the sine of each element's angle, negative in the first half.
    sin: Tensor,
    positions: u32,
    kind: Kind,
}

/// One step's rows of the tables: `[rows, 1, rotary_dim]` each.
#[derive(Debug)]
pub(super) struct Rotation {
    cos: Tensor,
    sin: Tensor,
    half: i64,
}

impl Rope {
    /// Tables in `kind` on `device`.
    pub(super) fn new(config: &RopeConfig, rotary_dim: usize, kind: Kind, device: Device) -> Self {
        let scale = match &config.scaling {
            Some(
                RopeScaling::Yarn { attention_factor, .. } | RopeScaling::LongRope { attention_factor, .. },
            ) => *attention_factor as f32,
            _ => 1.0,
        };
        let table = |frequencies| Table::new(frequencies, scale, (kind, device));
        let long = match &config.scaling {
            Some(RopeScaling::LongRope { long: Some(long), .. }) => {
                Some(table(divided(waves(config, rotary_dim), &long.long_factor)))
            }
            _ => None,
        };
        Self {
            sections: config.sections.map(|sections| sections.map(|pairs| pairs as i64)),
            table: table(inverse_frequencies(config, rotary_dim)),
            long,
        }
    }

    /// Picks the rows for `positions`, in tokens from the sequence start, all below `end`. Without sections, only time counts.
    pub(super) fn at(&mut self, positions: &Positions, lengths: &Lengths, end: u32) -> Rotation {
        let sections = self.sections;
        match (lengths, &mut self.long) {
            (Lengths::Short, _) | (_, None) => self.table.at(positions, sections, end),
            (Lengths::Long, Some(long)) => long.at(positions, sections, end),
            (Lengths::Mixed(is_long), Some(long)) => {
                let long = long.at(positions, sections, end);
                let short = self.table.at(positions, sections, end);
                let pick = |long: &Tensor, short: &Tensor| long.where_self(is_long, short);
                Rotation {
                    cos: pick(&long.cos, &short.cos),
                    sin: pick(&long.sin, &short.sin),
                    half: short.half,
                }
            }
        }
    }
}

impl Table {
    fn new(inverse_frequencies: Vec<f32>, scale: f32, (kind, device): (Kind, Device)) -> Self {
        let empty = Tensor::zeros([0], (kind, device));
        let cos = empty.shallow_clone();
        let mut table = Self { inverse_frequencies, scale, cos, sin: empty, positions: 0, kind };
        table.grow(FIRST_TABLE_POSITIONS);
        table
    }

    fn at(&mut self, positions: &Positions, sections: Option<[i64; 3]>, end: u32) -> Rotation {
        if end > self.positions {
            self.grow(end.next_power_of_two());
        }
        let half = self.inverse_frequencies.len() as i64;
        let pick = |table: &Tensor| match (positions, sections) {
            (Positions::Axes(axes), Some(sections)) => by_axes(table, axes, sections),
            (Positions::Line(time) | Positions::Axes([time, ..]), _) => table.index_select(0, time),
        };
        Rotation { cos: pick(&self.cos), sin: pick(&self.sin), half }
    }

    /// By f64 functions of f32 angles: an entry has the same bits in tables of any length.
    fn grow(&mut self, positions: u32) {
        let device = self.cos.device();
        let (half, scale) = (self.inverse_frequencies.len(), self.scale);
        let mut cos = Vec::with_capacity(2 * half * positions as usize);
        let mut sin = Vec::with_capacity(cos.capacity());
        for position in 0..positions {
            let angles =
                self.inverse_frequencies.iter().map(|&frequency| f64::from(position as f32 * frequency));
            let (sines, cosines): (Vec<f32>, Vec<f32>) =
                angles.map(|angle| (angle.sin() as f32 * scale, angle.cos() as f32 * scale)).unzip();
            cos.extend(cosines.iter().chain(&cosines));
            sin.extend(sines.iter().map(|sine| -sine).chain(sines.iter().copied()));
        }
        let table = |values: &[f32]| {
            let values = Tensor::from_slice(values).view([i64::from(positions), 1, 2 * half as i64]);
            values.to_device(device).to_kind(self.kind)
        };
        (self.cos, self.sin) = (table(&cos), table(&sin));
        self.positions = positions;
    }
}

/// Rows of `table`, `[positions, 1, rotary_dim]`, for rows whose pairs each are turned by one of three axes: `sections` says how
/// many by which. Each half of a row has all pairs once.
fn by_axes(table: &Tensor, axes: &[Tensor; 3], sections: [i64; 3]) -> Tensor {
    let half = table.size()[2] / 2;
    let mut parts = Vec::with_capacity(6);
    for first in [0, half] {
        let mut pair = first;
        for (axis, pairs) in axes.iter().zip(sections) {
            parts.push(table.narrow(2, pair, pairs).index_select(0, axis));
            pair += pairs;
        }
    }
    Tensor::cat(&parts, 2)
}

impl Rotation {
    /// Cosines and sines of the rows: `[rows, 1, rotary_dim]` each.
    pub(super) fn tables(&self) -> (&Tensor, &Tensor) {
        (&self.cos, &self.sin)
    }

    /// Rotates `heads`, `[rows, n_heads, head_dim]`, by the rows' positions into a new contiguous tensor.
    pub(super) fn apply(&self, heads: &Tensor) -> Tensor {
        let (rotary_dim, head_dim) = (2 * self.half, heads.size()[2]);
        if rotary_dim < head_dim {
            let turned = self.turn(&heads.narrow(2, 0, rotary_dim));
            return Tensor::cat(&[turned, heads.narrow(2, rotary_dim, head_dim - rotary_dim)], 2);
        }
        self.turn(heads)
    }

    fn turn(&self, heads: &Tensor) -> Tensor {
        let swapped = heads.roll([self.half], [-1]);
        (heads * &self.cos).addcmul_(&swapped, &self.sin)
    }
}

/// Angles a token of each pair, in f32 as transformers has them.
fn inverse_frequencies(config: &RopeConfig, rotary_dim: usize) -> Vec<f32> {
    let waves = waves(config, rotary_dim);
    let plain = waves.clone().map(|wave| 1.0 / wave);
    match &config.scaling {
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
        Some(RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            truncate,
            original_max_position_embeddings: original,
            ..
        }) => {
            let pair = |turns| pair_of_turns(config.theta, rotary_dim, f64::from(*original), turns);
            let (low, high) = (pair(*beta_fast), pair(*beta_slow));
            let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
            let (low, high) = (low.max(0.0), high.min(rotary_dim as f64 - 1.0));
            let width = if low == high { 0.001 } else { high - low };
            let divided = |pair: usize| ((pair as f32 - low as f32) / width as f32).clamp(0.0, 1.0);
            let factor = *factor as f32;
            let stretch = |(pair, wave): (usize, f32)| {
                let kept = 1.0 - divided(pair);
                (1.0 / (factor * wave)) * (1.0 - kept) + (1.0 / wave) * kept
            };
            waves.enumerate().map(stretch).collect()
        }
        Some(RopeScaling::LongRope { short_factor, .. }) => divided(waves, short_factor),
    }
}

/// Tokens in which each pair turns by a radian, before any scaling.
fn waves(config: &RopeConfig, rotary_dim: usize) -> impl Iterator<Item = f32> + Clone {
    let (theta, dim) = (config.theta as f32, rotary_dim as f32);
    (0..rotary_dim / 2).map(move |pair| theta.powf(2.0 * pair as f32 / dim))
}

fn divided(waves: impl Iterator<Item = f32>, divisors: &[f64]) -> Vec<f32> {
    waves.zip(divisors).map(|(wave, divisor)| 1.0 / (*divisor as f32 * wave)).collect()
}

/// The pair, as a real number, that turns this often within `context` tokens. Source: YaRN, arXiv:2309.00071, eq. 17 solved for the
/// pair.
fn pair_of_turns(theta: f64, rotary_dim: usize, context: f64, turns: f64) -> f64 {
    rotary_dim as f64 * (context / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln())
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
