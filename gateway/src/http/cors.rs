//! Which web pages of other origins may call this door.

use std::str::FromStr;
use std::sync::Arc;

use poem::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, IntoResponse, Request, Response};

/// How long a browser may remember a preflight, in seconds.
const MAX_AGE_SECONDS: &str = "86400";

/// The origin that may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Every one.
    Any,
    /// This one.
    One(HeaderValue),
}

/// A text that is neither `*` nor an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnOrigin(String);

impl std::fmt::Display for NotAnOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is neither `*` nor an origin such as `https://example.org`", self.0)
    }
}

impl std::error::Error for NotAnOrigin {}

impl FromStr for Origin {
    type Err = NotAnOrigin;

    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let wrong = || NotAnOrigin(text.to_owned());
        if text == "*" {
            return Ok(Self::Any);
        }
        let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
        if !["http", "https"].contains(&scheme) || host.is_empty() || host.contains('/') {
            return Err(wrong());
        }
        text.parse().map(Self::One).map_err(|_| wrong())
    }
}

impl Origin {
    /// What to allow a page of `origin`; none when it may not call.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::One(allowed) => (allowed == origin).then(|| allowed.clone()),
        }
    }
}

/// Answers preflights and marks answers for pages of the allowed origin. The browser enforces it: a request from
/// another origin is served, too, but its page cannot read the answer.
pub async fn allow_origin<E: Endpoint>(next: Arc<E>, request: Request) -> poem::Result<Response> {
    let allowed = match (request.data::<Option<Origin>>(), request.headers().get(header::ORIGIN)) {
        (Some(Some(allowed)), Some(origin)) => allowed.allow(origin),
        _ => None,
    };
    let Some(origin) = allowed else {
        return next.call(request).await.map(IntoResponse::into_response);
    };
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if is_preflight {
        let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        let mut response: Response = StatusCode::NO_CONTENT.into();
        let headers = response.headers_mut();
        put(headers, header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST"));
        put(headers, header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_SECONDS));
        if let Some(asked) = asked {
            put(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
        }
        mark(headers, origin);
        return Ok(response);
    }
    let mut response = next.call(request).await?.into_response();
    let exposed = HeaderValue::from_static("x-request-id, x-stream-id, retry-after");
    put(response.headers_mut(), header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    mark(response.headers_mut(), origin);
    Ok(response)
}

fn mark(headers: &mut HeaderMap, origin: HeaderValue) {
    put(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

fn put(headers: &mut HeaderMap, name: header::HeaderName, value: HeaderValue) {
    headers.insert(name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_star_or_scheme_and_host() {
        assert_eq!("*".parse(), Ok(Origin::Any));
        assert!(matches!("https://example.org:8443".parse(), Ok(Origin::One(_))));
        for wrong in ["", "example.org", "ftp://example.org", "https://example.org/", "https://"] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }
}
