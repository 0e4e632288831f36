//! The embeddings of images that may come again: a conversation sends its images anew with every turn.

use bytes::Bytes;
use lru::LruCache;

/// BLAKE3 of an image's file.
pub(crate) type Hash = [u8; 32];

/// Embeddings by image, as many as fit; the least recently used go first.
pub(crate) struct Cache {
    by_image: LruCache<Hash, Bytes>,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    /// Holds up to `bytes_max`.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { by_image: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    /// The embeddings of an image.
    pub(crate) fn get(&mut self, image: &Hash) -> Option<Bytes> {
        self.by_image.get(image).cloned()
    }

    /// Keeps the embeddings of an image, if they fit at all.
    pub(crate) fn put(&mut self, image: Hash, embeddings: Bytes) {
        if embeddings.len() > self.bytes_max {
            return;
        }
        self.bytes += embeddings.len();
        if let Some(before) = self.by_image.put(image, embeddings) {
            self.bytes -= before.len();
        }
        while self.bytes > self.bytes_max {
            let Some((_, oldest)) = self.by_image.pop_lru() else { return };
            self.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = Cache::new(10);
        let image = |n: u8| [n; 32];
        let embeddings = Bytes::from_static(&[0; 4]);
        cache.put(image(1), embeddings.clone());
        cache.put(image(2), embeddings.clone());
        cache.put(image(2), embeddings.clone());
        assert!(cache.get(&image(1)).is_some());
        cache.put(image(3), embeddings);
        assert!(cache.get(&image(2)).is_none());
        assert!(cache.get(&image(1)).is_some() && cache.get(&image(3)).is_some());
        cache.put(image(4), Bytes::from_static(&[0; 11]));
        assert!(cache.get(&image(4)).is_none() && cache.bytes == 8);
    }
}
