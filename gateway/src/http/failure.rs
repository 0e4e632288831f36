//! Failure → HTTP: the only place that knows statuses, and the body that OpenAI's clients expect with them.

use std::sync::Arc;

use poem::error::{MethodNotAllowedError, NotFoundError};
use poem::http::{HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, IntoResponse, Request, Response};
use poem_openapi::{ApiResponse, Object};
use schemas::{Failure, FailureKind};
use serde::Serialize;

use crate::http::reply::Reply;

/// When an overloaded door may be asked again, if nothing better is known.
const RETRY_AFTER_SECONDS: u32 = 1;

/// OpenAI's error body.
#[derive(Debug, Clone, Object, Serialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, Object, Serialize)]
pub struct ErrorDetail {
    /// One sentence for a person, naming the object and the limit.
    pub message: String,
    /// The family of the error: `invalid_request_error`, `rate_limit_error`, `cancelled_error` or `server_error`.
    #[oai(rename = "type")]
    #[serde(rename = "type")]
    pub kind: String,
    /// The request field at fault, as a path such as `messages[0].content`.
    #[oai(nullable)]
    pub param: Option<String>,
    /// A word for programs, e.g. `context_length_exceeded`.
    #[oai(nullable)]
    pub code: Option<String>,
}

/// An answer that says why there is none.
#[derive(Debug, Clone, ApiResponse)]
pub enum Refusal {
    /// The request breaks a rule; the same request will fail again.
    #[oai(status = 400)]
    Invalid(Reply<ErrorBody>),
    /// The gateway wants an API key and got none, or an unknown one.
    #[oai(status = 401)]
    Unauthorized(Reply<ErrorBody>),
    /// The model does not exist.
    #[oai(status = 404)]
    NotFound(Reply<ErrorBody>),
    /// The body did not arrive in time.
    #[oai(status = 408)]
    Timeout(Reply<ErrorBody>),
    /// The body is over the limit.
    #[oai(status = 413)]
    TooLarge(Reply<ErrorBody>),
    /// The body is not `application/json`.
    #[oai(status = 415)]
    UnsupportedMedia(Reply<ErrorBody>),
    /// The queue is full; later it may pass.
    #[oai(status = 429)]
    Overloaded(
        Reply<ErrorBody>,
        /// Seconds to wait before trying again.
        #[oai(header = "Retry-After")]
        u32,
    ),
    /// The client left.
    #[oai(status = 499)]
    Cancelled(Reply<ErrorBody>),
    /// A fault of ours.
    #[oai(status = 500)]
    Internal(Reply<ErrorBody>),
    /// A part of the pipeline is not there, or went away.
    #[oai(status = 503)]
    Unavailable(Reply<ErrorBody>),
    /// The request's time ran out.
    #[oai(status = 504)]
    DeadlineExceeded(Reply<ErrorBody>),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let kind = failure.kind;
        let retry_after = failure.retry_after.unwrap_or(RETRY_AFTER_SECONDS);
        let body = Reply(ErrorBody::from(failure));
        match kind {
            FailureKind::Invalid => Self::Invalid(body),
            FailureKind::NotFound => Self::NotFound(body),
            FailureKind::TooLarge => Self::TooLarge(body),
            FailureKind::DeadlineExceeded => Self::DeadlineExceeded(body),
            FailureKind::Cancelled => Self::Cancelled(body),
            FailureKind::Overloaded => Self::Overloaded(body, retry_after),
            FailureKind::Unavailable => Self::Unavailable(body),
            FailureKind::Internal => Self::Internal(body),
        }
    }
}

impl From<Failure> for ErrorBody {
    fn from(failure: Failure) -> Self {
        let kind = match failure.kind {
            FailureKind::Invalid | FailureKind::NotFound | FailureKind::TooLarge => "invalid_request_error",
            FailureKind::Overloaded => "rate_limit_error",
            FailureKind::Cancelled => "cancelled_error",
            FailureKind::DeadlineExceeded | FailureKind::Unavailable | FailureKind::Internal => {
                "server_error"
            }
        };
        Self {
            error: ErrorDetail {
                message: failure.message,
                kind: kind.to_owned(),
                param: failure.param,
                code: failure.code,
            },
        }
    }
}

impl Refusal {
    /// The request has no API key, or an unknown one.
    pub fn unauthorized(message: &str) -> Self {
        let failure = Failure::new(FailureKind::Invalid, message).with_code("invalid_api_key");
        Self::Unauthorized(Reply(failure.into()))
    }

    /// The body has another content type than JSON.
    pub fn unsupported_media(message: String) -> Self {
        let failure = Failure::new(FailureKind::Invalid, message).with_code("unsupported_media_type");
        Self::UnsupportedMedia(Reply(failure.into()))
    }

    /// The body did not arrive in time.
    pub fn timeout(message: &str) -> Self {
        let failure = Failure::new(FailureKind::Invalid, message).with_code("request_timeout");
        Self::Timeout(Reply(failure.into()))
    }
}

/// Turns every error of the layers below, poem's own included, into a response with OpenAI's error body.
pub async fn answer_errors<E: Endpoint>(next: Arc<E>, request: Request) -> poem::Result<Response> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    match next.call(request).await {
        Ok(response) => Ok(response.into_response()),
        Err(error) if error.is_from_response() => Ok(error.into_response()),
        Err(error) => Ok(from_error(&error, &method, &path)),
    }
}

fn from_error(error: &poem::Error, method: &Method, path: &str) -> Response {
    let status = error.status();
    let failure = if error.is::<NotFoundError>() {
        Failure::new(FailureKind::NotFound, format!("`{path}` does not exist")).with_code("unknown_url")
    } else if error.is::<MethodNotAllowedError>() {
        Failure::new(FailureKind::Invalid, format!("`{path}` does not answer {method}"))
            .with_code("method_not_allowed")
    } else if status.is_client_error() {
        Failure::new(FailureKind::Invalid, error.to_string())
    } else {
        tracing::error!(%error, "request failed");
        Failure::new(FailureKind::Internal, "the gateway failed")
    };
    let mut response = Reply(ErrorBody::from(failure)).into_response();
    response.set_status(status);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        let allowed = if path.ends_with("/completions") { "POST" } else { "GET, HEAD" };
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_status() {
        let expected = [
            (FailureKind::Invalid, 400),
            (FailureKind::NotFound, 404),
            (FailureKind::TooLarge, 413),
            (FailureKind::DeadlineExceeded, 504),
            (FailureKind::Cancelled, 499),
            (FailureKind::Overloaded, 429),
            (FailureKind::Unavailable, 503),
            (FailureKind::Internal, 500),
        ];
        for (kind, status) in expected {
            let response = Refusal::from(Failure::new(kind, "m")).into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), kind == FailureKind::Overloaded);
        }
    }
}
