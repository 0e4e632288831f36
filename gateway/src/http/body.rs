//! The body of a POST: read within a limit and a deadline, parsed strictly, documented by its poem-openapi schema.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use poem::http::header;
use poem::{Body, Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use schemas::{Failure, FailureKind};
use serde::de::DeserializeOwned;

use crate::http::failure::Refusal;

/// Longest time that a body may take to arrive.
const BODY_SECONDS: u64 = 60;
/// What is read and thrown away of a body over the limit, so that its sender comes to read the answer.
const DISCARD_BYTES: usize = 64 << 20;
/// How long it is thrown away.
const DISCARD_SECONDS: u64 = 2;

/// Largest body in bytes; the server gives it to every request.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit(pub usize);

/// A JSON body. Unknown fields are refused by the types that it is parsed into.
pub struct Posted<T>(pub T);

impl<'a, T: Type + DeserializeOwned> ApiExtractor<'a> for Posted<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType { content_type: "application/json", schema: T::schema_ref() }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        check_content_type(request)?;
        let BodyLimit(limit) = request.data().copied().unwrap_or(BodyLimit(0));
        let reading = read(body.take()?, limit);
        let bytes = tokio::time::timeout(Duration::from_secs(BODY_SECONDS), reading)
            .await
            .map_err(|_| Refusal::timeout("the body did not arrive in time"))??;
        Ok(Self(parse(&bytes).map_err(Refusal::from)?))
    }
}

fn check_content_type(request: &Request) -> Result<(), Refusal> {
    let given =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json =
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    Err(Refusal::unsupported_media(format!("the content type is `{given}`, must be `application/json`")))
}

/// Holds at most `limit` bytes at any moment, whether or not the length was announced.
async fn read(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let mut stream = body.into_bytes_stream();
    let mut bytes = BytesMut::new();
    while let Some(part) = stream.next().await {
        let part = part.map_err(|_| Failure::new(FailureKind::Cancelled, "the body ended early"))?;
        if bytes.len() + part.len() > limit {
            drop(bytes);
            discard(stream).await;
            let message = format!("the body is over the limit of {limit} bytes");
            return Err(Failure::new(FailureKind::TooLarge, message).with_code("request_too_large").into());
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes.freeze())
}

async fn discard(mut rest: impl Stream<Item = std::io::Result<Bytes>> + Unpin) {
    let reading = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(part)) = rest.next().await {
            left = left.saturating_sub(part.len());
            if left == 0 {
                return;
            }
        }
    };
    // A sender that is slower than this finds the connection closed.
    let _ = tokio::time::timeout(Duration::from_secs(DISCARD_SECONDS), reading).await;
}

/// Parses a body; a failure names the field at fault, or the line and column.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    if bytes.is_empty() {
        return Err(Failure::new(FailureKind::Invalid, "the request has no body"));
    }
    // serde reads an array as a struct, too, field by field.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(Failure::new(FailureKind::Invalid, "the body is an array, must be an object"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        explain(&error.into_inner(), &path)
    })?;
    deserializer.end().map_err(|error| explain(&error, "."))?;
    Ok(parsed)
}

/// serde's message without its position where the field says more, the position where it is all there is.
fn explain(error: &serde_json::Error, path: &str) -> Failure {
    let message = error.to_string();
    let reason = message.split(" at line ").next().unwrap_or_default();
    if !error.is_data() {
        let position = format!("line {}, column {}", error.line(), error.column());
        return Failure::new(FailureKind::Invalid, format!("the body is not JSON at {position}: {reason}"))
            .with_code("invalid_json");
    }
    let reason = in_plain_words(reason);
    let parent = path.trim_start_matches('.');
    let named = reason.split('`').nth(1).unwrap_or_default();
    let within = |field: &str| if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") };
    if reason.starts_with("unknown field") {
        // The path of an unknown field may end in its own name.
        let field = if parent.ends_with(named) { parent.to_owned() } else { within(named) };
        let message = format!("`{field}` is not a field that this gateway knows");
        return Failure::invalid(field, message).with_code("unknown_field");
    }
    if reason.starts_with("missing field") {
        let field = within(named);
        let message = format!("`{field}` is missing");
        return Failure::invalid(field, message).with_code("missing_field");
    }
    if reason.starts_with("duplicate field") {
        let field = within(named);
        let message = format!("`{field}` is given twice");
        return Failure::invalid(field, message);
    }
    if parent.is_empty() {
        return Failure::new(FailureKind::Invalid, format!("the body is not a request: {reason}"));
    }
    Failure::invalid(parent, format!("`{parent}`: {reason}"))
}

