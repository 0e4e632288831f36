//! The images of one request: in the blob store for as long as an answer to it is open.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use schemas::Failure;
use schemas::request::{BlobRef, Image};
use tokio::sync::mpsc;

use crate::bus::Bus;
use crate::owned::Owned;

/// Blobs that may wait for their deletion; beyond that their age deletes them.
const DISCARDED_MAX: usize = 1024;

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

/// Images that were stored; they are deleted when this is dropped, unless they [stay](Self::stay).
///
/// The files are kept here too: the blob store is in the broker's memory, and a broker that starts anew has lost them.
#[derive(Debug)]
pub struct Images {
    /// Without content where another door has stored them.
    stored: Vec<(Image, Option<Bytes>)>,
    /// Whether they stay in the store when this is dropped, until their age deletes them.
    stay: AtomicBool,
    discarded: mpsc::Sender<BlobRef>,
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

    pub(super) fn new(images: &[AskImage], discarded: mpsc::Sender<BlobRef>) -> Self {
        let owner: u128 = rand::random();
        let stored = images.iter().zip(0..).map(|(image, part)| {
            let mut owned = Owned::new(owner, part, image.file.len());
            owned.content().extend_from_slice(&image.file);
            let (file, content) = owned.into_blob();
            let (width, height, field) = (image.width, image.height, image.field.clone());
            (Image { file, width, height, field }, Some(content))
        });
        Self { stored: stored.collect(), stay: AtomicBool::new(false), discarded }
    }

    /// Images that another door has stored.
    pub(super) fn adopted(images: &[Image], discarded: mpsc::Sender<BlobRef>) -> Self {
        let stored = images.iter().map(|image| (image.clone(), None)).collect();
        Self { stored, stay: AtomicBool::new(false), discarded }
    }

    /// Says whether they stay in the store when this is dropped: for a client that comes back.
    pub fn stay(&self, stay: bool) {
        self.stay.store(stay, Ordering::Relaxed);
    }

    /// Puts into the store what is not there.
    pub(super) async fn store(&self, bus: &Bus) -> Result<(), Failure> {
        for (image, content) in &self.stored {
            if let Some(content) = content {
                bus.store(image.file, content).await?;
            }
        }
        Ok(())
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        if *self.stay.get_mut() {
            return;
        }
        for (image, _) in &self.stored {
            // A full channel leaves the blob to its age.
            let _ = self.discarded.try_send(image.file);
        }
    }
}

/// The way of blobs to their deletion.
pub(super) fn discards() -> (mpsc::Sender<BlobRef>, mpsc::Receiver<BlobRef>) {
    mpsc::channel(DISCARDED_MAX)
}

/// Deletes what is discarded, until the last sender has gone.
pub(super) async fn delete_all(bus: Bus, mut discarded: mpsc::Receiver<BlobRef>) {
    while let Some(blob) = discarded.recv().await {
        if let Err(error) = bus.delete(blob).await {
            tracing::debug!(%error, "delete an image");
        }
    }
}
