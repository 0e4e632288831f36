//! Why there is no answer, or no more of one.

use std::fmt;
use std::time::Duration;

use reqwest::{Response, StatusCode, header};

use crate::generated::{ErrorBody, ErrorDetail};

/// How much is shown of a body that is not the gateway's own.
const FOREIGN_CHARS: usize = 300;

/// Why there is no answer, or no more of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base URL is not one.
    #[error("`{0}` is not an http:// or https:// URL")]
    BaseUrl(String),
    /// No connection could be made.
    #[error("no gateway at `{base}`")]
    Unreachable {
        /// Where it was looked for.
        base: String,
        /// Why there is none.
        source: reqwest::Error,
    },
    /// The request or its response did not come through.
    #[error(transparent)]
    Http(reqwest::Error),
    /// The gateway says why not.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The connection of a stream broke, and its rest was nowhere to be had in time.
    #[error("the answer broke off before its end")]
    BrokenOff(#[source] Option<Box<Error>>),
    /// A response is not as the API's document says.
    #[error("a response is not as documented")]
    Undocumented(#[source] serde_json::Error),
}

/// What the gateway says is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The response's status; none for a failure within a stream.
    pub status: Option<StatusCode>,
    /// One sentence for a person, naming the object and the limit.
    pub message: String,
    /// The family of the error, such as `invalid_request_error`; none when somebody else than a gateway answered, such as a
    /// proxy, whose words are the message then.
    pub kind: Option<String>,
    /// A word for programs, such as `context_length_exceeded`.
    pub code: Option<String>,
    /// The request field at fault, as a path such as `messages[0].content`.
    pub param: Option<String>,
    /// When to ask again, where the response says so.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// Whether the same may be answered soon: nobody was there, or not all of a pipeline.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Http(error) => !error.is_builder(),
            // 502 is a proxy's word for nobody there.
            Self::Api(error) => {
                matches!(error.status, Some(StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY))
            }
            Self::BaseUrl(_) | Self::BrokenOff(_) | Self::Undocumented(_) => false,
        }
    }
}

impl ApiError {
    /// What `response` says, whose status is none of success.
    pub(crate) async fn read(response: Response) -> Self {
        let status = response.status();
        let seconds =
            response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        // Without its body, the status is what is left to say.
        let body = response.text().await.unwrap_or_default();
        Self { retry_after: seconds.map(Duration::from_secs), ..Self::new(status, &body) }
    }

    pub(crate) fn new(status: StatusCode, body: &str) -> Self {
        let error = match serde_json::from_str::<ErrorBody>(body) {
            Ok(body) => Self::from(body.error),
            Err(_) => Self {
                status: None,
                message: body.trim().chars().take(FOREIGN_CHARS).collect(),
                kind: None,
                code: None,
                param: None,
                retry_after: None,
            },
        };
        Self { status: Some(status), ..error }
    }
}

impl From<ErrorDetail> for ApiError {
    fn from(detail: ErrorDetail) -> Self {
        let ErrorDetail { message, type_, code, param } = detail;
        Self { status: None, message, kind: Some(type_), code, param, retry_after: None }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status, &self.kind) {
            (Some(status), Some(_)) => write!(f, "{} ({status})", self.message),
            (Some(status), None) => write!(f, "{status}: {}", self.message),
            (None, _) => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateways_words_come_before_the_status_and_others_after_it() {
        let body = r#"{"error":{"message":"unknown model `x`","type":"invalid_request_error","param":"model","code":null}}"#;
        let error = ApiError::new(StatusCode::NOT_FOUND, body);
        assert_eq!(error.to_string(), "unknown model `x` (404 Not Found)");
        assert_eq!((error.param.as_deref(), error.code), (Some("model"), None));
        assert_eq!(ApiError::new(StatusCode::BAD_GATEWAY, "oops\n").to_string(), "502 Bad Gateway: oops");
    }
}
