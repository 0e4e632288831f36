//! How far logits may be from those of transformers.

pub const DELTA_MAX: f32 = 1e-4;
/// In bf16, of the largest logit of a row: a random 1B model of transformers differs by as much from itself in f32.
pub const BF16_DELTA_MAX: f32 = 3e-2;
/// The goldens are in f32 and have ten times the weights of a model, so their rounding counts for more: 5.1e-2 on a CPU with AVX2.
pub const BF16_GOLDEN_DELTA_MAX: f32 = 8e-2;

pub fn assert_close(found: &[Vec<f32>], expected: &[Vec<f32>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        let delta = largest_delta(found, expected);
        assert!(delta <= DELTA_MAX, "{what}: row {row} differs by {delta}");
    }
}

pub fn assert_close_in_bf16(found: &[Vec<f32>], expected: &[Vec<f32>], share_max: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (row, (found, expected)) in found.iter().zip(expected).enumerate() {
        let share = largest_delta(found, expected) / expected.iter().fold(0.0, |max, x| x.abs().max(max));
        assert!(share <= share_max, "{what}: row {row} differs by {share} of the largest logit");
    }
}

/// NaN when there is one.
pub fn largest_delta(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let deltas = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    deltas.fold(0.0, |max, delta| if delta <= max { max } else { delta })
}
