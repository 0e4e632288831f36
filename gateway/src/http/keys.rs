//! Bearer keys: who may use `/v1`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use poem::http::{HeaderValue, header};
use poem::{Endpoint, IntoResponse, Request, Response};

use crate::http::failure::Refusal;

/// The keys that are accepted. Only their hashes are kept.
#[derive(Debug, Clone)]
pub struct ApiKeys(Arc<[blake3::Hash]>);

impl ApiKeys {
    /// Reads `file`: one key a line; empty lines and lines that begin with `#` are skipped.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("keys `{}`", file.display()))?;
        let keys = Self::parse(&text);
        anyhow::ensure!(!keys.0.is_empty(), "keys `{}` has no key in it", file.display());
        Ok(keys)
    }

    /// The keys in `text`, one a line.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|key| blake3::hash(key.as_bytes())).collect())
    }

    /// Whether `key` is one of them, in a time that depends on neither: hashes compare in constant time, all of them.
    fn contains(&self, key: &str) -> bool {
        let hash = blake3::hash(key.as_bytes());
        self.0.iter().fold(false, |found, known| found | (*known == hash))
    }

    fn check(&self, request: &Request) -> Result<(), Refusal> {
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(header) = header else {
            return Err(Refusal::unauthorized("an API key is needed: `Authorization: Bearer KEY`"));
        };
        match header.split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") && self.contains(key.trim()) => {
                Ok(())
            }
            _ => Err(Refusal::unauthorized("the API key is not known")),
        }
    }
}

/// Refuses requests under `/v1` without a known key, when the server has keys.
pub async fn require_key<E: Endpoint>(next: Arc<E>, request: Request) -> poem::Result<Response> {
    let is_guarded = request.uri().path().starts_with("/v1/");
    let checked = match request.data::<Option<ApiKeys>>() {
        Some(Some(keys)) if is_guarded => keys.check(&request),
        _ => Ok(()),
    };
    match checked {
        Ok(()) => next.call(request).await.map(IntoResponse::into_response),
        Err(refusal) => {
            let mut response = refusal.into_response();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            Ok(response)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_keys_are_known() {
        let keys = ApiKeys::parse("# ours\nalpha\n\n  beta  \n");
        assert_eq!(keys.0.len(), 2);
        assert!(keys.contains("alpha") && keys.contains("beta"));
        assert!(!keys.contains("alph") && !keys.contains("") && !keys.contains("# ours"));
    }
}