/// `reason` without the names of Rust's types.
fn in_plain_words(reason: &str) -> String {
    const WORDS: [(&str, &str); 6] = [
        ("u8", "an integer from 0 to 255"),
        ("u32", "an integer from 0 to 4294967295"),
        ("i32", "an integer of 32 bits"),
        ("i64", "an integer of 64 bits"),
        ("f64", "a number"),
        ("map", "an object"),
    ];
    let word = |name: &str| WORDS.iter().find(|(rust, _)| *rust == name).map(|(_, plain)| *plain);
    match reason.rsplit_once(", expected ") {
        Some((given, expected)) => format!("{given}, expected {}", word(expected).unwrap_or(expected)),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::chat::ChatRequest;
    use crate::http::request::completion::CompletionRequest;

    fn failure<T: DeserializeOwned>(body: &str) -> Failure {
        match parse::<T>(body.as_bytes()) {
            Ok(_) => panic!("{body} was accepted"),
            Err(failure) => failure,
        }
    }

    #[test]
    fn bad_json_names_line_and_column() {
        let failure = failure::<ChatRequest>("{\n  \"model\": \"m\",\n  \"messages\" []}");
        assert_eq!(failure.code.as_deref(), Some("invalid_json"));
        assert!(failure.message.contains("line 3, column 14"), "{}", failure.message);
    }

    #[test]
    fn a_field_at_fault_is_named_by_its_path() {
        let chat = |rest: &str| failure::<ChatRequest>(&format!(r#"{{"model":"m","messages":[{rest}"#)).param;
        assert_eq!(chat(r#"],"temprature":1}"#).as_deref(), Some("temprature"));
        assert_eq!(chat(r#"],"temperature":"hot"}"#).as_deref(), Some("temperature"));
        assert_eq!(chat(r#"],"stop":[1]}"#).as_deref(), Some("stop[0]"));
        assert_eq!(
            chat(r#"],"stream_options":{"usage":true},"n":1}"#).as_deref(),
            Some("stream_options.usage")
        );
        assert_eq!(chat(r#"{"content":"x"}]}"#).as_deref(), Some("messages[0].role"));
        assert_eq!(chat(r#"{"role":"robot","content":"x"}]}"#).as_deref(), Some("messages[0].role"));
        assert_eq!(chat(r#"{"role":"user","contents":"x"}]}"#).as_deref(), Some("messages[0].contents"));
        assert_eq!(chat(r#"{"role":"user","content":3}]}"#).as_deref(), Some("messages[0].content"));
        assert_eq!(
            chat(r#"{"role":"user","content":[{"type":7}]}]}"#).as_deref(),
            Some("messages[0].content[0].type")
        );
        assert_eq!(failure::<ChatRequest>(r#"{"messages":[]}"#).param.as_deref(), Some("model"));
        assert_eq!(failure::<ChatRequest>(r#"{"model":"m","model":"m"}"#).param.as_deref(), Some("model"));
        let prompt = failure::<CompletionRequest>(r#"{"model":"m","prompt":[1,"a"]}"#);
        assert_eq!(prompt.param.as_deref(), Some("prompt[1]"));
    }

    #[test]
    fn a_body_is_one_object_and_nothing_after_it() {
        assert!(failure::<ChatRequest>("").message.contains("no body"));
        assert!(failure::<ChatRequest>(r#" ["m", []]"#).message.contains("array"));
        assert_eq!(
            failure::<ChatRequest>(r#"{"model":"m","messages":[]} x"#).code.as_deref(),
            Some("invalid_json")
        );
    }
}
