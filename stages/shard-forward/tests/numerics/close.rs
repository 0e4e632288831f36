//! How far logits may be from those of transformers.

use crate::model::Prompt;

pub const DELTA_MAX: f32 = 1e-4;
/// In bf16, of the largest logit of a row: a random 1B model of transformers differs by as much from itself in f32.
pub const BF16_DELTA_MAX: f32 = 3e-2;
/// The goldens have ten times the weights of a model, so their rounding counts for more: transformers in bf16 differs from itself in f32 by
/// 1 to 17 % of the largest logit. Ours may by this times as much as its worst prompt of the same model.
const BF16_OVER_TRANSFORMERS_MAX: f32 = 1.5;

pub fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        let delta = largest_delta(found, expected);
        assert!(delta <= DELTA_MAX, "{what}: row {row} differs by {delta}");
    }
}

/// `found`: the last rows of `prompt` in bf16; `all`: the prompts of its model.
pub fn assert_close_in_bf16(found: &[Vec<f32>], prompt: &Prompt, all: &[Prompt], what: &str) {
    let ours = off(found, prompt);
    let theirs = all.iter().map(|prompt| off(&prompt.bf16_logits, prompt)).fold(0.0, f32::max);
    let allowed = BF16_DELTA_MAX.max(BF16_OVER_TRANSFORMERS_MAX * theirs);
    assert!(
        ours <= allowed,
        "{what}: differs by {ours} of a row's largest logit, transformers' own bf16 by up to {theirs}"
    );
}

/// The largest difference from the prompt's last rows, over the largest logit of its row; NaN when there is one.
fn off(found: &[Vec<f32>], prompt: &Prompt) -> f32 {
    let expected = &prompt.logits[prompt.logits.len() - found.len()..];
    let shares = found.iter().zip(expected).map(|(found, expected)| {
        largest_delta(found, expected) / expected.iter().fold(0.0, |max, x| x.abs().max(max))
    });
    shares.fold(0.0, |max, share| if share <= max { max } else { share })
}

/// NaN when there is one.
pub fn largest_delta(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let deltas = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    deltas.fold(0.0, |max, delta| if delta <= max { max } else { delta })
}
