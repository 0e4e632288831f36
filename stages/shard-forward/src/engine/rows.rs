//! From logits on the CPU to the part of them that sampling needs.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use kernels::exp::logsumexp;
use tch::{Kind, Tensor};

use super::memory::elements;
use super::step::{RowError, RowOutput, RowSpec};

/// What is wanted of each row of `logits`, `[rows, vocab_size]`, f32 or bf16, on the CPU. A row that is not finite fails alone.
///
/// Row by row, so that each stays in the CPU's cache from its conversion to its candidates.
pub(super) fn output_rows(logits: &Tensor, specs: &[RowSpec]) -> Vec<Result<RowOutput, RowError>> {
    let row = |i| logits.get(i).to_kind(Kind::Float).contiguous();
    (0..).zip(specs).map(|(i, spec)| output_row(&row(i), spec)).collect()
}

/// `logits`: `[vocab_size]`, f32, on the CPU.
fn output_row(logits: &Tensor, spec: &RowSpec) -> Result<RowOutput, RowError> {
    let row = elements(logits);
    let vocabulary = row.len() as u32;
    if let Some(id) = unknown_id(spec, vocabulary) {
        return Err(RowError::UnknownId { id, vocabulary });
    }
    let extras: Vec<(u32, f32)> = spec.extras.iter().map(|&id| (id, row[id as usize])).collect();
    let rest = without(logits, &spec.extras);
    let logsumexp = sum(&rest);
    let scaled = spec.temperature > 0.0 && spec.temperature != 1.0;
    let logsumexp_scaled = if scaled { sum(&(rest / f64::from(spec.temperature))) } else { logsumexp };
    if !is_finite(&extras, logsumexp, logsumexp_scaled, vocabulary) {
        return Err(RowError::NotFinite);
    }
    let candidates = largest(row, spec.candidates as usize, &spec.extras);
    Ok(RowOutput { candidates, extras, logsumexp, logsumexp_scaled })
}

/// The first id asked for that the model does not have.
pub(super) fn unknown_id(spec: &RowSpec, vocabulary: u32) -> Option<u32> {
    spec.extras.iter().copied().find(|&id| id >= vocabulary)
}

/// Whether a row with these extras and sums of the others had neither NaN nor infinity where it matters.
pub(super) fn is_finite(extras: &[(u32, f32)], sum: f32, sum_scaled: f32, vocabulary: u32) -> bool {
    let nothing_left = extras.len() == vocabulary as usize;
    let sums_are_finite = sum.is_finite() && sum_scaled.is_finite();
    (sums_are_finite || nothing_left) && extras.iter().all(|(_, logit)| logit.is_finite())
}

/// `logits` with −∞ at `ids`.
fn without(logits: &Tensor, ids: &[u32]) -> Tensor {
    if ids.is_empty() {
        return logits.shallow_clone();
    }
    let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    logits.index_fill(0, &Tensor::from_slice(&ids), f64::NEG_INFINITY)
}

fn sum(logits: &Tensor) -> f32 {
    logsumexp(elements(logits))
}

/// An id with its logit; the least wanted one is the greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    id: u32,
    logit: f32,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_logit = other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal);
        by_logit.then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Candidate {}

