//! Writing a GGUF, a tensor at a time.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::GgufError;
use super::header::{ALIGNMENT_KEY, ALIGNMENT_USUAL, MAGIC};
use super::tensor_type::TensorType;
use super::tensors::DIMENSIONS_MAX;
use super::value::{Array, Value};

const VERSION: u32 = 3;

/// Collects what a GGUF will hold: keys and tensors, in the order in which they will stand. Then [`Self::create`] writes the
/// header, and the tensors' bytes follow one after the other.
///
/// The file appears under its name when it is whole; until then its content is in a file beside it that ends in `.part`, which is
/// deleted when writing ends early.
#[derive(Debug, Default)]
pub struct GgufWriter {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Announced>,
}

#[derive(Debug)]
struct Announced {
    name: String,
    tensor_type: TensorType,
    /// Outermost first.
    shape: Vec<usize>,
}

/// Where a tensor begins after the header, and how long it is, in bytes.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: u64,
    bytes: u64,
}

impl GgufWriter {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The file in which the content of one at `path` is while it is written by this process; none where `path` has no file name.
    pub fn part_path(path: &Path) -> Option<PathBuf> {
        let mut name = path.file_name()?.to_owned();
        // Two processes that write the same file do not write into each other's.
        name.push(format!(".{}.part", std::process::id()));
        Some(path.with_file_name(name))
    }

    /// Adds a key. `general.alignment` sets what tensors begin at a multiple of, which else is 32.
    pub fn key(&mut self, key: impl Into<String>, value: Value) -> &mut Self {
        self.metadata.push((key.into(), value));
        self
    }

    /// Announces a tensor. `shape`: outermost first.
    pub fn tensor(&mut self, name: impl Into<String>, tensor_type: TensorType, shape: &[usize]) -> &mut Self {
        self.tensors.push(Announced { name: name.into(), tensor_type, shape: shape.to_owned() });
        self
    }

    /// Writes the header. What no reader would take is refused: a key or name that is there twice, an impossible shape, an
    /// alignment that is not a power of two.
    pub fn create(self, path: &Path) -> Result<TensorWriter, GgufError> {
        let alignment = self.check_keys(path)?;
        let places = self.check_tensors(path, alignment)?;
        let header = self.header(&places);
        let io = |source| GgufError::Io { file: path.to_owned(), source };
        let mut file = PartFile::create(path).map_err(io)?;
        file.write(&header).map_err(io)?;
        let names = self.tensors.into_iter().map(|tensor| tensor.name);
        let mut writer = TensorWriter {
            file,
            path: path.to_owned(),
            alignment: u64::from(alignment),
            tensors: names.zip(places.iter().map(|place| place.bytes)).collect(),
            current: 0,
            written: 0,
        };
        writer.pad()?;
        writer.advance()?;
        Ok(writer)
    }

    fn check_keys(&self, path: &Path) -> Result<u32, GgufError> {
        let file = || path.to_owned();
        let mut keys: Vec<&str> = self.metadata.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        if keys.first() == Some(&"") {
            return Err(GgufError::EmptyKey { file: file() });
        }
        if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(GgufError::DuplicateKey { file: file(), key: pair[0].to_owned() });
        }
        match self.metadata.iter().find(|(key, _)| key == ALIGNMENT_KEY) {
            None => Ok(ALIGNMENT_USUAL),
            Some((_, Value::U32(alignment))) if alignment.is_power_of_two() => Ok(*alignment),
            Some((key, value)) => Err(GgufError::Value {
                file: file(),
                key: key.clone(),
                found: value.describe(),
                expected: "a power of two of 32 unsigned bits".to_owned(),
            }),
        }
    }

    /// Where each tensor begins after the header, and how many bytes it takes.
    fn check_tensors(&self, path: &Path, alignment: u32) -> Result<Vec<Place>, GgufError> {
        let mut names: Vec<&str> = self.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(GgufError::DuplicateTensor { file: path.to_owned(), tensor: pair[0].to_owned() });
        }
        let mut end: u64 = 0;
        let place = |tensor: &Announced| {
            let (file, name) = (path.to_owned(), tensor.name.clone());
            let Announced { tensor_type, shape, .. } = tensor;
            if tensor_type.block().is_none() {
                return Err(GgufError::UnreadType { file, tensor: name, tensor_type: *tensor_type });
            }
            let sound = (1..=DIMENSIONS_MAX).contains(&shape.len()) && !shape.contains(&0);
            let bytes = tensor_type.bytes(shape).filter(|_| sound).map(|bytes| bytes as u64);
            let offset = end.checked_next_multiple_of(u64::from(alignment));
            let placed = offset.zip(bytes).and_then(|(offset, bytes)| {
                end = offset.checked_add(bytes)?;
                Some(Place { offset, bytes })
            });
            placed.ok_or_else(|| {
                let problem = format!("the shape {shape:?}, which {tensor_type} cannot have");
                GgufError::Shape { file, tensor: name, problem }
            })
        };
        self.tensors.iter().map(place).collect()
    }

    fn header(&self, places: &[Place]) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((self.tensors.len() as u64).to_le_bytes());
        header.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            put_string(&mut header, key);
            header.extend(value.type_id().to_le_bytes());
            put_value(&mut header, value);
        }
        for (tensor, place) in self.tensors.iter().zip(places) {
            put_string(&mut header, &tensor.name);
            // Four at most.
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|size| header.extend((*size as u64).to_le_bytes()));
            header.extend(tensor.tensor_type.id().to_le_bytes());
            header.extend(place.offset.to_le_bytes());
        }
        header
    }
}

