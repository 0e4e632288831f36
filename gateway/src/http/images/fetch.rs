//! Images on other hosts: only those on the allow-list, within a time and a size.
//!
//! A host on the list may be anywhere, for the operator named it. One of a zone on the list (`*.example.org`), and whatever is
//! redirected to, must be on the public internet: a list is no way into the networks behind this machine.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url, header};

use super::Fault;
use super::hosts::{Hosts, Way, is_public};

/// From the first request to the last byte, redirects included.
const FETCH_DEADLINE: Duration = Duration::from_secs(10);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
const REDIRECTS_MAX: usize = 3;
/// Longest URL; data URLs are no URLs to fetch.
const URL_BYTES_MAX: usize = 2048;

/// Fetches from allowed hosts.
#[derive(Clone)]
pub struct Fetcher {
    hosts: Arc<Hosts>,
    /// For hosts that the operator named.
    named: Client,
    /// For hosts that nobody named: resolves to public addresses only.
    public: Client,
}

impl Fetcher {
    /// Fetches from `hosts` only.
    pub fn new(hosts: Hosts) -> anyhow::Result<Self> {
        let client = || {
            Client::builder()
                .redirect(Policy::none())
                .connect_timeout(CONNECT_DEADLINE)
                .timeout(FETCH_DEADLINE)
                // A proxy would resolve names itself.
                .no_proxy()
                .user_agent("tokenway")
        };
        let public = client().dns_resolver(Arc::new(PublicOnly)).build().context("HTTP client")?;
        Ok(Self { hosts: Arc::new(hosts), named: client().build().context("HTTP client")?, public })
    }

    /// The content of `url`, of at most `bytes_max`.
    pub async fn fetch(&self, url: &str, bytes_max: u64) -> Result<Bytes, Fault> {
        if url.len() > URL_BYTES_MAX {
            return Err(Fault::Invalid(format!(
                "is a URL of {} bytes, the limit is {URL_BYTES_MAX}",
                url.len()
            )));
        }
        let url = url.parse().map_err(|error| Fault::Invalid(format!("is not a URL: {error}")))?;
        match tokio::time::timeout(FETCH_DEADLINE, self.follow(url, bytes_max)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(Fault::NotFetched(format!("did not arrive within {FETCH_DEADLINE:?}"))),
        }
    }

    async fn follow(&self, mut url: Url, bytes_max: u64) -> Result<Bytes, Fault> {
        for hop in 0..=REDIRECTS_MAX {
            let Some(way) = self.hosts.way_to(&url) else {
                let text = "is neither a data URL nor on a host that this gateway fetches images from";
                return Err(Fault::NotFetched(text.to_owned()));
            };
            let anywhere = hop == 0 && way == Way::Anywhere;
            if !anywhere && literal_address(&url).is_some_and(|address| !is_public(address)) {
                return Err(Fault::NotFetched("leads to an address that is not public".to_owned()));
            }
            let client = if anywhere { &self.named } else { &self.public };
            let response = client.get(url.clone()).send().await.map_err(|error| not_fetched(&error))?;
            match redirect(&url, &response)? {
                Some(next) => url = next,
                None => return read(response, bytes_max).await,
            }
        }
        Err(Fault::NotFetched(format!("redirects more than {REDIRECTS_MAX} times")))
    }
}

fn literal_address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn redirect(url: &Url, response: &Response) -> Result<Option<Url>, Fault> {
    if !response.status().is_redirection() {
        return Ok(None);
    }
    let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    let next = location.and_then(|location| url.join(location).ok());
    next.map(Some).ok_or_else(|| Fault::NotFetched("redirects to nowhere".to_owned()))
}

async fn read(mut response: Response, bytes_max: u64) -> Result<Bytes, Fault> {
    if !response.status().is_success() {
        return Err(Fault::NotFetched(format!("was answered with status {}", response.status().as_u16())));
    }
    let too_large =
        |bytes: u64| Fault::TooLarge(format!("has {bytes} bytes or more, the limit is {bytes_max}"));
    if let Some(length) = response.content_length().filter(|length| *length > bytes_max) {
        return Err(too_large(length));
    }
    let mut content = BytesMut::new();
    while let Some(part) = response.chunk().await.map_err(|error| not_fetched(&error))? {
        content.extend_from_slice(&part);
        if content.len() as u64 > bytes_max {
            return Err(too_large(content.len() as u64));
        }
    }
    Ok(content.freeze())
}

/// Without the URL, which the client knows, and without what only an operator should read.
fn not_fetched(error: &reqwest::Error) -> Fault {
    tracing::info!(%error, "image not fetched");
    let what = if error.is_timeout() {
        "did not arrive in time"
    } else if error.is_connect() {
        "is on a host that cannot be reached"
    } else {
        "could not be fetched"
    };
    Fault::NotFetched(what.to_owned())
}

/// Resolves names as the system does, and leaves out what is not public.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err("no public address".into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}
