//! A row's ids in the one order that every draw uses: logit descending, then id ascending.

use std::cmp::Ordering;

use schemas::logits::Row;

/// Why no token can be drawn from a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A NaN or an infinity where none may be, or no finite logit at all.
    #[error("logits that are not finite")]
    NotFinite,
    /// Candidates or extras are not in the order that the row's definition asks for.
    #[error("logits out of order")]
    Unsorted,
    /// A rule changes the logit of this id, which the row does not single out.
    #[error("no extra logit for token id {0}")]
    MissingExtra(u32),
    /// The row, or a slice of the history, is for another position than the next.
    #[error("position {found} where {expected} is next")]
    Position {
        /// The position in the message.
        found: u32,
        /// The next position of the sequence.
        expected: u32,
    },
    /// The answer to a request for a whole row is not whole.
    #[error("a partial row where the whole one was asked for")]
    Partial,
}

/// The largest logits of a row whose ranks are certain.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// Ids with their logits, in the fixed order, without gaps from the largest on.
    pub known: Vec<(u32, f64)>,
    /// Whether `known` is the whole vocabulary.
    pub complete: bool,
}

impl Ranked {
    /// Ranks the candidates of `row` together with its extras, whose logits are taken from `extras` (in the order of
    /// `row.extras`).
    ///
    /// Whatever the row leaves out comes after its last candidate. So does every extra that would come after that one:
    /// its rank among what was left out is unknown, and only a complete row shows it.
    pub fn new(row: &Row, extras: &[f64]) -> Result<Self, RowError> {
        let complete = row.complete();
        let candidates = row.candidates.iter().map(|&(id, logit)| (id, f64::from(logit)));
        let mut changed: Vec<(u32, f64)> =
            row.extras.iter().map(|(id, _)| *id).zip(extras.iter().copied()).collect();
        if changed.iter().any(|(_, logit)| logit.is_nan() || *logit == f64::INFINITY) {
            return Err(RowError::NotFinite);
        }
        changed.sort_by(order);
        let mut changed = changed.into_iter().peekable();
        let mut known = Vec::with_capacity(row.candidates.len() + row.extras.len());
        for candidate in candidates {
            while let Some(extra) = changed.next_if(|extra| order(extra, &candidate).is_lt()) {
                known.push(extra);
            }
            known.push(candidate);
        }
        if complete {
            known.extend(changed);
        }
        match known.first() {
            Some((_, top)) if !top.is_finite() => Err(RowError::NotFinite),
            _ => Ok(Self { known, complete }),
        }
    }
}

/// The fixed order. Zeros of both signs are equal.
fn order(a: &(u32, f64), b: &(u32, f64)) -> Ordering {
    b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0))
}

/// Checks what a row's definition promises: no NaN, no positive infinity, both lists in order.
///
/// A logit of −∞ is a token that the model rules out.
pub fn check(row: &Row) -> Result<(), RowError> {
    let sums = [row.logsumexp, row.logsumexp_scaled];
    let lists = row.candidates.iter().chain(&row.extras).map(|(_, logit)| *logit);
    if sums.into_iter().chain(lists).any(|value| value.is_nan() || value == f32::INFINITY) {
        return Err(RowError::NotFinite);
    }
    let widened = |&(id, logit): &(u32, f32)| (id, f64::from(logit));
    let ranked = row.candidates.is_sorted_by(|a, b| order(&widened(a), &widened(b)).is_lt());
    let ascending = row.extras.is_sorted_by(|a, b| a.0 < b.0);
    if ranked && ascending { Ok(()) } else { Err(RowError::Unsorted) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::SequenceId;

    fn row(vocabulary: u32, candidates: &[(u32, f32)], extras: &[(u32, f32)]) -> Row {
        Row {
            sequence: SequenceId(1),
            position: 1,
            vocabulary,
            candidates: candidates.to_vec(),
            extras: extras.to_vec(),
            logsumexp: 0.0,
            logsumexp_scaled: 0.0,
        }
    }

    #[test]
    fn an_extra_below_the_last_candidate_has_no_rank_until_the_row_is_complete() {
        let truncated = row(9, &[(4, 2.0), (3, 1.0)], &[(2, 0.0), (5, 0.0), (6, 0.0)]);
        let ranked = Ranked::new(&truncated, &[1.0, 1.0, 3.0]).unwrap();
        assert_eq!(ranked.known, vec![(6, 3.0), (4, 2.0), (2, 1.0), (3, 1.0)]);
        let whole = row(5, &[(4, 2.0), (3, 1.0)], &[(2, 0.0), (5, 0.0), (6, 0.0)]);
        assert_eq!(Ranked::new(&whole, &[1.0, 1.0, 3.0]).unwrap().known.last(), Some(&(5, 1.0)));
    }

    #[test]
    fn a_row_that_breaks_its_definition_is_refused() {
        assert_eq!(check(&row(9, &[(1, 2.0), (2, 2.0), (0, 1.0)], &[(3, 0.0), (4, 9.0)])), Ok(()));
        assert_eq!(check(&row(9, &[(2, 2.0), (1, 2.0)], &[])), Err(RowError::Unsorted));
        assert_eq!(check(&row(9, &[], &[(4, 0.0), (3, 0.0)])), Err(RowError::Unsorted));
        assert_eq!(check(&row(9, &[(1, f32::NAN)], &[])), Err(RowError::NotFinite));
        assert_eq!(check(&row(9, &[], &[(1, f32::INFINITY)])), Err(RowError::NotFinite));
        let hidden = Row { logsumexp: f32::NAN, ..row(9, &[(1, 1.0)], &[]) };
        assert_eq!(check(&hidden), Err(RowError::NotFinite));
        assert_eq!(Ranked::new(&row(1, &[(0, f32::NEG_INFINITY)], &[]), &[]), Err(RowError::NotFinite));
    }
}
