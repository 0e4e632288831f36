//! The draw against a plain implementation over the whole vocabulary, and truncated rows against complete ones.
#![allow(clippy::unwrap_used)] // the functions that tests share are tests too

use sample::draw::draw;
use sample::logprobs::logprobs;
use sample::philox::uniform;
use schemas::SequenceId;
use schemas::logits::Row;
use schemas::request::Sampling;

/// A stream of random numbers for making cases.
struct Dice {
    seed: u64,
    next: u32,
}

impl Dice {
    fn unit(&mut self) -> f64 {
        self.next += 1;
        uniform(self.seed, 0, self.next)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// A vocabulary's logits with the ones that rules changed.
struct Case {
    logits: Vec<f32>,
    changed: Vec<(u32, f64)>,
    sampling: Sampling,
    uniform: f64,
}

impl Case {
    fn random(seed: u64) -> Self {
        let mut dice = Dice { seed, next: 0 };
        let vocabulary = 2 + dice.below(120);
        let spread = dice.one_of(&[0.5, 3.0, 12.0]);
        // Quarters make many ties.
        let coarse = dice.below(2) == 0;
        let logits: Vec<f32> = (0..vocabulary)
            .map(|_| dice.unit() * spread)
            .map(|logit| if coarse { (logit * 4.0).round() / 4.0 } else { logit })
            .map(|logit| logit as f32)
            .collect();
        let mut changed = Vec::new();
        let share = dice.one_of(&[0.0, 0.1, 0.6]);
        for (id, logit) in (0..).zip(&logits) {
            if dice.unit() < share {
                let logit = f64::from(*logit);
                let masked = if id == 0 { logit } else { f64::NEG_INFINITY };
                let penalised = dice.one_of(&[logit, logit - 1.0, logit + 0.25, logit / 1.5, masked]);
                changed.push((id, penalised));
            }
        }
        let sampling = Sampling {
            temperature: dice.one_of(&[0.0, 0.05, 0.7, 1.0, 2.0]),
            top_k: dice.one_of(&[0, 0, 1, 5, 40, 200]),
            top_p: dice.one_of(&[1.0, 1.0, 0.95, 0.5, 0.0]),
            min_p: dice.one_of(&[0.0, 0.0, 0.05, 0.5]),
            ..Sampling::default()
        };
        let uniform = dice.unit();
        Self { logits, changed, sampling, uniform }
    }

    /// The row with at most `candidates` of the unchanged logits.
    fn row(&self, candidates: usize) -> Row {
        let is_extra = |id: u32| self.changed.iter().any(|(other, _)| *other == id);
        let (extras, mut rest): (Vec<_>, Vec<_>) =
            (0..).zip(self.logits.iter().copied()).partition(|(id, _)| is_extra(*id));
        rest.sort_by(|a: &(u32, f32), b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let divisor = if self.sampling.temperature > 0.0 { self.sampling.temperature } else { 1.0 };
        let sum = |divisor: f32| {
            let exps = rest.iter().map(|(_, logit)| (f64::from(*logit) / f64::from(divisor)).exp());
            exps.sum::<f64>().ln() as f32
        };
        let (logsumexp, logsumexp_scaled) = (sum(1.0), sum(divisor));
        rest.truncate(candidates);
        let vocabulary = self.logits.len() as u32;
        Row {
            sequence: SequenceId(1),
            position: 0,
            vocabulary,
            candidates: rest,
            extras,
            logsumexp,
            logsumexp_scaled,
        }
    }

    fn draw(&self, row: &Row) -> Option<u32> {
        let adjusted: Vec<f64> = self.changed.iter().map(|(_, logit)| *logit).collect();
        draw(row, &adjusted, &self.sampling, self.uniform).unwrap()
    }

    fn after_rules(&self) -> Vec<(u32, f64)> {
        let mut all: Vec<(u32, f64)> = (0..).zip(self.logits.iter().map(|logit| f64::from(*logit))).collect();
        for (id, logit) in &self.changed {
            all[*id as usize].1 = *logit;
        }
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all
    }

    /// What is left after the filters, with probabilities; written from vLLM's definitions, not from `draw`.
    fn distribution(&self) -> Vec<(u32, f64)> {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let mut left = self.after_rules();
        if temperature == 0.0 {
            left.truncate(1);
        }
        let temperature = if temperature == 0.0 { 1.0 } else { f64::from(temperature) };
        left.iter_mut().for_each(|(_, logit)| *logit /= temperature);
        softmax(&mut left);
        let threshold = left[0].1 * f64::from(min_p);
        left.retain(|(_, p)| *p >= threshold);
        if top_k > 0 {
            left.truncate(top_k as usize);
        }
        renormalise(&mut left);
        // vLLM sums from the least probable end and drops what stays within 1 − top_p, but never the last one.
        let mut ascending = 0.0;
        let mut dropped = 0;
        if top_p < 1.0 {
            for (_, p) in left.iter().rev() {
                ascending += p;
                dropped += usize::from(ascending <= 1.0 - f64::from(top_p));
            }
        }
        left.truncate((left.len() - dropped).max(1));
        renormalise(&mut left);
        left
    }
}

fn softmax(left: &mut [(u32, f64)]) {
    let top = left[0].1;
    left.iter_mut().for_each(|(_, logit)| *logit = (*logit - top).exp());
    renormalise(left);
}

fn renormalise(left: &mut [(u32, f64)]) {
    let total: f64 = left.iter().map(|(_, p)| *p).sum();
    left.iter_mut().for_each(|(_, p)| *p /= total);
}

#[test]
fn a_truncated_row_gives_the_token_of_the_complete_one_or_asks_for_it() {
    let mut settled = 0;
    let cases = 20_000;
    for seed in 0..cases {
        let case = Case::random(seed);
        let whole = case.draw(&case.row(usize::MAX)).expect("a complete row settles every draw");
        for candidates in [0, 1, 3, 10, 40] {
            match case.draw(&case.row(candidates)) {
                Some(id) => {
                    assert_eq!(id, whole, "case {seed} with {candidates} candidates");
                    settled += usize::from(candidates == 40);
                }
                None => assert!(!case.row(candidates).complete(), "case {seed}"),
            }
        }
    }
    assert!(settled > cases as usize * 3 / 4, "only {settled} of {cases} settled by 40 candidates");
}

#[test]
fn the_draw_inverts_the_distribution_of_a_plain_implementation() {
    let mut moved = 0;
    let cases = 20_000;
    for seed in 0..cases {
        let case = Case::random(seed);
        let drawn = case.draw(&case.row(usize::MAX)).unwrap();
        let mut sum = 0.0;
        let expected = case.distribution().into_iter().find(|(_, p)| {
            sum += p;
            sum > case.uniform
        });
        moved += usize::from(expected.is_none_or(|(id, _)| id != drawn));
    }
    // Numbers that fall within rounding of a border between two tokens may go either way.
    assert!(moved <= cases as usize / 1000, "{moved} of {cases} differ");
}

#[test]
fn frequencies_follow_the_probabilities() {
    let mut case = Case::random(5);
    case.logits = vec![2.0, 1.0, 0.0, 0.0, -1.0];
    case.changed = vec![(1, 1.5), (3, f64::NEG_INFINITY)];
    case.sampling = Sampling { temperature: 0.8, ..Sampling::default() };
    let row = case.row(usize::MAX);
    let draws = 200_000;
    let mut counts = [0_u32; 5];
    for index in 0..draws {
        case.uniform = uniform(99, 0, index);
        counts[case.draw(&row).unwrap() as usize] += 1;
    }
    assert_eq!(counts[3], 0);
    for (id, probability) in case.distribution() {
        let found = f64::from(counts[id as usize]) / f64::from(draws);
        assert!((found - probability).abs() < 0.005, "id {id}: {found} for {probability}");
    }
}

#[test]
fn logprobs_ignore_the_rules_and_sum_to_one_over_the_vocabulary() {
    for seed in 0..500 {
        let case = Case::random(seed);
        let row = case.row(usize::MAX);
        let mut total = 0.0;
        for id in 0..case.logits.len() as u32 {
            total += f64::from(logprobs(&row, id, 0).unwrap().unwrap().logprob).exp();
        }
        assert!((total - 1.0).abs() < 1e-5, "case {seed}: {total}");
        let whole = logprobs(&row, 0, 20).unwrap().unwrap();
        let truncated = case.row(20);
        if truncated.candidates.iter().chain(&truncated.extras).any(|(id, _)| *id == 0) {
            assert_eq!(logprobs(&truncated, 0, 20).unwrap(), Some(whole), "case {seed}");
        }
    }
}
