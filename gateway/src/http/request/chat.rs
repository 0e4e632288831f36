//! The body of `POST /v1/chat/completions`.

use std::collections::BTreeMap;

use poem_openapi::Object;
use poem_openapi::types::Any;
use schemas::Failure;
use schemas::request::Generation;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::{CHOICES, LOGPROBS, MAX_TOKENS};
use super::message::{ImagePart, Message, images, template_input};
use super::options::{ResponseFormat, StreamOptions, check_neutral, check_stream, is_empty};
use super::sampling::Wishes;
use super::stop::StopSequences;

/// A conversation to go on with. Every field but `model` and `messages` may be absent or null.
#[derive(Debug, Clone, Object, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChatRequest {
    /// Id of the model, as `GET /v1/models` lists it.
    pub model: String,
    /// The conversation so far, oldest message first.
    #[oai(validator(min_items = 1))]
    pub messages: Vec<Message>,
    /// Longest answer in tokens; by default whatever the context leaves.
    #[oai(validator(minimum(value = "1"), maximum(value = "2147483647")))]
    pub max_completion_tokens: Option<u32>,
    /// The older name of `max_completion_tokens`.
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
    /// How many answers to give. Default 1.
    #[oai(validator(minimum(value = "1"), maximum(value = "64")))]
    pub n: Option<u32>,
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
    /// Gives the log probability of every token. Default false.
    pub logprobs: Option<bool>,
    /// Gives as many of the most probable alternatives, too; needs `logprobs`.
    #[oai(validator(minimum(value = "0"), maximum(value = "20")))]
    pub top_logprobs: Option<u8>,
    /// Sends the answer as server-sent events while it is made. Default false.
    pub stream: Option<bool>,
    /// What the stream carries beside the answer; needs `stream`.
    pub stream_options: Option<StreamOptions>,
    /// The format of the answer.
    pub response_format: Option<ResponseFormat>,
    /// More variables for the model's chat template.
    pub chat_template_kwargs: Option<BTreeMap<String, Any<Value>>>,
    /// The caller's own name for the person. Not used.
    pub user: Option<String>,
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    tools: Option<Value>,
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    tool_choice: Option<Value>,
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    parallel_tool_calls: Option<Value>,
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    store: Option<Value>,
    #[oai(skip)]
    #[serde(default, skip_serializing)]
    metadata: Option<Value>,
}

impl ChatRequest {
    /// How many answers are asked for.
    pub fn choices(&self) -> Result<u32, Failure> {
        CHOICES.check("n", self.n.unwrap_or(1))
    }

    /// The conversation as tokenize renders it.
    pub fn input(&self) -> Result<Vec<u8>, Failure> {
        let kwargs = self.chat_template_kwargs.as_ref().map(|given| {
            given.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect::<Map<_, _>>()
        });
        template_input(&self.messages, kwargs.as_ref())
    }

