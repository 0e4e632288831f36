//! What the exactness bench found.

use std::fmt;

use pipelines::graph::DTypeName;
use serde::Serialize;

use crate::bench::spread::Spread;
use crate::bench::table::Table;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct ExactnessReport {
    /// Processors of the machine.
    pub threads: usize,
    /// Answers computed together in the batched runs.
    pub batch: usize,
    /// How often each speed was measured.
    pub rounds: u32,
    /// Differences.
    pub cases: Vec<Case>,
    /// Speeds.
    pub costs: Vec<Cost>,
}

/// One model in one dtype and mode, asked at one temperature.
#[derive(Debug, Clone, Serialize)]
pub struct Case {
    /// Its name.
    pub model: &'static str,
    /// Of weights, hidden states and KV cache.
    pub dtype: DTypeName,
    /// Whether in deterministic mode.
    pub deterministic: bool,
    /// 0 is greedy; otherwise seeded.
    pub temperature: f32,
    /// Answers in a batch beside the same ones alone.
    pub batched: Differences,
    /// Answers resumed at a random position beside undisturbed ones.
    pub resumed: Differences,
}

/// How many of some pairs of answers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Pairs.
    pub answers: usize,
    /// Those that are not equal.
    pub different: usize,
    /// Tokens that followed equal ones: all up to a pair's first difference, that included.
    pub tokens: usize,
}

/// The speed of both modes.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Of weights, hidden states and KV cache.
    pub dtype: DTypeName,
    /// Sequences at once.
    pub batch: u32,
    /// Of their prompts.
    pub prefill: Sides,
    /// Of their answers.
    pub decode: Sides,
}

/// Tokens a second in both modes.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sides {
    /// Of the default mode.
    pub default: Spread,
    /// Of deterministic mode.
    pub deterministic: Spread,
    /// Deterministic over default, of each round.
    pub ratio: Spread,
}

impl Sides {
    /// Of rounds: default, deterministic.
    pub fn new(rounds: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        Self {
            default: Spread::of(rounds.clone().map(|(default, _)| default)),
            deterministic: Spread::of(rounds.clone().map(|(_, deterministic)| deterministic)),
            ratio: Spread::of(rounds.map(|(default, deterministic)| deterministic / default)),
        }
    }
}

impl Differences {
    /// Of pairs of answers, from a position on.
    pub fn count<'a>(pairs: impl Iterator<Item = (&'a Vec<u32>, &'a Vec<u32>, usize)>) -> Self {
        let mut all = Self { answers: 0, different: 0, tokens: 0 };
        for (a, b, from) in pairs {
            let equal = a[from..].iter().zip(&b[from..]).take_while(|(a, b)| a == b).count();
            let different = a.len() > from + equal;
            all.answers += 1;
            all.different += usize::from(different);
            all.tokens += equal + usize::from(different);
        }
        all
    }

    /// Of 1,000 tokens, how many differ where all before were equal.
    pub fn per_thousand_tokens(&self) -> f64 {
        1000.0 * self.different as f64 / self.tokens.max(1) as f64
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({:.2} ‰)", self.different, self.answers, self.per_thousand_tokens())
    }
}

impl Case {
    fn name(&self) -> String {
        let mode = if self.deterministic { "deterministic" } else { "default" };
        let draw = if self.temperature == 0.0 { "greedy" } else { "seeded" };
        format!("{}, {}, {mode}, {draw}", self.model, dtype(self.dtype))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: in a batch {}, resumed {}", self.name(), self.batched, self.resumed)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefill, decode) = (self.prefill.ratio, self.decode.ratio);
        write!(f, "{}, batch {}: ratio of prefill {prefill:.2}", dtype(self.dtype), self.batch)?;
        write!(f, ", of decode {decode:.2}")
    }
}

impl fmt::Display for ExactnessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Answers that differ from the same ones alone and undisturbed, and first differences per 1,000 tokens\n"
        )?;
        let mut table =
            Table::new(["model".to_owned(), format!("in a batch of {}", self.batch), "resumed".to_owned()]);
        for case in &self.cases {
            table.row([case.name(), case.batched.to_string(), case.resumed.to_string()]);
        }
        writeln!(f, "{table}\nTokens a second of the model of random weights, {} threads\n", self.threads)?;
        let mut table = Table::new(["work", "default", "deterministic", "ratio"]);
        for cost in &self.costs {
            for (work, sides) in [("prefill", cost.prefill), ("decode", cost.decode)] {
                table.row([
                    format!("{}, {work}, batch {}", dtype(cost.dtype), cost.batch),
                    sides.default.to_string(),
                    sides.deterministic.to_string(),
                    format!("{:.2}", sides.ratio),
                ]);
            }
        }
        write!(f, "{table}")
    }
}

fn dtype(dtype: DTypeName) -> &'static str {
    match dtype {
        DTypeName::F32 => "f32",
        DTypeName::Bf16 => "bf16",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_count_up_to_the_first_difference() {
        let (a, b) = (vec![1, 2, 3, 4], vec![1, 2, 9, 4]);
        let pairs = [(&a, &a, 0), (&a, &b, 0), (&a, &b, 3)];
        let found = Differences::count(pairs.into_iter());
        assert_eq!(found, Differences { answers: 3, different: 1, tokens: 4 + 3 + 1 });
        assert_eq!(found.per_thousand_tokens(), 125.0);
    }
}
