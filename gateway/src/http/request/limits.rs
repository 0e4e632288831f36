//! The ranges of request fields. The OpenAPI document repeats them, and a test compares the two.

use schemas::Failure;

/// Prompts times choices of one request.
pub const ANSWERS_MAX: usize = 64;
/// Stop sequences.
pub const STOPS_MAX: usize = 16;
/// Bytes of one stop sequence.
pub const STOP_BYTES_MAX: usize = 256;
/// Stop token ids.
pub const STOP_IDS_MAX: usize = 128;
/// Entries of `logit_bias`.
pub const BIASES_MAX: usize = 1024;

/// The values that a number may have.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The smallest value.
    pub min: f64,
    /// Whether `min` itself is excluded.
    pub above: bool,
    /// The largest value.
    pub max: f64,
}

/// `temperature`.
pub const TEMPERATURE: Range = Range { min: 0.0, above: false, max: 2.0 };
/// `top_p`.
pub const TOP_P: Range = Range { min: 0.0, above: true, max: 1.0 };
/// `min_p`.
pub const MIN_P: Range = Range { min: 0.0, above: false, max: 1.0 };
/// `top_k`; -1 and 0 keep all.
pub const TOP_K: Range = Range { min: -1.0, above: false, max: i32::MAX as f64 };
/// `presence_penalty` and `frequency_penalty`.
pub const PENALTY: Range = Range { min: -2.0, above: false, max: 2.0 };
/// `repetition_penalty`.
pub const REPETITION: Range = Range { min: 0.0, above: true, max: 10.0 };
/// Values of `logit_bias`.
pub const BIAS: Range = Range { min: -100.0, above: false, max: 100.0 };
/// `n` and `best_of`.
pub const CHOICES: Range = Range { min: 1.0, above: false, max: ANSWERS_MAX as f64 };
/// `max_tokens` and `max_completion_tokens`.
pub const MAX_TOKENS: Range = Range { min: 1.0, above: false, max: i32::MAX as f64 };
/// `top_logprobs` of chats, `logprobs` of completions.
pub const LOGPROBS: Range = Range { min: 0.0, above: false, max: 20.0 };

impl Range {
    /// `value` when it is in the range, else a failure that names `param` and the range.
    pub fn check<T: Copy + Into<f64> + std::fmt::Display>(self, param: &str, value: T) -> Result<T, Failure> {
        let number = value.into();
        let is_low = if self.above { number <= self.min } else { number < self.min };
        if !is_low && number <= self.max {
            return Ok(value);
        }
        let low = if self.above { "greater than" } else { "at least" };
        let Self { min, max, .. } = self;
        Err(Failure::invalid(param, format!("`{param}` is {value}, must be {low} {min} and at most {max}")))
    }
}

/// Fails when `count` of `param` is over `max`.
pub fn check_count(param: &str, what: &str, count: usize, max: usize) -> Result<(), Failure> {
    if count <= max {
        return Ok(());
    }
    Err(Failure::invalid(param, format!("`{param}` has {count} {what}, at most {max} are allowed")))
}
