//! What stands before the tensors of one GGUF file.

use std::path::Path;

use super::cursor::Cursor;
use super::error::GgufError;
use super::metadata::Metadata;
use super::tensors::{RawTensor, read_tensor, tensor_bytes_min};
use super::value::{Array, Value, type_id};

pub(super) const MAGIC: [u8; 4] = *b"GGUF";
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
pub(super) const ALIGNMENT_USUAL: u32 = 32;

/// What one file's header announces of tensors; whether they lie in the file is not yet known.
pub(super) struct Directory {
    pub(super) tensors: Vec<RawTensor>,
    /// What tensors begin at a multiple of, in bytes.
    pub(super) alignment: u32,
    /// How long the header is, in bytes.
    pub(super) length: usize,
}

/// Reads the header of a file of these bytes.
pub(super) fn read_header(file: &Path, bytes: &[u8]) -> Result<(Metadata, Directory), GgufError> {
    let mut cursor = Cursor::new(file, bytes);
    read_version(&mut cursor)?;
    let counts = read_counts(&mut cursor)?;
    let metadata = Metadata::new(file, read_entries(&mut cursor, counts.keys)?)?;
    let alignment = read_alignment(&metadata)?;
    let tensors = read_tensors(&mut cursor, counts.tensors)?;
    Ok((metadata, Directory { tensors, alignment, length: cursor.position() }))
}

/// How many there are, never more than the file can hold.
pub(super) struct Counts {
    pub(super) tensors: usize,
    pub(super) keys: usize,
}

pub(super) fn read_counts(cursor: &mut Cursor<'_>) -> Result<Counts, GgufError> {
    let tensors = cursor.count(tensor_bytes_min(cursor), "the number of tensors")?;
    // A key's length and a letter, the type of the value, and the smallest value.
    let keys = cursor.count(cursor.length_bytes() + 1 + 4 + 1, "the number of keys")?;
    Ok(Counts { tensors, keys })
}

pub(super) fn read_entries(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<(String, Value)>, GgufError> {
    // Grown as they are read: a count costs nothing to announce.
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(read_entry(cursor)?);
    }
    Ok(entries)
}

