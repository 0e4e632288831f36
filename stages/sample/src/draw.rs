//! One token from one row: temperature, min-p, top-k, top-p, then the inverse of the cumulative distribution.
//!
//! The order of the filters is vLLM's (`vllm/v1/sample/sampler.py`): temperature, min-p, top-k, top-p, each over what the one
//! before left. Ties are cut by token id instead of kept, so that a set never depends on how a sort breaks them.
//!
//! A truncated row gives the same token as the complete one, or none. Both walk the same order, add the same numbers in the
//! same sequence (in f64), and take the total over the vocabulary from the same `logsumexp_scaled`.

use schemas::logits::Row;
use schemas::request::Sampling;

use crate::order::{Ranked, RowError};

/// Temperatures below this one take the largest logit; the same bound as vLLM's.
pub const GREEDY_BELOW: f32 = 1e-5;

/// Draws a token id from `row`, or none when only the complete row can tell.
///
/// `extras` are the logits of `row.extras` after every rule, in the same order; `uniform` is in [0, 1).
pub fn draw(row: &Row, extras: &[f64], sampling: &Sampling, uniform: f64) -> Result<Option<u32>, RowError> {
    let ranked = Ranked::new(row, extras)?;
    let Some(&(first, top)) = ranked.known.first() else { return Ok(None) };
    if !(GREEDY_BELOW..f32::INFINITY).contains(&sampling.temperature) {
        return Ok(Some(first));
    }
    let scale = Scale { top, temperature: f64::from(sampling.temperature) };
    let weights: Vec<f64> = ranked.known.iter().map(|(_, logit)| scale.weight(*logit)).collect();
    let rank = match reach(&weights, &ranked, sampling, row.vocabulary) {
        Reach::Unknown => None,
        Reach::First(n) => {
            let weights = &weights[..n];
            pick(weights, weights.iter().sum(), true, sampling.top_p, uniform)
        }
        Reach::All => {
            let outside = (f64::from(row.logsumexp_scaled) - top / scale.temperature).exp();
            let total = extras.iter().fold(outside, |sum, logit| sum + scale.weight(*logit));
            pick(&weights, total, ranked.complete, sampling.top_p, uniform)
        }
    };
    Ok(rank.map(|rank| ranked.known[rank].0))
}

/// Turns logits into weights: probabilities relative to the most probable token's.
struct Scale {
    top: f64,
    temperature: f64,
}

impl Scale {
    fn weight(&self, logit: f64) -> f64 {
        ((logit - self.top) / self.temperature).exp()
    }
}

/// How far down the order min-p and top-k let a draw go.
enum Reach {
    /// To the end of the vocabulary: neither is set.
    All,
    /// To this many of the known tokens, at least one.
    First(usize),
    /// Beyond what is known.
    Unknown,
}

/// Both filters keep the front of the order, so the shorter one decides.
fn reach(weights: &[f64], ranked: &Ranked, sampling: &Sampling, vocabulary: u32) -> Reach {
    let min_p = f64::from(sampling.min_p);
    let top_k = Some(sampling.top_k).filter(|k| (1..vocabulary).contains(k));
    if min_p <= 0.0 && top_k.is_none() {
        return Reach::All;
    }
    let by_min_p = weights.iter().position(|weight| *weight < min_p);
    let by_top_k = top_k.map(|k| k as usize).filter(|k| *k <= weights.len());
    match by_min_p.into_iter().chain(by_top_k).min() {
        Some(n) => Reach::First(n.max(1)),
        None if ranked.complete => Reach::First(weights.len()),
        None => Reach::Unknown,
    }
}

/// The rank that `uniform` falls on among the first weights that reach `top_p` of `total`; none when it lies behind them.
///
/// `closed` says that no weight is missing from `weights`.
fn pick(weights: &[f64], total: f64, closed: bool, top_p: f32, uniform: f64) -> Option<usize> {
    if top_p < 1.0 {
        let mass = f64::from(top_p) * total;
        let (kept, sum) = nucleus(weights, mass);
        return if closed || sum >= mass { inverse(&weights[..kept], uniform * sum, true) } else { None };
    }
    inverse(weights, uniform * total, closed)
}

/// The first rank at which the summed weights exceed `target`.
fn inverse(weights: &[f64], target: f64, closed: bool) -> Option<usize> {
    let mut sum = 0.0;
    let rank = weights.iter().position(|weight| {
        sum += weight;
        sum > target
    });
    // With every weight there, only the rounding of `logsumexp_scaled` can leave the target behind the sum.
    rank.or(closed.then_some(0))
}

/// How many weights from the front it takes to reach `mass`, at least one, and their sum. All when they do not reach it.
fn nucleus(weights: &[f64], mass: f64) -> (usize, f64) {
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        sum >= mass
    });
    (reached.map_or(weights.len(), |last| last + 1), sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nucleus_is_the_shortest_front_that_reaches_the_mass() {
        assert_eq!(nucleus(&[1.0, 0.5, 0.5], 0.0), (1, 1.0));
        assert_eq!(nucleus(&[1.0, 0.5, 0.5], 1.0), (1, 1.0));
        assert_eq!(nucleus(&[1.0, 0.5, 0.5], 1.1), (2, 1.5));
        assert_eq!(nucleus(&[1.0, 0.5, 0.5], 9.0), (3, 2.0));
    }

    #[test]
    fn a_target_behind_the_known_weights_is_not_guessed() {
        assert_eq!(pick(&[1.0, 0.5], 2.0, false, 1.0, 0.7), Some(1));
        assert_eq!(pick(&[1.0, 0.5], 2.0, false, 1.0, 0.8), None);
        assert_eq!(pick(&[1.0, 0.5], 2.0, false, 0.7, 0.99), Some(1));
        assert_eq!(pick(&[1.0, 0.5], 2.0, false, 0.8, 0.1), None);
    }

    #[test]
    fn a_total_that_rounding_made_too_large_gives_the_most_probable_token() {
        assert_eq!(pick(&[1.0, 0.5], 1.6, true, 1.0, 0.99), Some(0));
    }
}
