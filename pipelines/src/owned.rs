//! Blobs with one owner: unlike blobs of equal content that many requests share, their last reader may delete them.

use bytes::Bytes;
use schemas::request::BlobRef;

/// In front of the content stands who owns it, so that equal content of two owners is two blobs. A multiple of every
/// alignment that a tensor wants.
const OWNER_BYTES: usize = 32;

/// Content on its way into the blob store.
#[derive(Debug, Clone)]
pub struct Owned(Vec<u8>);

impl Owned {
    /// Content that belongs to `(owner, part)`, which no other content has; `bytes` are made room for.
    pub fn new(owner: u128, part: u128, bytes: usize) -> Self {
        let mut content = Vec::with_capacity(OWNER_BYTES + bytes);
        content.extend_from_slice(&owner.to_le_bytes());
        content.extend_from_slice(&part.to_le_bytes());
        Self(content)
    }

    /// Where to append the content.
    pub fn content(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// The name and the bytes of the blob.
    pub fn into_blob(self) -> (BlobRef, Bytes) {
        let blob = BlobRef { hash: *blake3::hash(&self.0).as_bytes(), bytes: self.0.len() as u64 };
        (blob, self.0.into())
    }
}

/// The content of a blob that was made by [`Owned`], without a copy; none when it is none.
pub fn content(blob: &Bytes) -> Option<Bytes> {
    (blob.len() >= OWNER_BYTES).then(|| blob.slice(OWNER_BYTES..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_of_two_owners_is_two_blobs() {
        let blob = |owner| {
            let mut owned = Owned::new(owner, 0, 3);
            owned.content().extend_from_slice(b"abc");
            owned.into_blob()
        };
        let ((one, bytes), (two, _)) = (blob(1), blob(2));
        assert_ne!(one, two);
        assert_eq!(content(&bytes).as_deref(), Some(b"abc".as_slice()));
        assert_eq!(content(&Bytes::from_static(b"abc")), None);
    }
}