    /// The images of the conversation, in order.
    pub fn images(&self) -> Vec<ImagePart<'_>> {
        images(&self.messages)
    }

    /// Everything else about the answer.
    pub fn generation(&self) -> Result<Generation, Failure> {
        self.check_unserved()?;
        check_stream(self.stream, self.stream_options.as_ref())?;
        self.response_format.as_ref().map(ResponseFormat::check).transpose()?;
        let wishes = Wishes {
            max_tokens: self.max_tokens()?,
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
            logprobs: self.logprobs()?,
        };
        wishes.check()
    }

    fn max_tokens(&self) -> Result<Option<u32>, Failure> {
        let older = self.max_tokens.map(|max| MAX_TOKENS.check("max_tokens", max)).transpose()?;
        let newer = self
            .max_completion_tokens
            .map(|max| MAX_TOKENS.check("max_completion_tokens", max))
            .transpose()?;
        match (older, newer) {
            (Some(older), Some(newer)) if older != newer => {
                let message = format!("`max_tokens` is {older}, but `max_completion_tokens` is {newer}");
                Err(Failure::invalid("max_tokens", message))
            }
            _ => Ok(newer.or(older)),
        }
    }

    fn logprobs(&self) -> Result<Option<u8>, Failure> {
        let top = self.top_logprobs.map(|top| LOGPROBS.check("top_logprobs", top)).transpose()?;
        match (self.logprobs.unwrap_or(false), top) {
            (true, top) => Ok(Some(top.unwrap_or(0))),
            (false, Some(1..)) => {
                Err(Failure::invalid("top_logprobs", "`top_logprobs` needs `logprobs` to be true"))
            }
            (false, _) => Ok(None),
        }
    }

    fn check_unserved(&self) -> Result<(), Failure> {
        check_neutral("tools", self.tools.as_ref(), is_empty)?;
        check_neutral("tool_choice", self.tool_choice.as_ref(), |choice| choice == "none")?;
        check_neutral("parallel_tool_calls", self.parallel_tool_calls.as_ref(), Value::is_boolean)?;
        check_neutral("store", self.store.as_ref(), |store| store == false)?;
        check_neutral("metadata", self.metadata.as_ref(), is_empty)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(more: Value) -> ChatRequest {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(body).unwrap()
    }

    fn refused(more: Value) -> String {
        let request = request(more);
        let generation = request.choices().and_then(|_| request.generation()).and_then(|_| request.input());
        generation.unwrap_err().param.unwrap()
    }

    #[test]
    fn every_value_out_of_its_range_is_refused_by_name() {
        for (field, value) in [
            ("temperature", json!(2.01)),
            ("temperature", json!(-0.1)),
            ("top_p", json!(0)),
            ("top_p", json!(1.1)),
            ("top_k", json!(-2)),
            ("min_p", json!(1.5)),
            ("n", json!(0)),
            ("n", json!(65)),
            ("max_tokens", json!(0)),
            ("max_completion_tokens", json!(0)),
            ("presence_penalty", json!(2.5)),
            ("frequency_penalty", json!(-2.5)),
            ("repetition_penalty", json!(0)),
            ("logit_bias", json!({ "5": 101 })),
            ("logit_bias", json!({ "five": 1 })),
            ("stop", json!("")),
            ("stop", json!(["x".repeat(257)])),
            ("stop", json!(vec!["x"; 17])),
            ("stop_token_ids", json!(vec![1; 129])),
            ("top_logprobs", json!(3)),
            ("stream_options", json!({ "include_usage": true })),
            ("tools", json!([{ "type": "function" }])),
            ("tool_choice", json!("auto")),
            ("store", json!(true)),
            ("metadata", json!({ "a": "b" })),
        ] {
            assert_eq!(refused(json!({ field: value })), field, "{value}");
        }
        assert_eq!(refused(json!({ "logprobs": true, "top_logprobs": 21 })), "top_logprobs");
        assert_eq!(refused(json!({ "response_format": { "type": "json_object" } })), "response_format.type");
        assert_eq!(refused(json!({ "min_tokens": 5, "max_tokens": 4 })), "min_tokens");
        assert_eq!(refused(json!({ "max_tokens": 5, "max_completion_tokens": 4 })), "max_tokens");
    }

    #[test]
    fn null_and_neutral_values_are_like_absent_ones() {
        let nulls = json!({
            "temperature": null, "n": null, "stop": null, "logprobs": null, "stream": null, "tools": null,
            "seed": 1, "max_tokens": null, "logit_bias": null, "response_format": null, "user": "someone",
        });
        let neutral = json!({
            "seed": 1, "tools": [], "tool_choice": "none", "parallel_tool_calls": true, "store": false,
            "metadata": {}, "response_format": { "type": "text" }, "top_k": -1,
        });
        let absent = request(json!({ "seed": 1 })).generation().unwrap();
        assert_eq!(request(nulls).generation().unwrap(), absent);
        assert_eq!(request(neutral).generation().unwrap(), absent);
        assert_eq!(absent.max_tokens, None);
    }

    #[test]
    fn a_seed_that_is_not_given_is_drawn() {
        let seed = || request(json!({})).generation().unwrap().sampling.seed;
        assert_ne!(seed(), seed());
        assert_eq!(request(json!({ "seed": -1 })).generation().unwrap().sampling.seed, u64::MAX);
    }

    #[test]
    fn the_template_sees_text_and_values() {
        let request = request(json!({
            "messages": [
                { "role": "developer", "content": "be brief" },
                { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
                { "role": "assistant", "content": null, "tool_calls": [
                    { "id": "1", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1}" } },
                ] },
                { "role": "tool", "tool_call_id": "1", "content": "2" },
            ],
            "chat_template_kwargs": { "thinking": false },
        }));
        let input: Value = serde_json::from_slice(&request.input().unwrap()).unwrap();
        let call =
            json!({ "id": "1", "type": "function", "function": { "name": "f", "arguments": { "x": 1 } } });
        let expected = json!({
            "messages": [
                { "role": "system", "content": "be brief" },
                { "role": "user", "content": "a\nb" },
                { "role": "assistant", "tool_calls": [call] },
                { "role": "tool", "content": "2", "tool_call_id": "1" },
            ],
            "chat_template_kwargs": { "thinking": false },
        });
        assert_eq!(input, expected);
    }

    #[test]
    fn the_template_sees_where_images_are() {
        let part = |url: &str| json!({ "type": "image_url", "image_url": { "url": url } });
        let text = json!({ "type": "text", "text": "and" });
        let request = request(json!({ "messages": [
            { "role": "user", "content": [part("data:1"), text, part("data:2")] },
            { "role": "assistant", "content": "yes" },
            { "role": "user", "content": [part("data:3")] },
        ] }));
        let input: Value = serde_json::from_slice(&request.input().unwrap()).unwrap();
        let image = json!({ "type": "image" });
        assert_eq!(input["messages"][0]["content"], json!([image, text, image]));
        assert_eq!(input["messages"][1]["content"], "yes");
        let images = request.images();
        assert_eq!(images.iter().map(|image| image.url).collect::<Vec<_>>(), ["data:1", "data:2", "data:3"]);
        assert_eq!(images[1].field, "messages[0].content[2].image_url");
    }

    #[test]
    fn what_is_not_served_is_refused_by_its_place() {
        let of_parts = |role: &str, part: Value| json!({ "messages": [{ "role": role, "content": [{ "type": "text", "text": "a" }, part] }] });
        let image =
            |detail: &str| json!({ "type": "image_url", "image_url": { "url": "data:,", "detail": detail } });
        assert_eq!(refused(of_parts("user", json!({ "type": "video" }))), "messages[0].content[1]");
        assert_eq!(refused(of_parts("system", image("auto"))), "messages[0].content[1]");
        assert_eq!(refused(of_parts("user", image("low"))), "messages[0].content[1].image_url.detail");
        assert_eq!(
            refused(of_parts("user", json!({ "type": "image_url" }))),
            "messages[0].content[1].image_url"
        );
        assert_eq!(refused(json!({ "messages": [{ "role": "user" }] })), "messages[0].content");
        assert_eq!(refused(json!({ "messages": [] })), "messages");
    }
}
