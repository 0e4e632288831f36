//! The rules for everything about an answer but its prompt.

use std::collections::BTreeMap;

use rand::Rng;
use schemas::Failure;
use schemas::request::{Generation, Sampling, Stop};

use super::limits::*;
use super::stop::StopSequences;

/// The fields that both endpoints take, as given.
#[derive(Debug, Default)]
pub(super) struct Wishes<'a> {
    pub(super) max_tokens: Option<u32>,
    pub(super) min_tokens: Option<u32>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) top_k: Option<i32>,
    pub(super) min_p: Option<f64>,
    pub(super) seed: Option<i64>,
    pub(super) stop: Option<&'a StopSequences>,
    pub(super) stop_token_ids: Option<&'a [u32]>,
    pub(super) ignore_eos: Option<bool>,
    pub(super) presence_penalty: Option<f64>,
    pub(super) frequency_penalty: Option<f64>,
    pub(super) repetition_penalty: Option<f64>,
    pub(super) logit_bias: Option<&'a BTreeMap<String, f64>>,
    pub(super) logprobs: Option<u8>,
}

impl Wishes<'_> {
    /// The generation that they describe; a seed that was not given is drawn here, once for all attempts.
    pub(super) fn check(&self) -> Result<Generation, Failure> {
        let min_tokens = self.min_tokens.unwrap_or(0);
        if let Some(max_tokens) = self.max_tokens.filter(|max| *max < min_tokens) {
            let message = format!("`min_tokens` is {min_tokens}, over the {max_tokens} of `max_tokens`");
            return Err(Failure::invalid("min_tokens", message));
        }
        let stop_token_ids = self.stop_token_ids.unwrap_or_default();
        check_count("stop_token_ids", "ids", stop_token_ids.len(), STOP_IDS_MAX)?;
        Ok(Generation {
            max_tokens: self.max_tokens,
            min_tokens,
            sampling: self.sampling()?,
            stop: Stop {
                sequences: self.stop.map(StopSequences::check).transpose()?.unwrap_or_default(),
                token_ids: stop_token_ids.to_vec(),
                ignore_eos: self.ignore_eos.unwrap_or(false),
            },
            logprobs: self.logprobs,
        })
    }

    fn sampling(&self) -> Result<Sampling, Failure> {
        let unset = Sampling::default();
        let number = |range: Range, param, given: Option<f64>, default: f32| -> Result<f32, Failure> {
            let checked = given.map(|value| range.check(param, value)).transpose()?;
            // A value just above an excluded minimum must not round to it.
            let floor = if range.above { f32::MIN_POSITIVE } else { f32::MIN };
            Ok(checked.map_or(default, |value| (value as f32).max(floor)))
        };
        let top_k = TOP_K.check("top_k", self.top_k.unwrap_or(0))?;
        Ok(Sampling {
            temperature: number(TEMPERATURE, "temperature", self.temperature, unset.temperature)?,
            top_k: u32::try_from(top_k).unwrap_or(0),
            top_p: number(TOP_P, "top_p", self.top_p, unset.top_p)?,
            min_p: number(MIN_P, "min_p", self.min_p, unset.min_p)?,
            seed: self.seed.map_or_else(|| rand::rng().random(), i64::cast_unsigned),
            presence_penalty: number(
                PENALTY,
                "presence_penalty",
                self.presence_penalty,
                unset.presence_penalty,
            )?,
            frequency_penalty: number(
                PENALTY,
                "frequency_penalty",
                self.frequency_penalty,
                unset.frequency_penalty,
            )?,
            repetition_penalty: number(
                REPETITION,
                "repetition_penalty",
                self.repetition_penalty,
                unset.repetition_penalty,
            )?,
            logit_bias: self.logit_bias.map(biases).transpose()?.unwrap_or_default(),
        })
    }
}

fn biases(given: &BTreeMap<String, f64>) -> Result<Vec<(u32, f32)>, Failure> {
    check_count("logit_bias", "entries", given.len(), BIASES_MAX)?;
    let bias = |(key, value): (&String, &f64)| {
        let id = key.parse().map_err(|_| {
            Failure::invalid(
                "logit_bias",
                format!("`logit_bias` has the key `{key}`, which is not a token id"),
            )
        })?;
        Ok((id, BIAS.check("logit_bias", *value)? as f32))
    };
    given.iter().map(bias).collect()
}