pub(super) fn read_tensors(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<RawTensor>, GgufError> {
    let mut tensors = Vec::new();
    for _ in 0..count {
        tensors.push(read_tensor(cursor)?);
    }
    Ok(tensors)
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<(), GgufError> {
    read_magic(cursor)?;
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        version => Err(unread_version(cursor.file(), version)),
    }
}

pub(super) fn read_magic(cursor: &mut Cursor<'_>) -> Result<(), GgufError> {
    let not_gguf = || GgufError::NotGguf { file: cursor.file().to_owned() };
    match cursor.clone().array("the magic") {
        Ok(MAGIC) => cursor.take(MAGIC.len(), "the magic").map(|_| ()),
        _ => Err(not_gguf()),
    }
}

/// That a version is none that is read.
pub(super) fn unread_version(file: &Path, version: u32) -> GgufError {
    let file = file.to_owned();
    // A version below 65,536 of the other byte order.
    let is_swapped = version & 0xffff == 0 && version != 0;
    if is_swapped { GgufError::BigEndian { file } } else { GgufError::Version { file, version } }
}

fn read_entry(cursor: &mut Cursor<'_>) -> Result<(String, Value), GgufError> {
    let key = cursor.string("a key")?;
    if key.is_empty() {
        return Err(GgufError::EmptyKey { file: cursor.file().to_owned() });
    }
    let object = format!("`{key}`");
    let value = match cursor.u32(&object)? {
        type_id::ARRAY => Value::Array(read_array(cursor, key, &object)?),
        id => read_scalar(cursor, id, key, &object)?,
    };
    Ok((key.to_owned(), value))
}

fn read_scalar(cursor: &mut Cursor<'_>, id: u32, key: &str, object: &str) -> Result<Value, GgufError> {
    Ok(match id {
        type_id::U8 => Value::U8(u8::from_le_bytes(cursor.array(object)?)),
        type_id::I8 => Value::I8(i8::from_le_bytes(cursor.array(object)?)),
        type_id::U16 => Value::U16(u16::from_le_bytes(cursor.array(object)?)),
        type_id::I16 => Value::I16(i16::from_le_bytes(cursor.array(object)?)),
        type_id::U32 => Value::U32(cursor.u32(object)?),
        type_id::I32 => Value::I32(i32::from_le_bytes(cursor.array(object)?)),
        type_id::F32 => Value::F32(f32::from_le_bytes(cursor.array(object)?)),
        type_id::BOOL => {
            let [byte] = cursor.array(object)?;
            Value::Bool(as_bool(cursor, key, byte)?)
        }
        type_id::STRING => Value::String(cursor.string(object)?.to_owned()),
        type_id::U64 => Value::U64(cursor.u64(object)?),
        type_id::I64 => Value::I64(i64::from_le_bytes(cursor.array(object)?)),
        type_id::F64 => Value::F64(f64::from_le_bytes(cursor.array(object)?)),
        id => return Err(GgufError::ValueType { file: cursor.file().to_owned(), key: key.to_owned(), id }),
    })
}

fn read_array(cursor: &mut Cursor<'_>, key: &str, object: &str) -> Result<Array, GgufError> {
    Ok(match cursor.u32(object)? {
        type_id::U8 => Array::U8(numbers(cursor, object, u8::from_le_bytes)?),
        type_id::I8 => Array::I8(numbers(cursor, object, i8::from_le_bytes)?),
        type_id::U16 => Array::U16(numbers(cursor, object, u16::from_le_bytes)?),
        type_id::I16 => Array::I16(numbers(cursor, object, i16::from_le_bytes)?),
        type_id::U32 => Array::U32(numbers(cursor, object, u32::from_le_bytes)?),
        type_id::I32 => Array::I32(numbers(cursor, object, i32::from_le_bytes)?),
        type_id::F32 => Array::F32(numbers(cursor, object, f32::from_le_bytes)?),
        type_id::U64 => Array::U64(numbers(cursor, object, u64::from_le_bytes)?),
        type_id::I64 => Array::I64(numbers(cursor, object, i64::from_le_bytes)?),
        type_id::F64 => Array::F64(numbers(cursor, object, f64::from_le_bytes)?),
        type_id::BOOL => {
            let count = cursor.count(1, object)?;
            let bytes = cursor.take(count, object)?;
            Array::Bool(bytes.iter().map(|byte| as_bool(cursor, key, *byte)).collect::<Result<_, _>>()?)
        }
        type_id::STRING => {
            let count = cursor.count(cursor.length_bytes(), object)?;
            let mut strings = Vec::with_capacity(count);
            for _ in 0..count {
                strings.push(cursor.string(object)?.to_owned());
            }
            Array::String(strings)
        }
        // As ggml.
        type_id::ARRAY => {
            return Err(GgufError::NestedArray { file: cursor.file().to_owned(), key: key.to_owned() });
        }
        id => return Err(GgufError::ValueType { file: cursor.file().to_owned(), key: key.to_owned(), id }),
    })
}

fn numbers<T, const N: usize>(
    cursor: &mut Cursor<'_>,
    object: &str,
    from_le_bytes: fn([u8; N]) -> T,
) -> Result<Vec<T>, GgufError> {
    let count = cursor.count(N, object)?;
    let bytes = cursor.take(count * N, object)?;
    let (numbers, _) = bytes.as_chunks::<N>();
    Ok(numbers.iter().map(|number| from_le_bytes(*number)).collect())
}

fn as_bool(cursor: &Cursor<'_>, key: &str, byte: u8) -> Result<bool, GgufError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        byte => Err(GgufError::Bool { file: cursor.file().to_owned(), key: key.to_owned(), byte }),
    }
}

fn read_alignment(metadata: &Metadata) -> Result<u32, GgufError> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(ALIGNMENT_USUAL),
        Some(Value::U32(alignment)) if alignment.is_power_of_two() => Ok(*alignment),
        Some(_) => Err(metadata.refused(ALIGNMENT_KEY, "a power of two of 32 unsigned bits")),
    }
}
