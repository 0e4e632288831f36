//! From logits on a device to the part of them that sampling needs: computed there, brought to the host in one copy.
//!
//! Gives what [`super::rows`] gives on the CPU: the same candidates in the same order, sums that differ by rounding.

use tch::{Device, Kind, Tensor};

use super::memory::elements;
use super::rows::{is_finite, unknown_id};
use super::step::{RowError, RowOutput, RowSpec};

/// What is wanted of a step's rows of logits, with the numbers for it on the device already: sent between the last layer and
/// its results they would make the host wait for both.
#[derive(Debug)]
pub(super) struct DeviceRows {
    vocabulary: i64,
    /// Candidates to bring home of every row.
    count: i64,
    /// `[rows, 1]`, f32: what logits are divided by; none when no row has a temperature.
    temperatures: Option<Tensor>,
    /// `[extras of all rows]`: their places in the logits of all rows; none when no row has extras.
    extras: Option<Tensor>,
}

impl DeviceRows {
    /// Extras outside the vocabulary are left out: their rows fail.
    pub(super) fn new(specs: &[RowSpec], vocabulary: u32, device: Device) -> Self {
        let temperatures: Vec<f32> = specs.iter().map(temperature).collect();
        let scaled = temperatures.iter().any(|&temperature| temperature != 1.0);
        let known = |spec: &RowSpec| unknown_id(spec, vocabulary).is_none();
        let extras: Vec<i64> = (0..)
            .zip(specs)
            .filter(|(_, spec)| known(spec))
            .flat_map(|(row, spec)| {
                spec.extras.iter().map(move |id| row * i64::from(vocabulary) + i64::from(*id))
            })
            .collect();
        // Masked extras stand behind all others, but logits of −∞ may stand among them: so as many more are taken.
        let count = |spec: &RowSpec| u64::from(spec.candidates) + spec.extras.len() as u64;
        let count = specs.iter().map(count).max().unwrap_or(0).min(vocabulary.into()) as i64;
        Self {
            vocabulary: vocabulary.into(),
            count,
            temperatures: scaled.then(|| Tensor::from_slice(&temperatures).to_device(device).unsqueeze(1)),
            extras: (!extras.is_empty()).then(|| Tensor::from_slice(&extras).to_device(device)),
        }
    }

    /// The wanted part of `logits`, `[rows, vocab_size]`, f32 or bf16; `specs` are those of `new`. A row that is not finite
    /// fails alone.
    pub(super) fn read(&self, logits: &Tensor, specs: &[RowSpec]) -> Vec<Result<RowOutput, RowError>> {
        let logits = logits.to_kind(Kind::Float);
        let rest = match &self.extras {
            Some(places) => logits.view(-1).index_fill(0, places, f64::NEG_INFINITY).view_as(&logits),
            None => logits.shallow_clone(),
        };
        let sum = rest.logsumexp([1], true);
        let sum_scaled = match &self.temperatures {
            Some(temperatures) => (&rest / temperatures).logsumexp([1], true),
            None => sum.shallow_clone(),
        };
        let (largest, ids) = largest(&rest, self.count);
        let rows = Tensor::cat(&[sum, sum_scaled, largest, bits_elements(&ids)], 1).view(-1);
        let answer = match &self.extras {
            Some(places) => Tensor::cat(&[rows, logits.view(-1).index_select(0, places)], 0),
            None => rows,
        };
        self.outputs(elements(&answer.to_device(Device::Cpu)), specs)
    }

    /// `answer`: for each row the two sums, the largest logits and their ids; then the extras of all rows.
    fn outputs(&self, answer: &[f32], specs: &[RowSpec]) -> Vec<Result<RowOutput, RowError>> {
        let count = self.count as usize;
        let row_len = 2 + 2 * count;
        let (rows, mut extra_logits) = answer.split_at(specs.len() * row_len);
        let vocabulary = self.vocabulary as u32;
        let output = |(row, spec): (&[f32], &RowSpec)| {
            if let Some(id) = unknown_id(spec, vocabulary) {
                return Err(RowError::UnknownId { id, vocabulary });
            }
            let (own, others) = extra_logits.split_at(spec.extras.len());
            extra_logits = others;
            let extras: Vec<(u32, f32)> = spec.extras.iter().copied().zip(own.iter().copied()).collect();
            let (logsumexp, logsumexp_scaled) = (row[0], row[1]);
            if !is_finite(&extras, logsumexp, logsumexp_scaled, vocabulary) {
                return Err(RowError::NotFinite);
            }
            let (largest, ids) = row[2..].split_at(count);
            let candidates = ids
                .iter()
                .map(|id| id.to_bits())
                .zip(largest.iter().copied())
                .filter(|(id, _)| spec.extras.binary_search(id).is_err())
                .take(spec.candidates as usize)
                .collect();
            Ok(RowOutput { candidates, extras, logsumexp, logsumexp_scaled })
        };
        rows.chunks(row_len).zip(specs).map(output).collect()
    }
}

