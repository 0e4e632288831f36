//! Door → doors: a prompt that ends whoever serves it.

use rkyv::{Archive, Deserialize, Serialize};

use crate::{Edge, Fingerprint};

/// No door may admit this prompt for a while.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quarantined {
    /// The pipeline.
    pub fp: Fingerprint,
    /// BLAKE3 of the prompt and its images.
    pub prompt: [u8; 32],
}

impl Edge for Quarantined {
    const KIND: u16 = 13;
}
