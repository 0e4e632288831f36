//! The body of `POST /v1/completions`.

use std::collections::BTreeMap;

use pipelines::session::AskInput;
use poem_openapi::Object;
use schemas::Failure;
use schemas::request::Generation;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::limits::{ANSWERS_MAX, CHOICES, LOGPROBS, MAX_TOKENS};
use super::options::{StreamOptions, check_neutral, check_stream, is_empty};
use super::prompt::Prompt;
use super::sampling::Wishes;
use super::stop::StopSequences;

/// Longest answer in tokens when the request does not say: OpenAI's default.
const MAX_TOKENS_DEFAULT: u32 = 16;

/// Prompts to go on with. Every field but `model` and `prompt` may be absent or null.
#[derive(Debug, Clone, Object, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompletionRequest {
    /// Id of the model, as `GET /v1/models` lists it.
    pub model: String,
    /// Text or token ids, one prompt or several; at most 64 answers in all.
    pub prompt: Prompt,
    /// Longest answer in tokens. Default 16.
    #[oai(validator(minimum(value = "1"), maximum(value = "2147483647")))]
    pub max_tokens: Option<u32>,
    /// No end of sequence before this many tokens. Default 0.
    pub min_tokens: Option<u32>,
    /// Divides the logits; 0 takes the most probable token. Default 1.
    #[oai(validator(minimum(value = "0"), maximum(value = "2")))]
    pub temperature: Option<f64>,
    /// Keeps the smallest set of tokens whose probabilities reach this sum. Default 1.
    #[oai(validator(minimum(value = "0", exclusive), maximum(value = "1")))]
    pub top_p: Option<f64>,
    /// Keeps this many of the most probable tokens; 0 and -1 keep all. Default 0.
    #[oai(validator(minimum(value = "-1"), maximum(value = "2147483647")))]
    pub top_k: Option<i32>,
    /// Drops tokens less probable than this fraction of the most probable one. Default 0.
    #[oai(validator(minimum(value = "0"), maximum(value = "1")))]
    pub min_p: Option<f64>,
    /// Makes the random draw repeatable. By default another one for every request.
    pub seed: Option<i64>,
    /// How many answers to give to each prompt. Default 1.
    #[oai(validator(minimum(value = "1"), maximum(value = "64")))]
    pub n: Option<u32>,
    /// Must equal `n`: the gateway does not rank answers.
    #[oai(validator(minimum(value = "1"), maximum(value = "64")))]
    pub best_of: Option<u32>,
    /// Texts that end the answer and are not part of it: one, or up to 16, each of 1 to 256 bytes.
    pub stop: Option<StopSequences>,
    /// Token ids that end the answer, beside the model's own.
    #[oai(validator(max_items = 128))]
    pub stop_token_ids: Option<Vec<u32>>,
    /// Goes on after the model's end of sequence. Default false.
    pub ignore_eos: Option<bool>,
    /// Subtracted once from the logit of every token generated before. Default 0.
    #[oai(validator(minimum(value = "-2"), maximum(value = "2")))]
    pub presence_penalty: Option<f64>,
    /// Subtracted from a token's logit for each time it was generated before. Default 0.
    #[oai(validator(minimum(value = "-2"), maximum(value = "2")))]
    pub frequency_penalty: Option<f64>,
    /// Divides positive and multiplies negative logits of tokens in prompt or answer. Default 1.
    #[oai(validator(minimum(value = "0", exclusive), maximum(value = "10")))]
    pub repetition_penalty: Option<f64>,
    /// Added to the logits of token ids: values from -100 to 100, at most 1024 entries.
    #[oai(validator(max_properties = 1024))]
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Gives the log probability of every token and of as many alternatives.
    #[oai(validator(minimum(value = "0"), maximum(value = "20")))]
    pub logprobs: Option<u8>,
    /// Puts the prompt before each answer; for prompts given as text, and without `logprobs`. Default false.
    pub echo: Option<bool>,
    /// Sends the answers as server-sent events while they are made. Default false.
    pub stream: Option<bool>,
    /// What the stream carries beside the answers; needs `stream`.
    pub stream_options: Option<StreamOptions>,
    /// The caller's own name for the person. Not used.
    pub user: Option<String>,
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    suffix: Option<Value>,
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    store: Option<Value>,
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    metadata: Option<Value>,
}

impl CompletionRequest {
    /// How many answers each prompt gets.
    pub fn choices(&self) -> Result<u32, Failure> {
        let n = CHOICES.check("n", self.n.unwrap_or(1))?;
        let answers = self.prompt.count() * n as usize;
        if answers > ANSWERS_MAX {
            let message = format!(
                "{} prompts with {n} answers each are {answers}, over the {ANSWERS_MAX} of one request",
                self.prompt.count()
            );
            return Err(Failure::invalid("prompt", message));
        }
        match self.best_of {
            Some(best_of) if best_of != n => Err(Failure::invalid(
                "best_of",
                format!("`best_of` is {best_of}, must equal `n`, which is {n}"),
            )),
            _ => Ok(n),
        }
    }

