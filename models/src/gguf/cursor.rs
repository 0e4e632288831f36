//! Reading forward through the bytes of a GGUF header, which nobody vouches for.

use std::path::Path;

use super::error::GgufError;

/// What is left of a file to read.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    file: &'a Path,
    bytes: &'a [u8],
    /// How many bytes were read.
    position: usize,
    lengths: Lengths,
}

/// What lengths, counts and sizes are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lengths {
    /// 32 bits: version 1.
    Short,
    /// 64 bits: the versions after it.
    Long,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a Path, bytes: &'a [u8]) -> Self {
        Self { file, bytes, position: 0, lengths: Lengths::Long }
    }

    /// The same place, from which lengths are read as these.
    pub(super) fn with_lengths(&self, lengths: Lengths) -> Self {
        Self { lengths, ..self.clone() }
    }

    pub(super) fn file(&self) -> &'a Path {
        self.file
    }

    /// How many bytes were read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// The next `count` bytes of `object`.
    pub(super) fn take(&mut self, count: usize, object: &str) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.position..];
        let Some(taken) = rest.get(..count) else { return Err(self.truncated(object)) };
        self.position += count;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, object: &str) -> Result<[u8; N], GgufError> {
        let rest = &self.bytes[self.position..];
        let Some(taken) = rest.first_chunk::<N>() else { return Err(self.truncated(object)) };
        self.position += N;
        Ok(*taken)
    }

    pub(super) fn u32(&mut self, object: &str) -> Result<u32, GgufError> {
        self.array(object).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, object: &str) -> Result<u64, GgufError> {
        self.array(object).map(u64::from_le_bytes)
    }

    /// A length, a count or a size.
    pub(super) fn length(&mut self, object: &str) -> Result<u64, GgufError> {
        match self.lengths {
            Lengths::Short => self.u32(object).map(u64::from),
            Lengths::Long => self.u64(object),
        }
    }

    /// How many bytes a length takes.
    pub(super) fn length_bytes(&self) -> usize {
        match self.lengths {
            Lengths::Short => 4,
            Lengths::Long => 8,
        }
    }

    /// How many there are of things that take `bytes_min` bytes or more each: never more than the rest of the file can hold, so
    /// that memory may be set aside for them.
    pub(super) fn count(&mut self, bytes_min: usize, object: &str) -> Result<usize, GgufError> {
        let announced = self.length(object)?;
        let room = (self.bytes.len() - self.position) / bytes_min;
        match usize::try_from(announced) {
            Ok(count) if count <= room => Ok(count),
            _ => Err(self.truncated(object)),
        }
    }

    /// A length and as many bytes of UTF-8.
    pub(super) fn string(&mut self, object: &str) -> Result<&'a str, GgufError> {
        let length = self.count(1, object)?;
        let bytes = self.take(length, object)?;
        std::str::from_utf8(bytes)
            .map_err(|_| GgufError::Utf8 { file: self.file.to_owned(), object: object.to_owned() })
    }

    fn truncated(&self, object: &str) -> GgufError {
        GgufError::Truncated { file: self.file.to_owned(), object: object.to_owned() }
    }
}
