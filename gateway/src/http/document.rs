//! The OpenAPI document, made from the operations' types alone: no bus is needed to print it.

use std::collections::HashMap;

use poem::endpoint::BoxEndpoint;
use poem::http::Method;
use poem_openapi::registry::{MetaApi, Registry};
use poem_openapi::{LicenseObject, OpenApi, OpenApiService};

use crate::http::api::Api;

/// The API's name.
pub const TITLE: &str = "tokenway";
/// The API's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The document.
pub fn json() -> String {
    service().spec()
}

/// A page that shows it, with everything it needs inside.
pub fn page() -> String {
    service().swagger_ui_html()
}

fn service() -> OpenApiService<Described, ()> {
    OpenApiService::new(Described, TITLE, VERSION)
        .description("Language models, served as a pipeline on a message bus, in OpenAI's dialect.")
        .license(LicenseObject::new("Apache-2.0"))
        .server("/")
}

/// The operations of [`Api`] without what serves them.
struct Described;

impl OpenApi for Described {
    fn meta() -> Vec<MetaApi> {
        Api::meta()
    }

    fn register(registry: &mut Registry) {
        Api::register(registry);
    }

    fn add_routes(self, _routes: &mut HashMap<String, HashMap<Method, BoxEndpoint<'static>>>) {}
}

#[cfg(test)]
mod tests {
    use pipelines::session::Piece;
    use schemas::Failure;
    use schemas::chunk::TokenLogprob;
    use schemas::token::Finish;
    use serde_json::Value;

    use super::*;
    use crate::http::answer::chat::ChatDialect;
    use crate::http::answer::completion::CompletionDialect;
    use crate::http::answer::dialect::{Dialect, Head};
    use crate::http::answer::usage::Usage;
    use crate::http::collect::Whole;
    use crate::http::failure::ErrorBody;
    use crate::http::request::limits::{self, Range};

    fn document() -> Value {
        serde_json::from_str(&json()).unwrap()
    }

    #[test]
    fn every_operation_has_an_id_and_a_tag_and_every_field_a_description() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(paths.len(), 8);
        for operation in paths.values().flat_map(|path| path.as_object().unwrap().values()) {
            assert!(operation["operationId"].is_string() && operation["tags"].is_array(), "{operation}");
        }
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            assert!(schema["description"].is_string(), "{name}");
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                assert!(property["description"].is_string(), "{name}.{field}");
            }
        }
    }

    #[test]
    fn a_stream_is_documented_beside_the_whole_answer() {
        let document = document();
        let content = &document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"];
        assert_eq!(content["application/json"]["schema"]["$ref"], "#/components/schemas/ChatCompletion");
        let event = &content["text/event-stream"]["schema"]["items"]["$ref"];
        assert_eq!(event, "#/components/schemas/ChatCompletionChunk");
    }

    #[test]
    fn documented_ranges_are_those_that_are_checked() {
        let document = document();
        let schemas = &document["components"]["schemas"];
        let shared = [
            ("max_tokens", limits::MAX_TOKENS),
            ("temperature", limits::TEMPERATURE),
            ("top_p", limits::TOP_P),
            ("top_k", limits::TOP_K),
            ("min_p", limits::MIN_P),
            ("n", limits::CHOICES),
            ("presence_penalty", limits::PENALTY),
            ("frequency_penalty", limits::PENALTY),
            ("repetition_penalty", limits::REPETITION),
        ];
        let check = |request: &str, field: &str, range: Range| {
            let property = &schemas[request]["properties"][field];
            assert_eq!(property["minimum"], range.min, "{request}.{field}");
            assert_eq!(property["maximum"], range.max, "{request}.{field}");
            assert_eq!(property["exclusiveMinimum"] == true, range.above, "{request}.{field}");
        };
        for request in ["ChatRequest", "CompletionRequest"] {
            for (field, range) in shared {
                check(request, field, range);
            }
            let properties = &schemas[request]["properties"];
            assert_eq!(properties["stop_token_ids"]["maxItems"], limits::STOP_IDS_MAX);
            assert_eq!(properties["logit_bias"]["maxProperties"], limits::BIASES_MAX);
        }
        check("ChatRequest", "max_completion_tokens", limits::MAX_TOKENS);
        check("ChatRequest", "top_logprobs", limits::LOGPROBS);
        check("CompletionRequest", "logprobs", limits::LOGPROBS);
        check("CompletionRequest", "best_of", limits::CHOICES);
    }

    /// Every key of `value` is documented, every required property is there.
    fn assert_documented(value: &Value, schema: &Value, document: &Value) {
        let reference = schema.get("$ref").or_else(|| schema["allOf"][0].get("$ref")).and_then(Value::as_str);
        if let Some(reference) = reference {
            return assert_documented(value, document.pointer(&reference[1..]).unwrap(), document);
        }
        match value {
            Value::Object(fields) if schema["properties"].is_object() => {
                for (name, field) in fields {
                    let property =
                        schema["properties"].get(name).unwrap_or_else(|| panic!("{name} in {schema}"));
                    assert_documented(field, property, document);
                }
                for required in schema["required"].as_array().into_iter().flatten() {
                    assert!(fields.contains_key(required.as_str().unwrap()), "{required} in {value}");
                }
            }
            Value::Array(items) => {
                items.iter().for_each(|item| assert_documented(item, &schema["items"], document))
            }
            _ => {}
        }
    }

    #[test]
    fn answers_are_as_documented() {
        let document = document();
        let logprobs =
            vec![TokenLogprob { bytes: b"a".to_vec(), logprob: -1.0, top: vec![(b"a".to_vec(), -1.0)] }];
        let piece = || Piece {
            text: "a".into(),
            ids: vec![1],
            logprobs: logprobs.clone(),
            finish: Some(Finish::Stop),
        };
        let whole = || vec![Whole { text: "a".into(), logprobs: logprobs.clone(), finish: Finish::Stop }];
        let head = || Head { id: "i".into(), created: 1, model: "m".into(), fingerprint: "f".into() };
        let mut chat = ChatDialect::new(head(), 1, true, true);
        let mut completion = CompletionDialect::new(head(), vec![Some("p".into())], true, true);
        let values = [
            ("ChatCompletionChunk", serde_json::to_value(chat.event(0, piece()).unwrap())),
            ("ChatCompletionChunk", serde_json::to_value(chat.usage(Usage::new(1, 1)))),
            ("ChatCompletion", serde_json::to_value(chat.document(whole(), Usage::new(1, 1)))),
            ("CompletionChunk", serde_json::to_value(completion.event(0, piece()).unwrap())),
            ("CompletionChunk", serde_json::to_value(completion.usage(Usage::new(1, 1)))),
            ("Completion", serde_json::to_value(completion.document(whole(), Usage::new(1, 1)))),
            ("ErrorBody", serde_json::to_value(ErrorBody::from(Failure::invalid("p", "m").with_code("c")))),
        ];
        for (name, value) in values {
            let value = value.unwrap();
            assert!(!value.as_object().unwrap().is_empty());
            assert_documented(&value, &document["components"]["schemas"][name], &document);
        }
    }
}
