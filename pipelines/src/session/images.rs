//! The images of one request: in the blob store for as long as an answer to it is open.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use schemas::Failure;
use schemas::request::{BlobRef, Image};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::bus::Bus;
use crate::owned::{self, Owned};

/// Blobs that may wait for their deletion; beyond that their age deletes them.
const DISCARDED_MAX: usize = 1024;
/// How long the images of a stream stay whose client has left: well within the time in which clients connect again.
const STAY_FOR: Duration = Duration::from_secs(60);

/// An image as a door takes it in.
#[derive(Debug, Clone)]
pub struct AskImage {
    /// The file.
    pub file: Bytes,
    /// Width in pixels, after the rotation that the file asks for.
    pub width: u32,
    /// Height in pixels, after that rotation.
    pub height: u32,
    /// The request field that it came in.
    pub field: String,
}

/// Images that were stored; they are deleted when this is dropped, or [a while after](Self::stay).
///
/// The files are kept here too: the blob store is in the broker's memory, and a broker that starts anew has lost them.
#[derive(Debug)]
pub struct Images {
    stored: Vec<(Image, Bytes)>,
    /// Whether they stay in the store for a while when this is dropped.
    stay: AtomicBool,
    discards: Discards,
}

impl Images {
    /// The images as stages find them.
    pub fn refs(&self) -> Vec<Image> {
        self.stored.iter().map(|(image, _)| image.clone()).collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }

    /// Adds the files to a hash, without their owner.
    pub(super) fn hash_into(&self, hasher: &mut blake3::Hasher) {
        for file in self.stored.iter().filter_map(|(_, content)| owned::content(content)) {
            hasher.update(blake3::hash(&file).as_bytes());
        }
    }

    pub(super) fn new(images: &[AskImage], discards: Discards) -> Self {
        let owner: u128 = rand::random();
        let stored = images.iter().zip(0..).map(|(image, part)| {
            let mut owned = Owned::new(owner, part, image.file.len());
            owned.content().extend_from_slice(&image.file);
            let (file, content) = owned.into_blob();
            let (width, height, field) = (image.width, image.height, image.field.clone());
            (Image { file, width, height, field }, content)
        });
        Self { stored: stored.collect(), stay: AtomicBool::new(false), discards }
    }

    /// Says whether they stay in the store for [`STAY_FOR`] when this is dropped: for a client that comes back.
    pub fn stay(&self, stay: bool) {
        self.stay.store(stay, Ordering::Relaxed);
    }

    /// Puts into the store what is not there.
    pub(super) async fn store(&self, bus: &Bus) -> Result<(), Failure> {
        for (image, content) in &self.stored {
            bus.store(image.file, content).await?;
        }
        Ok(())
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        let now = Instant::now();
        let (discards, due) = match *self.stay.get_mut() {
            true => (&self.discards.later, now + STAY_FOR),
            false => (&self.discards.now, now),
        };
        for (image, _) in &self.stored {
            // A full channel leaves the blob to its age.
            let _ = discards.try_send((image.file, due));
        }
    }
}

/// The ways of blobs to their deletion. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Discards {
    now: mpsc::Sender<(BlobRef, Instant)>,
    later: mpsc::Sender<(BlobRef, Instant)>,
}

impl Discards {
    /// Deletes on `bus` what is discarded, until the last clone has gone.
    pub(super) fn new(bus: &Bus) -> Self {
        let start = || {
            let (discards, discarded) = mpsc::channel(DISCARDED_MAX);
            tokio::spawn(delete_all(bus.clone(), discarded));
            discards
        };
        Self { now: start(), later: start() }
    }
}

/// Deletes each blob when it is due; they come in that order.
async fn delete_all(bus: Bus, mut discarded: mpsc::Receiver<(BlobRef, Instant)>) {
    while let Some((blob, due)) = discarded.recv().await {
        tokio::time::sleep_until(due).await;
        if let Err(error) = bus.delete(blob).await {
            tracing::debug!(%error, "delete an image");
        }
    }
}
