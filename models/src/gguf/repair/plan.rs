//! A repair: what is wrong of a file, and what will be written.

use std::path::{Path, PathBuf};

use super::error::RepairError;
use super::fix::Fix;
use super::{header, keys, places, tokens, twice};
use crate::gguf::error::GgufError;
use crate::gguf::tensors::{TensorInfo, refuse_overlap};
use crate::gguf::value::Value;
use crate::gguf::writer::GgufWriter;
use crate::mapped_file::MappedFile;

/// How much is written at once, in bytes.
const STEP: usize = 1 << 24;

/// A GGUF that can be written whole. The file itself is only read, and tensors only when they are written.
#[derive(Debug)]
pub struct Repair {
    file: PathBuf,
    map: MappedFile,
    fixes: Vec<Fix>,
    entries: Vec<(String, Value)>,
    tensors: Vec<TensorInfo>,
}

impl Repair {
    /// Finds what is wrong of a file. One that cannot be repaired is refused with the key or tensor that it is for.
    pub fn plan(file: &Path) -> Result<Self, RepairError> {
        let io = |source| GgufError::Io { file: file.to_owned(), source };
        let map = MappedFile::open(file).map_err(io)?;
        let mut fixes = Vec::new();
        let header = header::read(file, &map, &mut fixes)?;
        if header.entries.iter().any(|(key, _)| key.is_empty()) {
            return Err(GgufError::EmptyKey { file: file.to_owned() }.into());
        }
        let mut entries = twice::drop_keys(file, header.entries, &mut fixes)?;
        refuse_split(file, &entries)?;
        let tensors = places::place(file, &map, (&mut entries, header.length), header.tensors, &mut fixes)?;
        let tensors = twice::drop_tensors(file, &map, tensors, &mut fixes)?;
        refuse_overlap(file, &tensors)?;
        keys::fill(file, &mut entries, &tensors, &mut fixes)?;
        tokens::fill(file, &mut entries, &mut fixes)?;
        Ok(Self { file: file.to_owned(), map, fixes, entries, tensors })
    }

    /// The file that is wrong.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What will be changed; nothing where nothing is wrong.
    pub fn fixes(&self) -> &[Fix] {
        &self.fixes
    }

    /// How many tensors there will be.
    pub fn tensors(&self) -> usize {
        self.tensors.len()
    }

    /// How many bytes they have.
    pub fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.range.len() as u64).sum()
    }

    /// Writes the file as it should be, under another name; `copied` hears of the bytes of tensors as they go out.
    pub fn write(self, to: &Path, mut copied: impl FnMut(usize)) -> Result<(), GgufError> {
        let mut writer = GgufWriter::new();
        for (key, value) in self.entries {
            writer.key(key, value);
        }
        for tensor in &self.tensors {
            writer.tensor(&tensor.name, tensor.tensor_type, &tensor.shape);
        }
        let mut out = writer.create(to)?;
        for tensor in &self.tensors {
            for bytes in self.map[tensor.range.clone()].chunks(STEP) {
                out.write(bytes)?;
                copied(bytes.len());
            }
        }
        out.finish()
    }
}

fn refuse_split(file: &Path, entries: &[(String, Value)]) -> Result<(), RepairError> {
    let count =
        entries.iter().find(|(key, _)| key == "split.count").and_then(|(_, value)| value.as_integer());
    match count.and_then(|count| u64::try_from(count).ok()) {
        Some(parts @ 2..) => Err(RepairError::Split { file: file.to_owned(), parts }),
        _ => Ok(()),
    }
}
