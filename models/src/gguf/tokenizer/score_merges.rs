//! The merges that a vocabulary with scores implies.

use std::cmp::{Ordering, Reverse};
use std::collections::HashSet;

use crate::gguf::vocabulary::VocabularyError;

/// Bytes looked at, at most: a token of n bytes costs n². 256,000 ordinary tokens cost 20 million.
const BYTES_MAX: usize = 1 << 31;

/// A token, cut in two.
struct Merge<'a> {
    left: &'a str,
    right: &'a str,
    score: f32,
    /// Characters of `left` and `right`.
    chars: (usize, usize),
}

/// Every way to make a token of two others, best first: by score, then longer left halves first.
///
/// Source of the order: `generate_merges` of transformers' `tokenization_utils_base.py`, with scores.
pub(super) fn score_merges<'a>(
    tokens: &'a [String],
    scores: &[f32],
) -> Result<Vec<(&'a str, &'a str)>, VocabularyError> {
    let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
    let mut merges = Vec::new();
    let mut bytes = 0_usize;
    for (id, (token, &score)) in tokens.iter().zip(scores).enumerate() {
        bytes = bytes.saturating_add(token.len().saturating_mul(token.len()));
        if bytes > BYTES_MAX {
            return Err(VocabularyError::TooLong { id });
        }
        let chars = token.chars().count();
        for (left_chars, (at, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(at);
            if known.contains(left) && known.contains(right) {
                merges.push(Merge { left, right, score, chars: (left_chars, chars - left_chars) });
            }
        }
    }
    let by_score = |a: &Merge, b: &Merge| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
    // Stable: tokens of one score and shape stay in the order of their ids.
    merges.sort_by(|a, b| by_score(a, b).then(Reverse(a.chars).cmp(&Reverse(b.chars))));
    Ok(merges.into_iter().map(|merge| (merge.left, merge.right)).collect())
}
