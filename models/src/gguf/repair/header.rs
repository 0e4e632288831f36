//! A header, whatever its version says.

use std::path::Path;

use super::error::RepairError;
use super::fix::Fix;
use crate::gguf::cursor::{Cursor, Lengths};
use crate::gguf::error::GgufError;
use crate::gguf::header::{read_counts, read_entries, read_magic, read_tensors, unread_version};
use crate::gguf::tensors::{RawTensor, read_tensor};
use crate::gguf::value::Value;

const VERSION: u32 = 3;

/// What a header says, unchecked but for its form.
pub(super) struct Header {
    pub(super) entries: Vec<(String, Value)>,
    pub(super) tensors: Vec<RawTensor>,
    /// How long it is, in bytes.
    pub(super) length: usize,
}

/// Reads the header of a file of these bytes. A version that is not 3 is a fix, where the header can be read as one version only:
/// version 1 has lengths of 32 bits, later ones of 64.
pub(super) fn read(file: &Path, bytes: &[u8], fixes: &mut Vec<Fix>) -> Result<Header, RepairError> {
    let mut cursor = Cursor::new(file, bytes);
    read_magic(&mut cursor)?;
    let version = cursor.u32("the version")?;
    let short = || read_body(cursor.with_lengths(Lengths::Short));
    let long = || read_body(cursor.with_lengths(Lengths::Long));
    // Two zeros are read as nothing with any lengths.
    let says = |header: &Header| !header.entries.is_empty() || !header.tensors.is_empty();
    let (header, read_as) = match version {
        2 | 3 => match long() {
            Ok(header) => (header, version),
            Err(error) => (short().ok().filter(says).ok_or(error)?, 1),
        },
        1 => match short() {
            Ok(header) if says(&header) => (header, 1),
            Ok(_) => (long().ok().filter(says).ok_or_else(|| unread_version(file, version))?, VERSION),
            Err(error) => (long().ok().filter(says).ok_or(error)?, VERSION),
        },
        _ => match (short().ok().filter(says), long().ok().filter(says)) {
            (Some(_), Some(_)) => return Err(RepairError::Version { file: file.to_owned(), version }),
            (Some(header), None) => (header, 1),
            (None, Some(header)) => (header, VERSION),
            (None, None) => return Err(unread_version(file, version).into()),
        },
    };
    if version != VERSION {
        fixes.push(Fix::Version { found: version, read_as });
    } else if read_as != VERSION {
        fixes.push(Fix::Version { found: version, read_as: 1 });
    }
    let lengths = if read_as == 1 { Lengths::Short } else { Lengths::Long };
    refuse_uncounted(cursor.with_lengths(lengths), &header)?;
    Ok(header)
}

fn read_body(mut cursor: Cursor<'_>) -> Result<Header, GgufError> {
    let counts = read_counts(&mut cursor)?;
    let entries = read_entries(&mut cursor, counts.keys)?;
    let tensors = read_tensors(&mut cursor, counts.tensors)?;
    Ok(Header { entries, tensors, length: cursor.position() })
}

/// Bytes after the header that read as one more tensor are no padding: without it all others would be looked for in the wrong
/// place.
fn refuse_uncounted(mut cursor: Cursor<'_>, header: &Header) -> Result<(), RepairError> {
    let file = cursor.file();
    cursor.take(header.length - cursor.position(), "the header")?;
    match read_tensor(&mut cursor) {
        Ok(tensor) if !tensor.name.is_empty() && !tensor.name.contains(char::is_control) => {
            Err(RepairError::Uncounted { file: file.to_owned(), tensor: tensor.name })
        }
        _ => Ok(()),
    }
}
