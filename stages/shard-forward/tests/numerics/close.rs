//! How far logits may be from those of transformers.

use crate::model::Prompt;

pub const DELTA_MAX: f32 = 1e-4;
/// In bf16, of the largest logit of a row: a random 1B model of transformers differs by as much from itself in f32.
pub const BF16_DELTA_MAX: f32 = 3e-2;
/// The goldens have ten times the weights of a model, so their rounding counts for more: transformers in bf16 differs from itself in f32 by
/// 1 to 17 % of the largest logit. Ours may by this times as much as its worst prompt of the same model.
const BF16_OVER_TRANSFORMERS_MAX: f32 = 1.5;
/// Of a model with experts one row in so many may be anything in bf16: two experts may be so close that rounding chooses the other,
/// and what comes after sees that row.
const ROWS_BY_OTHER_EXPERTS: usize = 4;

pub fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        let delta = largest_delta(found, expected);
        assert!(delta <= DELTA_MAX, "{what}: row {row} differs by {delta}");
    }
}

/// `found`: the last rows of `prompt` in bf16; `all`: the prompts of its model.
pub fn assert_close_in_bf16(found: &[Vec<f32>], prompt: &Prompt, all: &[Prompt], what: &str) {
    let mut ours = off(found, prompt);
    if prompt.sparse {
        ours.truncate(ours.len() - ours.len() / ROWS_BY_OTHER_EXPERTS);
    }
    let theirs =
        all.iter().map(|prompt| off(&prompt.bf16_logits, prompt)).filter_map(|rows| rows.last().copied());
    let theirs = theirs.fold(0.0, f32::max);
    let allowed = BF16_DELTA_MAX.max(BF16_OVER_TRANSFORMERS_MAX * theirs);
    assert!(
        ours.last().is_none_or(|ours| *ours <= allowed),
        "{what}: rows differ by {ours:?} of their largest logit, transformers' own bf16 by up to {theirs}"
    );
}

/// How much each of the prompt's last rows differs, over its largest logit, ascending; NaN comes last.
fn off(found: &[Vec<f32>], prompt: &Prompt) -> Vec<f32> {
    let expected = &prompt.logits[prompt.logits.len() - found.len()..];
    let shares = found.iter().zip(expected).map(|(found, expected)| {
        largest_delta(found, expected) / expected.iter().fold(0.0, |max, x| x.abs().max(max))
    });
    let mut shares: Vec<f32> = shares.collect();
    shares.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    shares
}

/// NaN when there is one.
pub fn largest_delta(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let deltas = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    deltas.fold(0.0, |max, delta| if delta <= max { max } else { delta })
}