/// The `count` largest logits of `row` whose ids are not in `skip` (ascending), by logit descending, then id ascending.
fn largest(row: &[f32], count: usize, skip: &[u32]) -> Vec<(u32, f32)> {
    /// Logits looked at together: most pieces have none that is wanted.
    const PIECE: usize = 64;
    let count = count.min(row.len() - skip.len());
    if count == 0 {
        return Vec::new();
    }
    let wanted = |id: u32| skip.binary_search(&id).is_err();
    if count == row.len() - skip.len() {
        let ids = (0_u32..).zip(row).filter(|(id, _)| wanted(*id));
        let mut all: Vec<Candidate> = ids.map(|(id, &logit)| Candidate { id, logit }).collect();
        all.sort_unstable();
        return all.into_iter().map(|candidate| (candidate.id, candidate.logit)).collect();
    }
    let mut heap: BinaryHeap<Candidate> = BinaryHeap::with_capacity(count + 1);
    // Ids come ascending, so one that equals the worst of a full heap is not wanted.
    let mut worst = f32::NEG_INFINITY;
    for (start, piece) in (0_u32..).step_by(PIECE).zip(row.chunks(PIECE)) {
        // Without a short circuit the comparisons are vector instructions.
        let any_better = piece.iter().fold(false, |any, &logit| any | (logit > worst));
        if heap.len() == count && !any_better {
            continue;
        }
        for (id, &logit) in (start..).zip(piece) {
            if (heap.len() == count && logit <= worst) || !wanted(id) {
                continue;
            }
            heap.push(Candidate { id, logit });
            if heap.len() > count {
                heap.pop();
            }
            worst = heap.peek().map_or(worst, |candidate| candidate.logit);
        }
    }
    heap.into_sorted_vec().into_iter().map(|candidate| (candidate.id, candidate.logit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(temperature: f32, candidates: u32, extras: &[u32]) -> RowSpec {
        RowSpec { temperature, candidates, extras: extras.to_vec(), keep: false }
    }

    fn rows(logits: &[f32], vocabulary: i64, specs: &[RowSpec]) -> Vec<Result<RowOutput, RowError>> {
        output_rows(&Tensor::from_slice(logits).view([-1, vocabulary]), specs)
    }

    #[test]
    fn candidates_come_by_logit_then_by_id() {
        let logits = [1.0, 3.0, 2.0, 3.0, 2.0, 2.0];
        let row = rows(&logits, 6, &[spec(1.0, 4, &[])]).remove(0).unwrap();
        assert_eq!(row.candidates, [(1, 3.0), (3, 3.0), (2, 2.0), (4, 2.0)]);
        let greedy = rows(&logits, 6, &[spec(0.0, 1, &[])]).remove(0).unwrap();
        assert_eq!(greedy.candidates, [(1, 3.0)]);
        assert!((greedy.logsumexp - row.logsumexp).abs() < 1e-6);
        let complete = rows(&logits, 6, &[spec(1.0, 99, &[])]).remove(0).unwrap();
        assert_eq!(complete.candidates.len(), 6);
        assert_eq!(complete.candidates[..4], row.candidates);
    }

    #[test]
    fn many_equal_logits_give_the_lowest_ids() {
        let logits: Vec<f32> = (0..1000).map(|id| ((id * 37) % 10) as f32).collect();
        let row = rows(&logits, 1000, &[spec(1.0, 150, &[])]).remove(0).unwrap();
        let complete = rows(&logits, 1000, &[spec(1.0, 1000, &[])]).remove(0).unwrap();
        assert_eq!(row.candidates, complete.candidates[..150]);
        assert!(row.candidates.is_sorted_by(|a, b| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0)));
    }

    #[test]
    fn sums_leave_extras_out_and_follow_the_temperature() {
        let row = rows(&[0.0, 1.0, 2.0, 3.0], 4, &[spec(0.5, 2, &[1, 3])]).remove(0).unwrap();
        assert_eq!(row.extras, [(1, 1.0), (3, 3.0)]);
        assert_eq!(row.candidates, [(2, 2.0), (0, 0.0)]);
        assert!((row.logsumexp - (1.0 + 2.0_f32.exp()).ln()).abs() < 1e-6);
        assert!((row.logsumexp_scaled - (1.0 + 4.0_f32.exp()).ln()).abs() < 1e-6);
        let greedy = rows(&[0.0, 1.0], 2, &[spec(0.0, 2, &[])]).remove(0).unwrap();
        assert_eq!(greedy.logsumexp, greedy.logsumexp_scaled);
        let nothing_left = rows(&[0.0, 1.0], 2, &[spec(1.0, 2, &[0, 1])]).remove(0).unwrap();
        assert!(nothing_left.candidates.is_empty() && nothing_left.logsumexp == f32::NEG_INFINITY);
    }

    #[test]
    fn a_row_that_is_not_finite_fails_alone() {
        let logits = [0.0, 1.0, f32::NAN, 1.0, f32::INFINITY, 0.0, 2.0, 1.0];
        for specs in [vec![spec(0.0, 1, &[]); 4], vec![spec(0.7, 2, &[0]); 4]] {
            let rows = rows(&logits, 2, &specs);
            let failed: Vec<bool> = rows.iter().map(Result::is_err).collect();
            assert_eq!(failed, [false, true, true, false]);
        }
        let unknown = rows(&[0.0, 1.0], 2, &[spec(1.0, 1, &[2])]).remove(0);
        assert_eq!(unknown, Err(RowError::UnknownId { id: 2, vocabulary: 2 }));
    }
}