/// What the logits of a row are divided by.
fn temperature(spec: &RowSpec) -> f32 {
    if spec.temperature > 0.0 { spec.temperature } else { 1.0 }
}

/// The `count` largest of each row of `logits`, `[rows, vocab_size]`, f32, by logit descending, then id ascending: their
/// logits and their ids, `[rows, count]`.
fn largest(logits: &Tensor, count: i64) -> (Tensor, Tensor) {
    if count == 1 {
        // Of equal ones libtorch takes the first.
        return logits.max_dim(1, true);
    }
    let ids = order_keys(logits).topk(count, 1, true, true).1;
    (logits.gather(1, &ids, false), ids)
}

/// `logits`, `[rows, vocab_size]`, f32 → i64 of the same shape, greatest for what comes first: the upper half orders as the
/// logits do, the lower half falls with the id.
fn order_keys(logits: &Tensor) -> Tensor {
    // −0 becomes 0, which equals it.
    let bits = (logits + 0.0).view_dtype(Kind::Int);
    // As integers, the bits of negative floats order backwards.
    let ordered = bits.where_self(&bits.ge(0), &bits.bitwise_xor(0x7FFF_FFFF));
    let last = logits.size()[1] - 1;
    let falling = Tensor::arange_start_step(last, -1, -1, (Kind::Int64, logits.device()));
    ordered.to_kind(Kind::Int64) * (1_i64 << 32) + falling
}

/// Ids as floats of the same bits, so that they travel with the logits.
fn bits_elements(ids: &Tensor) -> Tensor {
    ids.to_kind(Kind::Int).view_dtype(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::super::rows::output_rows;
    use super::*;

    fn spec(temperature: f32, candidates: u32, extras: &[u32]) -> RowSpec {
        RowSpec { temperature, candidates, extras: extras.to_vec(), keep: false }
    }

    /// What `output_rows` gives, up to the rounding of sums.
    fn assert_same(logits: &Tensor, specs: &[RowSpec]) {
        let vocabulary = logits.size()[1] as u32;
        let found = DeviceRows::new(specs, vocabulary, logits.device()).read(logits, specs);
        for (i, (found, expected)) in found.iter().zip(output_rows(logits, specs)).enumerate() {
            let (Ok(found), Ok(expected)) = (found, &expected) else {
                assert_eq!(found, &expected, "row {i}");
                continue;
            };
            assert_eq!(
                (&found.candidates, &found.extras),
                (&expected.candidates, &expected.extras),
                "row {i}"
            );
            let sums =
                [(found.logsumexp, expected.logsumexp), (found.logsumexp_scaled, expected.logsumexp_scaled)];
            assert!(sums.iter().all(|(a, b)| a == b || (a - b).abs() < 1e-5 * b.abs().max(1.0)), "{sums:?}");
        }
        assert_eq!(found.len(), specs.len());
    }

    #[test]
    fn rows_are_those_of_the_cpu() {
        tch::manual_seed(1);
        for kind in [Kind::Float, Kind::BFloat16] {
            // In bf16 many are equal.
            let logits = (Tensor::randn([6, 2000], (Kind::Float, Device::Cpu)) * 3.0).to_kind(kind);
            assert_same(&logits, &vec![spec(0.0, 1, &[]); 6]);
            assert_same(&logits, &vec![spec(0.7, 64, &[]); 6]);
            let mixed = [
                spec(0.0, 1, &[]),
                spec(1.0, 64, &[0, 5, 1999]),
                spec(0.5, 3, &[7]),
                spec(0.8, u32::MAX, &[]),
                spec(2.0, 10, &[2000]),
                spec(1.3, 0, &[1, 2, 3]),
            ];
            assert_same(&logits, &mixed);
        }
    }

    #[test]
    fn equal_logits_give_the_lowest_ids() {
        let logits: Vec<f32> = (0..1000).map(|id| ((id * 37) % 10) as f32 - 5.0).collect();
        let logits = Tensor::from_slice(&logits).view([1, -1]);
        for candidates in [1, 2, 150, 1000] {
            assert_same(&logits, &[spec(1.0, candidates, &[])]);
        }
        let zeros =
            Tensor::from_slice(&[-0.0_f32, 0.0, -0.0, f32::NEG_INFINITY, 0.0, -1.0, -2.0]).view([1, -1]);
        assert_same(&zeros, &[spec(1.0, 7, &[])]);
        assert_same(&zeros, &[spec(1.0, 5, &[1, 4])]);
    }

    #[test]
    fn a_row_that_is_not_finite_fails_alone() {
        let logits =
            Tensor::from_slice(&[0.0, 1.0, f32::NAN, 1.0, f32::INFINITY, 0.0, 2.0, 1.0]).view([4, 2]);
        assert_same(&logits, &vec![spec(0.0, 1, &[]); 4]);
        assert_same(&logits, &vec![spec(0.7, 2, &[0]); 4]);
        assert_same(&logits, &vec![spec(0.7, 2, &[0, 1]); 4]);
    }
}
