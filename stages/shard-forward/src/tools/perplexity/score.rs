//! The tokens of one window under a model, or under two.

use super::report::Divergence;
use crate::engine::{Decoder, Engine as _};
use crate::tools::model;
use crate::tools::sample::Sample;

/// A piece of the text.
pub struct Window {
    ids: Vec<u32>,
    /// The row from which on tokens are scored: it predicts the first of them.
    first: usize,
}

/// What a model made of the tokens scored so far.
#[derive(Debug, Default)]
pub struct Scored {
    /// −ln of the probability of each.
    surprises: Vec<f64>,
}

/// How far two models were apart at each of them.
#[derive(Debug, Default)]
pub struct Compared {
    /// Kullback-Leibler divergence from the base's distribution to the other's, in nats.
    divergences: Vec<f64>,
    /// 1 where the same token was the most probable, else 0.
    agreements: Vec<f64>,
}

impl Window {
    /// `ids`, with `start` in the first place where there is one.
    pub fn new(ids: &[u32], start: Option<u32>) -> Self {
        let mut ids = ids.to_vec();
        if let (Some(first), Some(start)) = (ids.first_mut(), start) {
            *first = start;
        }
        let first = ids.len() / 2;
        Self { ids, first }
    }

    /// How many tokens are scored.
    fn scored(&self) -> usize {
        self.ids.len().saturating_sub(self.first + 1)
    }

    /// Gives `each` the logits of the rows that predict a scored token, with that token.
    fn rows(&self, engine: &mut Decoder, mut each: impl FnMut(u32, &[f32])) -> anyhow::Result<()> {
        // Nothing is predicted of the last one.
        let (_, ids) = self.ids.split_last().unwrap_or((&0, &[]));
        let slice = model::slice(0, 0, ids.to_vec());
        engine.score(&slice, self.first, |row, logits| each(self.ids[row + 1], logits))?;
        engine.release(slice.sequence);
        Ok(())
    }
}

impl Scored {
    /// How many.
    pub fn tokens(&self) -> usize {
        self.surprises.len()
    }

    /// With its standard error, that of the mean surprise carried over.
    pub fn perplexity(&self) -> (f64, f64) {
        let surprise = Sample::of(&self.surprises);
        let perplexity = surprise.mean.exp();
        (perplexity, perplexity * surprise.error())
    }

    fn add(&mut self, surprise: f64) -> anyhow::Result<()> {
        anyhow::ensure!(surprise.is_finite(), "the model's logits are not finite");
        self.surprises.push(surprise);
        Ok(())
    }
}

impl Compared {
    /// Of `scored` from `base`.
    pub fn divergence(&self, scored: &Scored, base: &Scored) -> Divergence {
        let (divergence, agreement) = (Sample::of(&self.divergences), Sample::of(&self.agreements));
        // The same tokens: what both find surprising cancels.
        let pairs = scored.surprises.iter().zip(&base.surprises);
        let log_ratio = Sample::of(&pairs.map(|(other, base)| other - base).collect::<Vec<_>>());
        let ratio = log_ratio.mean.exp();
        Divergence {
            nats: divergence.mean,
            nats_error: divergence.error(),
            nats_max: self.divergences.iter().copied().fold(0.0, f64::max),
            perplexity_ratio: ratio,
            perplexity_ratio_error: ratio * log_ratio.error(),
            same_top: agreement.mean,
            same_top_error: agreement.error(),
        }
    }
}

/// Adds the window's tokens to `scored`.
pub fn score(engine: &mut Decoder, window: &Window, scored: &mut Scored) -> anyhow::Result<()> {
    let mut surprises = Vec::with_capacity(window.scored());
    window.rows(engine, |id, logits| surprises.push(surprise(id, logits)))?;
    surprises.into_iter().try_for_each(|surprise| scored.add(surprise))
}

/// Adds the window's tokens to all three.
pub fn compare(
    base: &mut Decoder,
    other: &mut Decoder,
    window: &Window,
    base_scored: &mut Scored,
    scored: &mut Scored,
    compared: &mut Compared,
) -> anyhow::Result<()> {
    let mut expected: Vec<Vec<f32>> = Vec::with_capacity(window.scored());
    window.rows(base, |_, logits| expected.push(logits.to_vec()))?;
    let mut rows = expected.iter();
    let mut found = Vec::with_capacity(window.scored());
    window.rows(other, |id, logits| {
        if let Some(base) = rows.next() {
            let agreement = f64::from(u8::from(top(base) == top(logits)));
            found.push((surprise(id, base), surprise(id, logits), divergence(base, logits), agreement));
        }
    })?;
    for (base_surprise, surprise, divergence, agreement) in found {
        base_scored.add(base_surprise)?;
        scored.add(surprise)?;
        compared.divergences.push(divergence);
        compared.agreements.push(agreement);
    }
    Ok(())
}

/// −ln of the probability of `id`.
fn surprise(id: u32, logits: &[f32]) -> f64 {
    let logit = logits.get(id as usize).map_or(f64::NAN, |logit| f64::from(*logit));
    log_sum(logits) - logit
}

/// Σ p (ln p − ln q), `p` the probabilities of `base`, `q` those of `other`. Rounding can make it a little less than 0.
fn divergence(base: &[f32], other: &[f32]) -> f64 {
    let (base_sum, other_sum) = (log_sum(base), log_sum(other));
    let terms = base.iter().zip(other).map(|(base, other)| {
        let (p, q) = (f64::from(*base) - base_sum, f64::from(*other) - other_sum);
        p.exp() * (p - q)
    });
    terms.sum()
}

/// ln of the summed exponentials.
fn log_sum(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    max + logits.iter().map(|logit| (f64::from(*logit) - max).exp()).sum::<f64>().ln()
}

/// The place of the largest, of equal ones the first.
fn top(logits: &[f32]) -> usize {
    let larger = |best: usize, place: usize| if logits[place] > logits[best] { place } else { best };
    (1..logits.len()).fold(0, larger)
}