    /// One input a prompt.
    pub fn inputs(&self) -> Result<Vec<AskInput>, Failure> {
        self.prompt.check()?;
        Ok(match &self.prompt {
            Prompt::Text(text) => vec![AskInput::Text(text.clone())],
            Prompt::Texts(texts) => texts.iter().cloned().map(AskInput::Text).collect(),
            Prompt::Ids(ids) => vec![AskInput::Ids(ids.clone())],
            Prompt::IdLists(lists) => lists.iter().cloned().map(AskInput::Ids).collect(),
        })
    }

    /// The text to put before the answers to each prompt, when the request asks for it.
    pub fn echo(&self) -> Result<Option<&[String]>, Failure> {
        if self.echo != Some(true) {
            return Ok(None);
        }
        if self.logprobs.is_some() {
            return Err(Failure::invalid("echo", "`echo` is not served together with `logprobs`"));
        }
        match self.prompt.texts() {
            Some(texts) => Ok(Some(texts)),
            None => Err(Failure::invalid("echo", "`echo` needs a prompt given as text")),
        }
    }

    /// Everything else about the answers.
    pub fn generation(&self) -> Result<Generation, Failure> {
        check_neutral("suffix", self.suffix.as_ref(), |suffix| suffix == "")?;
        check_neutral("store", self.store.as_ref(), |store| store == false)?;
        check_neutral("metadata", self.metadata.as_ref(), is_empty)?;
        check_stream(self.stream, self.stream_options.as_ref())?;
        let wishes = Wishes {
            max_tokens: Some(MAX_TOKENS.check("max_tokens", self.max_tokens.unwrap_or(MAX_TOKENS_DEFAULT))?),
            min_tokens: self.min_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            seed: self.seed,
            stop: self.stop.as_ref(),
            stop_token_ids: self.stop_token_ids.as_deref(),
            ignore_eos: self.ignore_eos,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repetition_penalty: self.repetition_penalty,
            logit_bias: self.logit_bias.as_ref(),
            logprobs: self.logprobs.map(|top| LOGPROBS.check("logprobs", top)).transpose()?,
        };
        wishes.check()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(more: Value) -> CompletionRequest {
        let mut body = json!({ "model": "m", "prompt": "a" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(body).unwrap()
    }

    fn refused(more: Value) -> String {
        let request = request(more);
        let checked = request.choices().and_then(|_| request.generation()).and_then(|_| request.inputs());
        checked.and_then(|_| request.echo()).unwrap_err().param.unwrap()
    }

    #[test]
    fn a_prompt_is_text_or_ids_one_or_several() {
        let count = |prompt: Value| request(json!({ "prompt": prompt })).inputs().unwrap().len();
        assert_eq!(count(json!("a")), 1);
        assert_eq!(count(json!(["a", "b"])), 2);
        assert_eq!(count(json!([1, 2, 3])), 1);
        assert_eq!(count(json!([[1], [2, 3]])), 2);
        assert_eq!(refused(json!({ "prompt": [[1], []] })), "prompt");
        for wrong in [json!([]), json!(7), json!([[1], "a"]), json!([-1])] {
            let body = json!({ "model": "m", "prompt": wrong });
            assert!(serde_json::from_value::<CompletionRequest>(body).is_err(), "{wrong}");
        }
    }

    #[test]
    fn prompts_times_choices_are_bounded() {
        assert_eq!(refused(json!({ "prompt": vec!["a"; 33], "n": 2 })), "prompt");
        assert_eq!(request(json!({ "prompt": vec!["a"; 32], "n": 2 })).choices().unwrap(), 2);
        assert_eq!(refused(json!({ "n": 2, "best_of": 3 })), "best_of");
        assert_eq!(request(json!({ "n": 2, "best_of": 2 })).choices().unwrap(), 2);
    }

    #[test]
    fn echo_needs_text_and_no_logprobs() {
        assert_eq!(request(json!({ "echo": true })).echo().unwrap(), Some(&["a".to_owned()][..]));
        assert_eq!(request(json!({ "echo": false, "logprobs": 0 })).echo().unwrap(), None);
        assert_eq!(refused(json!({ "echo": true, "prompt": [1] })), "echo");
        assert_eq!(refused(json!({ "echo": true, "logprobs": 0 })), "echo");
        assert_eq!(refused(json!({ "suffix": "z" })), "suffix");
        assert_eq!(refused(json!({ "logprobs": 21 })), "logprobs");
    }
}
