//! Images of a request: from a data URL or an allowed host, looked at before anything of the pipeline hears of them.

pub mod data_url;
pub mod fetch;
pub mod header;
pub mod hosts;

use bytes::Bytes;
use futures_util::future::try_join_all;
use pipelines::record::{ImageLimits, Record};
use pipelines::session::AskImage;
use schemas::{Failure, FailureKind};

use crate::http::request::message::ImagePart;
use fetch::Fetcher;
use hosts::Hosts;

/// Takes the images of requests in.
#[derive(Clone)]
pub struct Intake {
    fetcher: Fetcher,
}

impl Intake {
    /// Fetches from `hosts` and from nowhere else.
    pub fn new(hosts: Hosts) -> anyhow::Result<Self> {
        Ok(Self { fetcher: Fetcher::new(hosts)? })
    }

    /// The files behind `parts`, each within the limits of the pipeline of `record`.
    pub async fn take(&self, parts: &[ImagePart<'_>], record: &Record) -> Result<Vec<AskImage>, Failure> {
        let Some(first) = parts.first() else { return Ok(Vec::new()) };
        let Some(limits) = record.images else {
            let message =
                format!("`{}` is an image, but the model `{}` takes text only", first.field, record.model);
            return Err(Failure::invalid(first.field.clone(), message).with_code("unsupported_content"));
        };
        if parts.len() > limits.count as usize {
            let message =
                format!("`messages` has {} images, at most {} are allowed", parts.len(), limits.count);
            return Err(Failure::invalid("messages", message).with_code("too_many_images"));
        }
        try_join_all(parts.iter().map(|part| self.take_one(part, limits))).await
    }

    async fn take_one(&self, part: &ImagePart<'_>, limits: ImageLimits) -> Result<AskImage, Failure> {
        let file: Bytes = match data_url::decode(part.url, limits.bytes) {
            Some(decoded) => decoded.map_err(|fault| fault.failure(&part.field))?,
            None => self
                .fetcher
                .fetch(part.url, limits.bytes)
                .await
                .map_err(|fault| fault.failure(&part.field))?,
        };
        let (width, height) =
            header::read(&file, limits.pixels).map_err(|fault| fault.failure(&part.field))?;
        Ok(AskImage { file, width, height, field: part.field.clone() })
    }
}

/// What is wrong with one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Over a limit, which the text names.
    TooLarge(String),
    /// Not what it should be.
    Invalid(String),
    /// Not to be had.
    NotFetched(String),
}

impl Fault {
    /// The failure of a request whose `field` has this fault. The texts go on where the field's name ends.
    fn failure(self, field: &str) -> Failure {
        let (kind, code, text) = match self {
            Self::TooLarge(text) => (FailureKind::TooLarge, "image_too_large", text),
            Self::Invalid(text) => (FailureKind::Invalid, "invalid_image", text),
            Self::NotFetched(text) => (FailureKind::Invalid, "invalid_image_url", text),
        };
        let failure = Failure::new(kind, format!("`{field}` {text}")).with_code(code);
        Failure { param: Some(field.to_owned()), ..failure }
    }
}
