//! `generation_config.json`: how its authors want a model to be sampled.

use crate::config_fields::{ConfigError, ConfigFields};

/// Defaults for requests that do not say otherwise; `None` where the file is silent.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// False asks for greedy decoding.
    pub do_sample: Option<bool>,
    /// Divisor of the logits.
    pub temperature: Option<f64>,
    /// Least cumulated probability of the candidates.
    pub top_p: Option<f64>,
    /// Number of candidates; 0 is no limit.
    pub top_k: Option<usize>,
    /// Least probability of a candidate, relative to the likeliest.
    pub min_p: Option<f64>,
    /// Divisor of the logits of tokens that have occurred.
    pub repetition_penalty: Option<f64>,
    /// Longest answer in tokens.
    pub max_new_tokens: Option<usize>,
}

impl GenerationConfig {
    /// Reads the content of a `generation_config.json`.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        let fields = ConfigFields::parse("generation_config.json", json)?;
        Ok(Self {
            eos_token_ids: fields.token_ids("eos_token_id")?,
            do_sample: fields.bool("do_sample")?,
            temperature: fields.not_negative("temperature")?,
            top_p: fields.not_negative("top_p")?,
            top_k: fields.whole("top_k", 0..=u32::MAX as usize)?,
            min_p: fields.not_negative("min_p")?,
            repetition_penalty: fields.positive("repetition_penalty")?,
            max_new_tokens: fields.whole("max_new_tokens", 1..=u32::MAX as usize)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_tokens_are_one_id_or_a_list() {
        let one = GenerationConfig::from_json(br#"{"eos_token_id": 7}"#).unwrap();
        let two = GenerationConfig::from_json(br#"{"eos_token_id": [7, 9], "temperature": 0, "top_p": 0.9}"#)
            .unwrap();
        assert_eq!(one.eos_token_ids, [7]);
        assert_eq!(two.eos_token_ids, [7, 9]);
        assert_eq!((two.temperature, two.top_p, two.top_k), (Some(0.0), Some(0.9), None));
    }

    #[test]
    fn a_wrong_type_names_the_field() {
        let error = GenerationConfig::from_json(br#"{"top_p": "high"}"#).unwrap_err();
        assert!(matches!(error, ConfigError::Invalid { field, .. } if field == "top_p"));
    }
}
