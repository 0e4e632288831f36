//! Log probabilities as clients see them: of the model's own distribution, before any rule and at temperature 1.

use schemas::logits::Row;
use schemas::token::Logprobs;

use crate::order::{Ranked, RowError};

/// The log probability of `id` and the `count` most probable alternatives, in f64 and then rounded; none when only the
/// complete row can tell.
///
/// These are vLLM's `raw_logprobs`, its default and OpenAI's meaning.
pub fn logprobs(row: &Row, id: u32, count: u8) -> Result<Option<Logprobs>, RowError> {
    let raw: Vec<f64> = row.extras.iter().map(|(_, logit)| f64::from(*logit)).collect();
    let ranked = Ranked::new(row, &raw)?;
    let count = usize::from(count);
    if ranked.known.len() < count && !ranked.complete {
        return Ok(None);
    }
    let total = raw.iter().fold(f64::from(row.logsumexp), |sum, logit| add_exp(sum, *logit));
    let single =
        |list: &[(u32, f32)]| list.iter().find(|(other, _)| *other == id).map(|(_, logit)| f64::from(*logit));
    let Some(logit) = single(&row.extras).or_else(|| single(&row.candidates)) else { return Ok(None) };
    let top = ranked.known.iter().take(count).map(|(id, logit)| (*id, (logit - total) as f32)).collect();
    Ok(Some(Logprobs { logprob: (logit - total) as f32, top }))
}

/// ln(eᵃ + eᵇ) without overflow.
fn add_exp(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::SequenceId;

    /// Logits ln 4, ln 2, ln 1, ln 1 of the ids 0 to 3, of which 1 is an extra: probabilities 1/2, 1/4, 1/8, 1/8.
    fn row(candidates: usize) -> Row {
        let all = [(0, 4_f32.ln()), (2, 0.0), (3, 0.0)];
        Row {
            sequence: SequenceId(1),
            position: 1,
            vocabulary: 4,
            candidates: all[..candidates].to_vec(),
            extras: vec![(1, 2_f32.ln())],
            logsumexp: 6_f32.ln(),
            logsumexp_scaled: 0.0,
        }
    }

    #[test]
    fn alternatives_come_in_order_with_extras_among_them() {
        let found = logprobs(&row(2), 2, 2).unwrap().unwrap();
        let close = |a: f32, b: f32| (a - b.ln()).abs() < 1e-6;
        assert!(close(found.logprob, 0.125));
        assert_eq!(found.top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), vec![0, 1]);
        assert!(close(found.top[0].1, 0.5) && close(found.top[1].1, 0.25));
    }

    #[test]
    fn too_few_candidates_ask_for_the_row() {
        assert_eq!(logprobs(&row(1), 0, 2), Ok(None));
        assert_eq!(logprobs(&row(3), 0, 20).unwrap().unwrap().top.len(), 4);
    }
}