/// A GGUF whose tensors are being written, in the order in which they were announced.
#[derive(Debug)]
pub struct TensorWriter {
    file: PartFile,
    path: PathBuf,
    alignment: u64,
    /// Names, and how many bytes each takes.
    tensors: Vec<(String, u64)>,
    /// Which tensor the next byte belongs to.
    current: usize,
    /// How many of its bytes were written.
    written: u64,
}

impl TensorWriter {
    /// The name of the tensor that the next bytes belong to; none when all are written.
    pub fn next_tensor(&self) -> Option<&str> {
        self.tensors.get(self.current).map(|(name, _)| name.as_str())
    }

    /// Writes the next bytes of the current tensor, all or a part of them. More than it has is refused.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        let written = self.written.saturating_add(bytes.len() as u64);
        let expected = self.tensors.get(self.current).map_or(0, |(_, expected)| *expected);
        if written > expected {
            return Err(self.miscounted(written));
        }
        self.put(bytes)?;
        self.written = written;
        self.advance()
    }

    /// Gives the file its name, over one that may be there. A tensor that is not all written is refused.
    pub fn finish(mut self) -> Result<(), GgufError> {
        if self.current < self.tensors.len() {
            return Err(self.miscounted(self.written));
        }
        self.file.finish(&self.path).map_err(|source| GgufError::Io { file: self.path.clone(), source })
    }

    /// Goes on to the next tensor once this one is whole.
    fn advance(&mut self) -> Result<(), GgufError> {
        if self.tensors.get(self.current).is_some_and(|(_, expected)| self.written == *expected) {
            self.pad()?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    fn pad(&mut self) -> Result<(), GgufError> {
        let mut missing = self.file.length.next_multiple_of(self.alignment) - self.file.length;
        while missing > 0 {
            let zeros = missing.min(PADDING.len() as u64);
            self.put(&PADDING[..zeros as usize])?;
            missing -= zeros;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        self.file.write(bytes).map_err(|source| GgufError::Io { file: self.path.clone(), source })
    }

    fn miscounted(&self, written: u64) -> GgufError {
        let (tensor, expected) = self.tensors.get(self.current).cloned().unwrap_or_default();
        GgufError::Written { file: self.path.clone(), tensor, written, expected }
    }
}

const PADDING: [u8; 4096] = [0; 4096];

/// A file beside the one that it will become; deleted when dropped before that.
#[derive(Debug)]
struct PartFile {
    path: PathBuf,
    /// None once it has its name.
    file: Option<BufWriter<File>>,
    length: u64,
}

impl PartFile {
    fn create(target: &Path) -> io::Result<Self> {
        let path = GgufWriter::part_path(target).ok_or(io::ErrorKind::InvalidFilename)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        Ok(Self { path, file: Some(BufWriter::with_capacity(1 << 20, file)), length: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::BrokenPipe.into()) };
        file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// On disk before it has its name, so that not even a power cut leaves half a file under it.
    fn finish(&mut self, target: &Path) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.flush()?;
            file.get_ref().sync_all()?;
            std::fs::rename(&self.path, target)?;
        }
        self.file = None;
        Ok(())
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What is still in memory is of no use in a file that goes away.
            let _ = file.into_parts();
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn put_string(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

fn put_value(to: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(value) => to.extend(value.to_le_bytes()),
        Value::I8(value) => to.extend(value.to_le_bytes()),
        Value::U16(value) => to.extend(value.to_le_bytes()),
        Value::I16(value) => to.extend(value.to_le_bytes()),
        Value::U32(value) => to.extend(value.to_le_bytes()),
        Value::I32(value) => to.extend(value.to_le_bytes()),
        Value::F32(value) => to.extend(value.to_le_bytes()),
        Value::Bool(value) => to.push(u8::from(*value)),
        Value::String(value) => put_string(to, value),
        Value::Array(array) => put_array(to, array),
        Value::U64(value) => to.extend(value.to_le_bytes()),
        Value::I64(value) => to.extend(value.to_le_bytes()),
        Value::F64(value) => to.extend(value.to_le_bytes()),
    }
}

fn put_array(to: &mut Vec<u8>, array: &Array) {
    to.extend(array.type_id().to_le_bytes());
    to.extend((array.len() as u64).to_le_bytes());
    match array {
        Array::U8(values) => to.extend(values),
        Array::I8(values) => to.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::U16(values) => to.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I16(values) => to.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::U32(values) => to.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I32(values) => to.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::F32(values) => to.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::Bool(values) => to.extend(values.iter().map(|value| u8::from(*value))),
        Array::String(values) => values.iter().for_each(|value| put_string(to, value)),
        Array::U64(values) => to.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I64(values) => to.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::F64(values) => to.extend(values.iter().flat_map(|value| value.to_le_bytes())),
    }
}
