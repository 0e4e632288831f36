//! The Hub, and the cache on this machine.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hf_hub::api::tokio::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use reqwest::{RequestBuilder, Response, StatusCode, Url};

use super::error::PullError;
use super::listing::{LISTING_BYTES_MAX, Listing};
use super::part::disk_error;
use crate::bus::VERSION;
use crate::registry::Places;

/// How long to wait for an answer to begin, and for each of its pieces.
pub const PIECE_WITHIN: Duration = Duration::from_secs(30);

/// The wait before the second try; each later one is twice as long, up to [`WAIT_MAX`].
const WAIT: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(8);

/// What a try must bring to count as none that failed, in bytes.
const PROGRESS_BYTES: u64 = 16 << 20;

/// A Hub with its cache.
pub struct Hub {
    /// Asks; has the token.
    pub(super) api: Api,
    /// The cache's folder.
    pub(super) folder: PathBuf,
    pub(super) cache: Cache,
    endpoint: String,
    has_token: bool,
    is_offline: bool,
    retries: u32,
}

/// Tries that are left.
pub struct Tries {
    retries: u32,
    failed: u32,
}

impl Hub {
    /// As the environment says; hf-hub itself reads neither `HF_TOKEN` nor `HF_HUB_CACHE`.
    pub fn of_environment(places: &Places, retries: u32) -> anyhow::Result<Self> {
        Self::new(places, retries).map_err(PullError::into_command_error)
    }

    fn new(places: &Places, retries: u32) -> Result<Self, PullError> {
        let setting = |name, reason: String| PullError::Setting { name, reason };
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let folder = places.hub.clone();
        let folder = folder.ok_or_else(|| setting("HF_HOME", "nor HOME is set".to_owned()))?;
        let folder = std::path::absolute(&folder).map_err(|source| disk_error(&folder, source))?;
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        if !Url::parse(&endpoint).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            return Err(setting("HF_ENDPOINT", format!("`{endpoint}` is no http:// or https:// URL")));
        }
        let from_file = || std::fs::read_to_string(places.token_file.as_ref()?).ok();
        let token = variable("HF_TOKEN").or_else(from_file).map(|token| token.trim().to_owned());
        let token = token.filter(|token| !token.is_empty());
        let is_offline = variable("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str()));
        let has_token = token.is_some();
        let cache = Cache::new(folder.clone());
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(endpoint.clone())
            .with_token(token)
            .with_user_agent("tokenway", VERSION)
            .build()
            .map_err(|error| setting("HF_TOKEN", error.to_string()))?;
        Ok(Self { api, folder, cache, endpoint, has_token, is_offline, retries })
    }

    /// The files of a revision.
    pub async fn listing(&self, repository: &str, revision: &str) -> Result<Listing, PullError> {
        if self.is_offline {
            return Err(PullError::Offline(repository.to_owned()));
        }
        let what = format!("`{repository}` of revision `{revision}`");
        let mut tries = self.tries();
        loop {
            match self.listing_once(repository, revision, &what).await {
                // Without a connection to begin with, waiting is the user's to decide.
                Err(error) if error.is_transient() && !error.is_no_connection() => {
                    tries.failed(error, 0).await?;
                }
                Err(error) => return Err(error),
                Ok(json) => return Listing::read(repository, &json),
            }
        }
    }

    async fn listing_once(&self, repository: &str, revision: &str, what: &str) -> Result<Vec<u8>, PullError> {
        let request = self.api.repo(repo(repository, revision)).info_request();
        let mut response = self.get(request.query(&[("blobs", "true")]), what).await?;
        let mut json = Vec::new();
        while let Some(bytes) = Self::piece(&mut response, what).await? {
            if json.len() + bytes.len() > LISTING_BYTES_MAX {
                let reason = format!("its listing is longer than {} MiB", LISTING_BYTES_MAX >> 20);
                return Err(PullError::Listing { repository: repository.to_owned(), reason });
            }
            json.extend_from_slice(&bytes);
        }
        Ok(json)
    }

    /// Where a file of the commit is.
    pub(super) fn url(&self, listing: &Listing, path: &str) -> Result<Url, PullError> {
        let folder = self.api.repo(repo(&listing.repository, &listing.commit)).url("");
        let refused = || PullError::Setting { name: "HF_ENDPOINT", reason: format!("`{folder}` is no URL") };
        let mut url = Url::parse(&folder).map_err(|_| refused())?;
        // What has a meaning in URLs is escaped here; hf-hub escapes nothing.
        url.path_segments_mut().map_err(|()| refused())?.pop_if_empty().extend(path.split('/'));
        Ok(url)
    }

    /// The answer to a request that is not refused. A redirect to another host is followed without the token.
    pub(super) async fn get(&self, request: RequestBuilder, what: &str) -> Result<Response, PullError> {
        let response = tokio::time::timeout(PIECE_WITHIN, request.send()).await;
        let (endpoint, what) = (self.endpoint.clone(), what.to_owned());
        let response = match response {
            Err(_) => return Err(stalled(&what)),
            // The address may have a signature: it is left out.
            Ok(Err(source)) => return Err(PullError::Unreachable { endpoint, source: source.without_url() }),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let has_token = self.has_token;
                Err(PullError::Denied { endpoint, what, status: status.as_u16(), has_token })
            }
            StatusCode::NOT_FOUND => Err(PullError::NotFound { endpoint, what }),
            status if status.is_success() => Ok(response),
            status => Err(PullError::Status { endpoint, status: status.as_u16(), what }),
        }
    }

    /// The next piece of an answer; none at its end.
    pub(super) async fn piece(response: &mut Response, what: &str) -> Result<Option<Bytes>, PullError> {
        let piece = tokio::time::timeout(PIECE_WITHIN, response.chunk()).await;
        let broken = |source: reqwest::Error| PullError::Broken {
            what: what.to_owned(),
            source: source.without_url(),
        };
        piece.map_err(|_| stalled(what))?.map_err(broken)
    }

    pub(super) fn tries(&self) -> Tries {
        Tries { retries: self.retries, failed: 0 }
    }
}

impl Tries {
    /// Waits before the next try, unless this one was the last.
    pub async fn failed(&mut self, error: PullError, bytes: u64) -> Result<(), PullError> {
        if bytes >= PROGRESS_BYTES {
            self.failed = 0;
        }
        if self.failed == self.retries {
            return Err(error);
        }
        let wait = WAIT.saturating_mul(2_u32.saturating_pow(self.failed));
        tokio::time::sleep(wait.min(WAIT_MAX)).await;
        self.failed += 1;
        Ok(())
    }
}

/// A repository of models at this revision.
pub fn repo(repository: &str, revision: &str) -> Repo {
    Repo::with_revision(repository.to_owned(), RepoType::Model, revision.to_owned())
}

fn stalled(what: &str) -> PullError {
    PullError::Stalled { what: what.to_owned(), seconds: PIECE_WITHIN.as_secs() }
}
