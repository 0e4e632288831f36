//! Payloads of responses, written by serde and documented by their poem-openapi schema.

use std::marker::PhantomData;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use poem::http::StatusCode;
use poem::{Body, IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::payload::Payload;
use poem_openapi::registry::{
    MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry,
};
use poem_openapi::types::Type;
use schemas::StreamId;
use serde::Serialize;

use crate::http::streams::STREAM_ID;

/// One JSON document.
#[derive(Debug, Clone)]
pub struct Reply<T>(pub T);

impl<T: Type> Payload for Reply<T> {
    const CONTENT_TYPE: &'static str = "application/json";

    fn schema_ref() -> MetaSchemaRef {
        T::schema_ref()
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Type + Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(json) => Response::builder().content_type(Self::CONTENT_TYPE).body(json),
            Err(error) => {
                tracing::error!(%error, "a response cannot be written as JSON");
                StatusCode::INTERNAL_SERVER_ERROR.into()
            }
        }
    }
}

impl<T: Type + Serialize> ApiResponse for Reply<T> {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "The answer.",
                status: Some(200),
                status_range: None,
                content: vec![MetaMediaType { content_type: Self::CONTENT_TYPE, schema: Self::schema_ref() }],
                headers: Vec::new(),
            }],
        }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// Server-sent events, each with one `T` as JSON, the last one `[DONE]`.
pub struct Events<T> {
    body: Body,
    stream: Option<StreamId>,
    event: PhantomData<fn() -> T>,
}

impl<T> Events<T> {
    /// Sends what `events` yields, pulled only while the client reads; `stream` is their name in the journal.
    pub fn new(stream: Option<StreamId>, events: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        let body = Body::from_bytes_stream(events.map(Ok::<_, std::io::Error>));
        Self { body, stream, event: PhantomData }
    }
}

impl<T: Type> Payload for Events<T> {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            items: Some(Box::new(T::schema_ref())),
            ..MetaSchema::new_with_format("array", "event-stream")
        }))
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

impl<T: Type> IntoResponse for Events<T> {
    fn into_response(self) -> Response {
        let mut response = Response::builder()
            .content_type(Self::CONTENT_TYPE)
            .header("cache-control", "no-cache")
            .header("x-accel-buffering", "no");
        if let Some(stream) = self.stream {
            response = response.header(STREAM_ID, stream.to_string());
        }
        response.body(self.body)
    }
}
