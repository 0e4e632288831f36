//! The types of the API, as `./generate` makes them from `../openapi.json`: not to be edited.

#![allow(missing_docs, clippy::all, reason = "what is generated is judged by its generator")]

#[doc = "What the model said."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct AnswerMessage {
    #[doc = "The text."]
    pub content: ::std::string::String,
    #[doc = "Always `assistant`."]
    pub role: AnswerRole,
}
#[doc = "Who speaks in an answer."]
#[derive(
    :: serde :: Deserialize, :: serde :: Serialize, Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd,
)]
pub enum AnswerRole {
    #[serde(rename = "assistant")]
    Assistant,
}
impl ::std::fmt::Display for AnswerRole {
    fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
        match *self {
            Self::Assistant => f.write_str("assistant"),
        }
    }
}
impl ::std::str::FromStr for AnswerRole {
    type Err = self::error::ConversionError;
    fn from_str(value: &str) -> ::std::result::Result<Self, self::error::ConversionError> {
        match value {
            "assistant" => Ok(Self::Assistant),
            _ => Err("invalid value".into()),
        }
    }
}
impl ::std::convert::TryFrom<&str> for AnswerRole {
    type Error = self::error::ConversionError;
    fn try_from(value: &str) -> ::std::result::Result<Self, self::error::ConversionError> {
        value.parse()
    }
}
impl ::std::convert::TryFrom<::std::string::String> for AnswerRole {
    type Error = self::error::ConversionError;
    fn try_from(value: ::std::string::String) -> ::std::result::Result<Self, self::error::ConversionError> {
        value.parse()
    }
}
#[doc = "What a tool call called."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct CalledFunction {
    #[doc = "Its arguments, as a JSON text; the template sees the value."]
    pub arguments: ::std::string::String,
    #[doc = "The function's name."]
    pub name: ::std::string::String,
}
#[doc = "One answer."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ChatChoice {
    #[doc = "Why it ended."]
    pub finish_reason: FinishReason,
    #[doc = "Its place among the answers."]
    pub index: u32,
    #[doc = "When the request asked for them."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub logprobs: ::std::option::Option<ChatLogprobs>,
    #[doc = "What the model said."]
    pub message: AnswerMessage,
}
#[doc = "The next piece of one answer."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ChatChunkChoice {
    #[doc = "What is new."]
    pub delta: ChatDelta,
    #[doc = "Why the answer ended; null before its last piece."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub finish_reason: ::std::option::Option<FinishReason>,
    #[doc = "The answer's place among the answers."]
    pub index: u32,
    #[doc = "When the request asked for them."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub logprobs: ::std::option::Option<ChatLogprobs>,
}
#[doc = "The answers to a chat request."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ChatCompletion {
    #[doc = "One entry an answer."]
    pub choices: ::std::vec::Vec<ChatChoice>,
    #[doc = "Seconds since the Unix epoch."]
    pub created: i64,
    #[doc = "Begins with `chatcmpl-`."]
    pub id: ::std::string::String,
    #[doc = "The model that answered."]
    pub model: ::std::string::String,
    #[doc = "Always `chat.completion`."]
    pub object: ::std::string::String,
    #[doc = "Fingerprint of weights, tokenizer, template and layer plan."]
    pub system_fingerprint: ::std::string::String,
    #[doc = "Tokens of the request."]
    pub usage: Usage,
}
#[doc = "One event of a streamed chat answer."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ChatCompletionChunk {
    #[doc = "The piece of one answer; empty in the event with the usage."]
    pub choices: ::std::vec::Vec<ChatChunkChoice>,
    #[doc = "Seconds since the Unix epoch, the same in all events of a stream."]
    pub created: i64,
    #[doc = "Begins with `chatcmpl-`, the same in all events of a stream."]
    pub id: ::std::string::String,
    #[doc = "The model that answers."]
    pub model: ::std::string::String,
    #[doc = "Always `chat.completion.chunk`."]
    pub object: ::std::string::String,
    #[doc = "Fingerprint of weights, tokenizer, template and layer plan."]
    pub system_fingerprint: ::std::string::String,
    #[doc = "With `stream_options.include_usage`: null, and the tokens of the request in the last event."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub usage: ::std::option::Option<Usage>,
}
#[doc = "What is new in an answer."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, Default, PartialEq)]
pub struct ChatDelta {
    #[doc = "More text."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub content: ::std::option::Option<::std::string::String>,
    #[doc = "In the first piece of an answer."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub role: ::std::option::Option<AnswerRole>,
}
#[doc = "Log probability of one token of a chat answer."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ChatLogprob {
    #[doc = "Its bytes."]
    pub bytes: ::std::vec::Vec<u8>,
    #[doc = "Its natural log probability at temperature 1."]
    pub logprob: f32,
    #[doc = "The token's text; a token that is only part of a character is written as `bytes:\\xNN…`."]
    pub token: ::std::string::String,
    #[doc = "The most probable alternatives, best first."]
    pub top_logprobs: ::std::vec::Vec<TopLogprob>,
}
#[doc = "Log probabilities of a chat answer."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ChatLogprobs {
    #[doc = "One entry a token."]
    pub content: ::std::vec::Vec<ChatLogprob>,
}
#[doc = "A conversation to go on with. Every field but `model` and `messages` may be absent or null."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    #[doc = "More variables for the model's chat template."]
    #[serde(default, skip_serializing_if = "::serde_json::Map::is_empty")]
    pub chat_template_kwargs: ::serde_json::Map<::std::string::String, ::serde_json::Value>,
    #[doc = "Subtracted from a token's logit for each time it was generated before. Default 0."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub frequency_penalty: ::std::option::Option<f64>,
    #[doc = "Goes on after the model's end of sequence. Default false."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub ignore_eos: ::std::option::Option<bool>,
    #[doc = "Added to the logits of token ids: values from -100 to 100, at most 1024 entries."]
    #[serde(default, skip_serializing_if = ":: std :: collections :: BTreeMap::is_empty")]
    pub logit_bias: ::std::collections::BTreeMap<::std::string::String, f64>,
    #[doc = "Gives the log probability of every token. Default false."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub logprobs: ::std::option::Option<bool>,
    #[doc = "Longest answer in tokens; by default whatever the context leaves."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub max_completion_tokens: ::std::option::Option<u32>,
    #[doc = "The older name of `max_completion_tokens`."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub max_tokens: ::std::option::Option<u32>,
    #[doc = "The conversation so far, oldest message first."]
    #[serde(default, skip_serializing_if = "::std::vec::Vec::is_empty")]
    pub messages: ::std::vec::Vec<Message>,
    #[doc = "Drops tokens less probable than this fraction of the most probable one. Default 0."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub min_p: ::std::option::Option<f64>,
    #[doc = "No end of sequence before this many tokens. Default 0."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub min_tokens: ::std::option::Option<u32>,
    #[doc = "Id of the model, as `GET /v1/models` lists it."]
    #[serde(default)]
    pub model: ::std::string::String,
    #[doc = "How many answers to give. Default 1."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub n: ::std::option::Option<u32>,
    #[doc = "Subtracted once from the logit of every token generated before. Default 0."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub presence_penalty: ::std::option::Option<f64>,
    #[doc = "Divides positive and multiplies negative logits of tokens in prompt or answer. Default 1."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub repetition_penalty: ::std::option::Option<f64>,
    #[doc = "The format of the answer."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub response_format: ::std::option::Option<ResponseFormat>,
    #[doc = "Makes the random draw repeatable. By default another one for every request."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub seed: ::std::option::Option<i64>,
    #[doc = "Texts that end the answer and are not part of it: one, or up to 16, each of 1 to 256 bytes."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub stop: ::std::option::Option<ChatRequestStop>,
    #[doc = "Token ids that end the answer, beside the model's own."]
    #[serde(default, skip_serializing_if = "::std::vec::Vec::is_empty")]
    pub stop_token_ids: ::std::vec::Vec<u32>,
    #[doc = "Sends the answer as server-sent events while it is made. Default false."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub stream: ::std::option::Option<bool>,
    #[doc = "What the stream carries beside the answer; needs `stream`."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub stream_options: ::std::option::Option<StreamOptions>,
    #[doc = "Divides the logits; 0 takes the most probable token. Default 1."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub temperature: ::std::option::Option<f64>,
    #[doc = "Keeps this many of the most probable tokens; 0 and -1 keep all. Default 0."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub top_k: ::std::option::Option<i32>,
    #[doc = "Gives as many of the most probable alternatives, too; needs `logprobs`."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub top_logprobs: ::std::option::Option<u8>,
    #[doc = "Keeps the smallest set of tokens whose probabilities reach this sum. Default 1."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub top_p: ::std::option::Option<f64>,
    #[doc = "The caller's own name for the person. Not used."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub user: ::std::option::Option<::std::string::String>,
}
#[doc = "Texts that end the answer and are not part of it: one, or up to 16, each of 1 to 256 bytes."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
pub enum ChatRequestStop {
    Text(::std::string::String),
    Texts(::std::vec::Vec<::std::string::String>),
}
impl ::std::convert::From<::std::vec::Vec<::std::string::String>> for ChatRequestStop {
    fn from(value: ::std::vec::Vec<::std::string::String>) -> Self {
        Self::Texts(value)
    }
}
#[doc = "The answers to a completions request."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct Completion {
    #[doc = "One entry an answer: those to the first prompt, then those to the second, and so on."]
    pub choices: ::std::vec::Vec<CompletionChoice>,
    #[doc = "Seconds since the Unix epoch."]
    pub created: i64,
    #[doc = "Begins with `cmpl-`."]
    pub id: ::std::string::String,
    #[doc = "The model that answered."]
    pub model: ::std::string::String,
    #[doc = "Always `text_completion`."]
    pub object: ::std::string::String,
    #[doc = "Fingerprint of weights, tokenizer, template and layer plan."]
    pub system_fingerprint: ::std::string::String,
    #[doc = "Tokens of the request."]
    pub usage: Usage,
}
#[doc = "One answer, or the next piece of one."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct CompletionChoice {
    #[doc = "Why it ended; null before the last piece of a stream."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub finish_reason: ::std::option::Option<FinishReason>,
    #[doc = "Its place among the answers: prompt times `n` plus choice."]
    pub index: u32,
    #[doc = "When the request asked for them."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub logprobs: ::std::option::Option<CompletionLogprobs>,
    #[doc = "The text."]
    pub text: ::std::string::String,
}
#[doc = "One event of a streamed completion."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct CompletionChunk {
    #[doc = "The piece of one answer; empty in the event with the usage."]
    pub choices: ::std::vec::Vec<CompletionChoice>,
    #[doc = "Seconds since the Unix epoch, the same in all events of a stream."]
    pub created: i64,
    #[doc = "Begins with `cmpl-`, the same in all events of a stream."]
    pub id: ::std::string::String,
    #[doc = "The model that answers."]
    pub model: ::std::string::String,
    #[doc = "Always `text_completion`."]
    pub object: ::std::string::String,
    #[doc = "Fingerprint of weights, tokenizer, template and layer plan."]
    pub system_fingerprint: ::std::string::String,
    #[doc = "With `stream_options.include_usage`: null, and the tokens of the request in the last event."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub usage: ::std::option::Option<Usage>,
}
#[doc = "Log probabilities of a completion, as four lists of equal length."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct CompletionLogprobs {
    #[doc = "Where each token begins in the answer, in characters."]
    pub text_offset: ::std::vec::Vec<u32>,
    #[doc = "Their natural log probabilities at temperature 1."]
    pub token_logprobs: ::std::vec::Vec<f32>,
    #[doc = "The tokens' texts; a token that is only part of a character is written as `bytes:\\xNN…`."]
    pub tokens: ::std::vec::Vec<::std::string::String>,
    #[doc = "For each token the most probable alternatives."]
    pub top_logprobs: ::std::vec::Vec<::std::collections::BTreeMap<::std::string::String, f32>>,
}
#[doc = "Prompts to go on with. Every field but `model` and `prompt` may be absent or null."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    #[doc = "Must equal `n`: the gateway does not rank answers."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub best_of: ::std::option::Option<u32>,
    #[doc = "Puts the prompt before each answer; for prompts given as text, and without `logprobs`. Default false."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub echo: ::std::option::Option<bool>,
    #[doc = "Subtracted from a token's logit for each time it was generated before. Default 0."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub frequency_penalty: ::std::option::Option<f64>,
    #[doc = "Goes on after the model's end of sequence. Default false."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub ignore_eos: ::std::option::Option<bool>,
    #[doc = "Added to the logits of token ids: values from -100 to 100, at most 1024 entries."]
    #[serde(default, skip_serializing_if = ":: std :: collections :: BTreeMap::is_empty")]
    pub logit_bias: ::std::collections::BTreeMap<::std::string::String, f64>,
    #[doc = "Gives the log probability of every token and of as many alternatives."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub logprobs: ::std::option::Option<u8>,
    #[doc = "Longest answer in tokens. Default 16."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub max_tokens: ::std::option::Option<u32>,
    #[doc = "Drops tokens less probable than this fraction of the most probable one. Default 0."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub min_p: ::std::option::Option<f64>,
    #[doc = "No end of sequence before this many tokens. Default 0."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub min_tokens: ::std::option::Option<u32>,
    #[doc = "Id of the model, as `GET /v1/models` lists it."]
    #[serde(default)]
    pub model: ::std::string::String,
    #[doc = "How many answers to give to each prompt. Default 1."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub n: ::std::option::Option<u32>,
    #[doc = "Subtracted once from the logit of every token generated before. Default 0."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub presence_penalty: ::std::option::Option<f64>,
    #[doc = "Text or token ids, one prompt or several; at most 64 answers in all."]
    #[serde(default = "defaults::completion_request_prompt")]
    pub prompt: CompletionRequestPrompt,
    #[doc = "Divides positive and multiplies negative logits of tokens in prompt or answer. Default 1."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub repetition_penalty: ::std::option::Option<f64>,
    #[doc = "Makes the random draw repeatable. By default another one for every request."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub seed: ::std::option::Option<i64>,
    #[doc = "Texts that end the answer and are not part of it: one, or up to 16, each of 1 to 256 bytes."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub stop: ::std::option::Option<CompletionRequestStop>,
    #[doc = "Token ids that end the answer, beside the model's own."]
    #[serde(default, skip_serializing_if = "::std::vec::Vec::is_empty")]
    pub stop_token_ids: ::std::vec::Vec<u32>,
    #[doc = "Sends the answers as server-sent events while they are made. Default false."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub stream: ::std::option::Option<bool>,
    #[doc = "What the stream carries beside the answers; needs `stream`."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub stream_options: ::std::option::Option<StreamOptions>,
    #[doc = "Divides the logits; 0 takes the most probable token. Default 1."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub temperature: ::std::option::Option<f64>,
    #[doc = "Keeps this many of the most probable tokens; 0 and -1 keep all. Default 0."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub top_k: ::std::option::Option<i32>,
    #[doc = "Keeps the smallest set of tokens whose probabilities reach this sum. Default 1."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub top_p: ::std::option::Option<f64>,
    #[doc = "The caller's own name for the person. Not used."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub user: ::std::option::Option<::std::string::String>,
}
impl ::std::default::Default for CompletionRequest {
    fn default() -> Self {
        Self {
            best_of: Default::default(),
            echo: Default::default(),
            frequency_penalty: Default::default(),
            ignore_eos: Default::default(),
            logit_bias: Default::default(),
            logprobs: Default::default(),
            max_tokens: Default::default(),
            min_p: Default::default(),
            min_tokens: Default::default(),
            model: Default::default(),
            n: Default::default(),
            presence_penalty: Default::default(),
            prompt: defaults::completion_request_prompt(),
            repetition_penalty: Default::default(),
            seed: Default::default(),
            stop: Default::default(),
            stop_token_ids: Default::default(),
            stream: Default::default(),
            stream_options: Default::default(),
            temperature: Default::default(),
            top_k: Default::default(),
            top_p: Default::default(),
            user: Default::default(),
        }
    }
}
#[doc = "Text or token ids, one prompt or several; at most 64 answers in all."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
pub enum CompletionRequestPrompt {
    Text(::std::string::String),
    Texts(::std::vec::Vec<::std::string::String>),
    Ids(::std::vec::Vec<u32>),
    IdLists(::std::vec::Vec<::std::vec::Vec<u32>>),
}
impl ::std::default::Default for CompletionRequestPrompt {
    fn default() -> Self {
        CompletionRequestPrompt::Text("".to_string())
    }
}
impl ::std::convert::From<::std::vec::Vec<::std::string::String>> for CompletionRequestPrompt {
    fn from(value: ::std::vec::Vec<::std::string::String>) -> Self {
        Self::Texts(value)
    }
}
impl ::std::convert::From<::std::vec::Vec<u32>> for CompletionRequestPrompt {
    fn from(value: ::std::vec::Vec<u32>) -> Self {
        Self::Ids(value)
    }
}
impl ::std::convert::From<::std::vec::Vec<::std::vec::Vec<u32>>> for CompletionRequestPrompt {
    fn from(value: ::std::vec::Vec<::std::vec::Vec<u32>>) -> Self {
        Self::IdLists(value)
    }
}
#[doc = "Texts that end the answer and are not part of it: one, or up to 16, each of 1 to 256 bytes."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
pub enum CompletionRequestStop {
    Text(::std::string::String),
    Texts(::std::vec::Vec<::std::string::String>),
}
impl ::std::convert::From<::std::vec::Vec<::std::string::String>> for CompletionRequestStop {
    fn from(value: ::std::vec::Vec<::std::string::String>) -> Self {
        Self::Texts(value)
    }
}
#[doc = "One part of a message's content."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ContentPart {
    #[doc = "The image: PNG, JPEG, WebP, or the first frame of a GIF."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub image_url: ::std::option::Option<ImageUrl>,
    #[doc = "The text."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub text: ::std::option::Option<::std::string::String>,
    #[doc = "`text`, or `image_url` for a model that sees."]
    #[serde(rename = "type", default = "defaults::content_part_type")]
    pub type_: ::std::string::String,
}
impl ::std::default::Default for ContentPart {
    fn default() -> Self {
        Self { image_url: Default::default(), text: Default::default(), type_: defaults::content_part_type() }
    }
}
#[doc = "OpenAI's error body."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ErrorBody {
    #[doc = "What went wrong."]
    pub error: ErrorDetail,
}
#[doc = "What went wrong."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ErrorDetail {
    #[doc = "A word for programs, e.g. `context_length_exceeded`."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub code: ::std::option::Option<::std::string::String>,
    #[doc = "One sentence for a person, naming the object and the limit."]
    pub message: ::std::string::String,
    #[doc = "The request field at fault, as a path such as `messages[0].content`."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub param: ::std::option::Option<::std::string::String>,
    #[doc = "The family of the error: `invalid_request_error`, `rate_limit_error`, `cancelled_error` or `server_error`."]
    #[serde(rename = "type")]
    pub type_: ::std::string::String,
}
#[doc = "Why an answer ended."]
#[derive(
    :: serde :: Deserialize, :: serde :: Serialize, Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd,
)]
pub enum FinishReason {
    #[serde(rename = "stop")]
    Stop,
    #[serde(rename = "length")]
    Length,
}
impl ::std::fmt::Display for FinishReason {
    fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
        match *self {
            Self::Stop => f.write_str("stop"),
            Self::Length => f.write_str("length"),
        }
    }
}
impl ::std::str::FromStr for FinishReason {
    type Err = self::error::ConversionError;
    fn from_str(value: &str) -> ::std::result::Result<Self, self::error::ConversionError> {
        match value {
            "stop" => Ok(Self::Stop),
            "length" => Ok(Self::Length),
            _ => Err("invalid value".into()),
        }
    }
}
impl ::std::convert::TryFrom<&str> for FinishReason {
    type Error = self::error::ConversionError;
    fn try_from(value: &str) -> ::std::result::Result<Self, self::error::ConversionError> {
        value.parse()
    }
}
impl ::std::convert::TryFrom<::std::string::String> for FinishReason {
    type Error = self::error::ConversionError;
    fn try_from(value: ::std::string::String) -> ::std::result::Result<Self, self::error::ConversionError> {
        value.parse()
    }
}
#[doc = "This process lives."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct Health {
    #[doc = "This gateway's id on the bus."]
    pub instance: ::std::string::String,
    #[doc = "Always `ok`."]
    pub status: ::std::string::String,
}
#[doc = "Where an image is."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ImageUrl {
    #[doc = "`auto` or `high`: images are always seen as the model was made to see them. Default `auto`."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub detail: ::std::option::Option<::std::string::String>,
    #[doc = "A data URL in base64, or an http(s) URL on a host that the gateway fetches from."]
    pub url: ::std::string::String,
}
#[doc = "One message of a conversation."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct Message {
    #[doc = "What is said. Text parts without images between them are joined by newlines. An assistant's message with `tool_calls` may lack it."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub content: ::std::option::Option<MessageContent>,
    #[doc = "The speaker's name, for templates that print it."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub name: ::std::option::Option<::std::string::String>,
    #[doc = "A refusal of the assistant, for templates that print it."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub refusal: ::std::option::Option<::std::string::String>,
    #[doc = "Who speaks."]
    #[serde(default = "defaults::message_role")]
    pub role: MessageRole,
    #[doc = "The call that a `tool` message answers."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub tool_call_id: ::std::option::Option<::std::string::String>,
    #[doc = "The calls that an assistant made."]
    #[serde(default, skip_serializing_if = "::std::vec::Vec::is_empty")]
    pub tool_calls: ::std::vec::Vec<ToolCall>,
}
impl ::std::default::Default for Message {
    fn default() -> Self {
        Self {
            content: Default::default(),
            name: Default::default(),
            refusal: Default::default(),
            role: defaults::message_role(),
            tool_call_id: Default::default(),
            tool_calls: Default::default(),
        }
    }
}
#[doc = "What is said. Text parts without images between them are joined by newlines. An assistant's message with `tool_calls` may lack it."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
pub enum MessageContent {
    Text(::std::string::String),
    Parts(::std::vec::Vec<ContentPart>),
}
impl ::std::convert::From<::std::vec::Vec<ContentPart>> for MessageContent {
    fn from(value: ::std::vec::Vec<ContentPart>) -> Self {
        Self::Parts(value)
    }
}
#[doc = "Who speaks."]
#[derive(
    :: serde :: Deserialize, :: serde :: Serialize, Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd,
)]
pub enum MessageRole {
    #[serde(rename = "system")]
    System,
    #[serde(rename = "developer")]
    Developer,
    #[serde(rename = "user")]
    User,
    #[serde(rename = "assistant")]
    Assistant,
    #[serde(rename = "tool")]
    Tool,
}
impl ::std::fmt::Display for MessageRole {
    fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
        match *self {
            Self::System => f.write_str("system"),
            Self::Developer => f.write_str("developer"),
            Self::User => f.write_str("user"),
            Self::Assistant => f.write_str("assistant"),
            Self::Tool => f.write_str("tool"),
        }
    }
}
impl ::std::str::FromStr for MessageRole {
    type Err = self::error::ConversionError;
    fn from_str(value: &str) -> ::std::result::Result<Self, self::error::ConversionError> {
        match value {
            "system" => Ok(Self::System),
            "developer" => Ok(Self::Developer),
            "user" => Ok(Self::User),
            "assistant" => Ok(Self::Assistant),
            "tool" => Ok(Self::Tool),
            _ => Err("invalid value".into()),
        }
    }
}
impl ::std::convert::TryFrom<&str> for MessageRole {
    type Error = self::error::ConversionError;
    fn try_from(value: &str) -> ::std::result::Result<Self, self::error::ConversionError> {
        value.parse()
    }
}
impl ::std::convert::TryFrom<::std::string::String> for MessageRole {
    type Error = self::error::ConversionError;
    fn try_from(value: ::std::string::String) -> ::std::result::Result<Self, self::error::ConversionError> {
        value.parse()
    }
}
#[doc = "One model."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct Model {
    #[doc = "Longest prompt and answer together, in tokens."]
    pub context_length: u32,
    #[doc = "Seconds since the Unix epoch when its pipeline was first started."]
    pub created: u64,
    #[doc = "Fingerprint of weights, tokenizer, template and layer plan."]
    pub fingerprint: ::std::string::String,
    #[doc = "Goes into the `model` field of requests."]
    pub id: ::std::string::String,
    #[doc = "Always `model`."]
    pub object: ::std::string::String,
    #[doc = "Always `tokenway`."]
    pub owned_by: ::std::string::String,
    #[doc = "Whether every stage that text needs runs."]
    pub ready: bool,
    #[doc = "Whether it takes images."]
    pub vision: bool,
}
#[doc = "The models."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ModelList {
    #[doc = "One entry a model."]
    pub data: ::std::vec::Vec<Model>,
    #[doc = "Always `list`."]
    pub object: ::std::string::String,
}
#[doc = "What one pipeline lacks."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct PipelineReadiness {
    #[doc = "Its fingerprint."]
    pub fingerprint: ::std::string::String,
    #[doc = "Stages without a running instance, such as `tokenize` or `shard-forward.1`."]
    pub missing: ::std::vec::Vec<::std::string::String>,
    #[doc = "The model that it serves."]
    pub model: ::std::string::String,
    #[doc = "Whether every stage runs."]
    pub ready: bool,
}
#[doc = "What this gateway can serve."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct Readiness {
    #[doc = "Whether the bus is connected."]
    pub bus: bool,
    #[doc = "Whether this gateway is shutting down."]
    pub draining: bool,
    #[doc = "The pipelines, or the one asked for."]
    pub pipelines: ::std::vec::Vec<PipelineReadiness>,
    #[doc = "Whether the bus is connected, nothing is shutting down, and a pipeline (or the one asked for) can serve."]
    pub ready: bool,
}
#[doc = "The format of the answer."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ResponseFormat {
    #[doc = "`text`, the only format served."]
    #[serde(rename = "type")]
    pub type_: ::std::string::String,
}
#[doc = "What a stream carries beside the answer."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, Default, PartialEq)]
pub struct StreamOptions {
    #[doc = "Sends one more event before `[DONE]`, with the usage and without choices."]
    #[serde(skip_serializing_if = "::std::option::Option::is_none")]
    pub include_usage: ::std::option::Option<bool>,
}
#[doc = "A call of a tool that an assistant made."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct ToolCall {
    #[doc = "What was called."]
    pub function: CalledFunction,
    #[doc = "Names the call in the tool's answer."]
    pub id: ::std::string::String,
    #[doc = "`function`."]
    #[serde(rename = "type")]
    pub type_: ::std::string::String,
}
#[doc = "Log probability of an alternative."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct TopLogprob {
    #[doc = "Its bytes."]
    pub bytes: ::std::vec::Vec<u8>,
    #[doc = "Its natural log probability at temperature 1."]
    pub logprob: f32,
    #[doc = "The token's text; a token that is only part of a character is written as `bytes:\\xNN…`."]
    pub token: ::std::string::String,
}
#[doc = "Tokens of a request."]
#[derive(:: serde :: Deserialize, :: serde :: Serialize, Clone, Debug, PartialEq)]
pub struct Usage {
    #[doc = "Tokens of all answers."]
    pub completion_tokens: u32,
    #[doc = "Tokens of the prompts, each prompt counted once."]
    pub prompt_tokens: u32,
    #[doc = "Their sum."]
    pub total_tokens: u32,
}
#[doc = " Generation of default values for serde."]
pub mod defaults {
    pub(super) fn completion_request_prompt() -> super::CompletionRequestPrompt {
        super::CompletionRequestPrompt::Text("".to_string())
    }
    pub(super) fn content_part_type() -> ::std::string::String {
        "text".to_string()
    }
    pub(super) fn message_role() -> super::MessageRole {
        super::MessageRole::User
    }
}
#[doc = " Error types."]
pub mod error {
    #[doc = r" Error from a `TryFrom` or `FromStr` implementation."]
    pub struct ConversionError(::std::borrow::Cow<'static, str>);
    impl ::std::error::Error for ConversionError {}
    impl ::std::fmt::Display for ConversionError {
        fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> Result<(), ::std::fmt::Error> {
            ::std::fmt::Display::fmt(&self.0, f)
        }
    }
    impl ::std::fmt::Debug for ConversionError {
        fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> Result<(), ::std::fmt::Error> {
            ::std::fmt::Debug::fmt(&self.0, f)
        }
    }
    impl From<&'static str> for ConversionError {
        fn from(value: &'static str) -> Self {
            Self(value.into())
        }
    }
    impl From<String> for ConversionError {
        fn from(value: String) -> Self {
            Self(value.into())
        }
    }
}
