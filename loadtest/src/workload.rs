//! What is asked: prompts of given lengths, the same ones for the same seed.

use std::ops::Range;
use std::str::FromStr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// The endpoint that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `/v1/completions` with token ids: prompts have exactly the length wanted.
    Completions,
    /// `/v1/chat/completions` with a message of as many letters; its length in tokens is up to the tokenizer.
    Chat,
}

/// How long prompts are, in tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lengths {
    /// All the same.
    Fixed(u32),
    /// Every length from the first to the last equally likely.
    Uniform(u32, u32),
    /// Many short ones and a few long ones, with this mean.
    Exponential(u32),
}

/// Every request of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The endpoint.
    pub api: Api,
    /// Lengths of the prompts.
    pub lengths: Lengths,
    /// Token ids that prompts are made of.
    pub ids: Range<u32>,
    /// Tokens of each answer.
    pub max_tokens: u32,
    /// Whether answers go on to `max_tokens` whatever the model says. Only some servers know this setting.
    pub ignore_eos: bool,
    /// Randomness of the answers.
    pub temperature: f64,
    /// Seed of prompts and arrivals.
    pub seed: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            api: Api::Completions,
            lengths: Lengths::Fixed(114),
            ids: 97..123,
            max_tokens: 64,
            ignore_eos: true,
            temperature: 0.0,
            seed: 0,
        }
    }
}

impl Workload {
    /// The body of request number `index`, for `model`.
    pub fn body(&self, model: &str, index: u64) -> Value {
        let mut random = self.random(index);
        let length = self.lengths.draw(&mut random);
        let mut body = json!({
            "model": model,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "stream": true,
            "stream_options": { "include_usage": true },
        });
        match self.api {
            Api::Completions => {
                let ids: Vec<u32> = (0..length).map(|_| random.random_range(self.ids.clone())).collect();
                body["prompt"] = json!(ids);
            }
            Api::Chat => {
                let letters: String =
                    (0..length).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect();
                body["messages"] = json!([{ "role": "user", "content": letters }]);
            }
        }
        if self.ignore_eos {
            body["ignore_eos"] = json!(true);
        }
        body
    }

    /// The path of the endpoint.
    pub fn path(&self) -> &'static str {
        match self.api {
            Api::Completions => "/v1/completions",
            Api::Chat => "/v1/chat/completions",
        }
    }

    /// A source of randomness for request number `index`, independent of the order in which requests are made.
    fn random(&self, index: u64) -> StdRng {
        // The odd factor spreads consecutive numbers over all seeds.
        StdRng::seed_from_u64(self.seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

impl Lengths {
    /// One length, at least 1.
    pub fn draw(self, random: &mut impl Rng) -> u32 {
        match self {
            Self::Fixed(length) => length,
            Self::Uniform(first, last) => random.random_range(first..=last),
            Self::Exponential(mean) => (exponential(random) * f64::from(mean)).round().max(1.0) as u32,
        }
    }
}

/// A draw from the exponential distribution with mean 1.
pub fn exponential(random: &mut impl Rng) -> f64 {
    -(1.0 - random.random::<f64>()).ln()
}

impl FromStr for Lengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.trim().parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err("must be N, FIRST..LAST or exp:MEAN, each at least 1".to_owned()),
        };
        if let Some(mean) = text.strip_prefix("exp:") {
            return Ok(Self::Exponential(number(mean)?));
        }
        let Some((first, last)) = text.split_once("..") else { return Ok(Self::Fixed(number(text)?)) };
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            Err(format!("{first} is more than {last}"))
        } else {
            Ok(Self::Uniform(first, last))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_nonsense_is_refused() {
        assert_eq!("114".parse(), Ok(Lengths::Fixed(114)));
        assert_eq!("8..64".parse(), Ok(Lengths::Uniform(8, 64)));
        assert_eq!("exp:100".parse(), Ok(Lengths::Exponential(100)));
        for text in ["", "0", "9..8", "0..4", "exp:", "x"] {
            assert!(text.parse::<Lengths>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_same_seed_asks_the_same_and_another_something_else() {
        let workload = Workload { lengths: Lengths::Uniform(1, 99), ..Workload::default() };
        let other = Workload { seed: 1, ..workload.clone() };
        assert_eq!(workload.body("m", 5), workload.body("m", 5));
        assert_ne!(workload.body("m", 5), workload.body("m", 6));
        assert_ne!(workload.body("m", 5), other.body("m", 5));
    }

    #[test]
    fn exponential_lengths_have_their_mean() {
        let mut random = StdRng::seed_from_u64(7);
        let sum: u64 = (0..20_000).map(|_| u64::from(Lengths::Exponential(100).draw(&mut random))).sum();
        assert!((95.0..105.0).contains(&(sum as f64 / 20_000.0)), "{sum}");
    }
}
