//! Small objects and neutral values that both endpoints share.

use poem_openapi::Object;
use schemas::Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a stream carries beside the answer.
#[derive(Debug, Clone, Default, Object, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamOptions {
    /// Sends one more event before `[DONE]`, with the usage and without choices.
    pub include_usage: Option<bool>,
}

/// The format of the answer.
#[derive(Debug, Clone, Object, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseFormat {
    /// `text`, the only format served.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub kind: String,
}

impl ResponseFormat {
    /// Fails unless it is text.
    pub fn check(&self) -> Result<(), Failure> {
        if self.kind == "text" {
            return Ok(());
        }
        let message = format!("`response_format.type` is `{}`, only `text` is served", self.kind);
        Err(Failure::invalid("response_format.type", message).with_code("unsupported_value"))
    }
}

/// Fails when `stream_options` are given to a request that does not stream.
pub fn check_stream(stream: Option<bool>, options: Option<&StreamOptions>) -> Result<(), Failure> {
    if options.is_some() && stream != Some(true) {
        return Err(Failure::invalid("stream_options", "`stream_options` needs `stream` to be true"));
    }
    Ok(())
}

/// Fails when the field `param`, which this gateway does not serve, asks for something.
pub fn check_neutral(
    param: &str,
    value: Option<&Value>,
    is_neutral: fn(&Value) -> bool,
) -> Result<(), Failure> {
    match value {
        Some(value) if !is_neutral(value) => {
            Err(Failure::invalid(param, format!("`{param}` is not served")).with_code("unsupported_field"))
        }
        _ => Ok(()),
    }
}

/// An empty array or object.
pub fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}
