//! A GGUF on disk: one file, or the parts of a split one.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::GgufError;
use super::header::{Directory, read_header};
use super::metadata::Metadata;
use super::tensor_type::TensorType;
use super::tensors::{TensorInfo, place};
use crate::mapped_file::MappedFile;

/// Keys of a split file. Source: `llama-model-loader.cpp` of llama.cpp.
const SPLIT_NO: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
const SPLIT_TENSORS: &str = "split.tensors.count";

/// A GGUF, checked and mapped: every tensor lies within its file and shares no byte with another. Nothing but the header is read
/// from disk before its bytes are touched.
#[derive(Debug)]
pub struct Gguf {
    metadata: Metadata,
    parts: Vec<Part>,
    /// In the order of the files.
    tensors: Vec<TensorInfo>,
    /// Places in `tensors`, by rising name.
    by_name: Vec<usize>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    map: Arc<MappedFile>,
}

/// One tensor that keeps its file mapped for as long as it lives.
#[derive(Debug, Clone)]
pub struct SharedTensor {
    /// How its elements are stored.
    pub tensor_type: TensorType,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The file.
    pub map: Arc<MappedFile>,
    /// Where in the file the tensor is, in bytes.
    pub range: Range<usize>,
}

impl SharedTensor {
    /// The blocks, row by row, of any alignment in memory.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl Gguf {
    /// Reads the header of a file, and of the others where `path` is the first part of a split one.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let (first, metadata, directory) = Part::open(path)?;
        let count = metadata.whole(SPLIT_COUNT)?.unwrap_or(1);
        if count > 1 {
            refuse_later_part(&metadata, count)?;
        }
        let mut gguf = Self { metadata, parts: Vec::new(), tensors: Vec::new(), by_name: Vec::new() };
        gguf.add(first, directory)?;
        for no in 1..count {
            let (part, metadata, directory) = Part::open(&part_path(path, no, count)?)?;
            expect(&metadata, SPLIT_NO, no)?;
            expect(&metadata, SPLIT_COUNT, count)?;
            gguf.add(part, directory)?;
        }
        if count > 1 && gguf.metadata.get(SPLIT_TENSORS).is_some() {
            expect(&gguf.metadata, SPLIT_TENSORS, gguf.tensors.len() as u64)?;
        }
        gguf.index()?;
        Ok(gguf)
    }

    /// The file; of a split one, its first part.
    pub fn path(&self) -> &Path {
        self.metadata.file()
    }

    /// Keys and values; of a split file, those of its first part.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All files, in order.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &Arc<MappedFile>)> {
        self.parts.iter().map(|part| (part.path.as_path(), &part.map))
    }

    /// Of each file what stands before its first tensor, and the whole of it.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.parts.iter().enumerate().map(|(part, file)| {
            let starts =
                self.tensors.iter().filter(|tensor| tensor.part == part).map(|tensor| tensor.range.start);
            (&file.map[..starts.min().unwrap_or(file.map.len())], &file.map[..])
        })
    }

    /// All tensors, in the order of the files.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let found = self.by_name.binary_search_by(|tensor| self.tensors[*tensor].name.as_str().cmp(name));
        found.ok().map(|found| &self.tensors[self.by_name[found]])
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensor(name).is_some()
    }

    /// The file that holds a tensor of this value.
    pub fn file_of(&self, tensor: &TensorInfo) -> &Path {
        &self.parts[tensor.part].path
    }

    /// The tensor of this name, with its bytes; refused where the blocks of its type are not known.
    pub fn get_shared(&self, name: &str) -> Result<SharedTensor, GgufError> {
        let Some(info) = self.tensor(name) else {
            return Err(GgufError::NotFound { file: self.path().to_owned(), tensor: name.to_owned() });
        };
        let TensorInfo { tensor_type, shape, part, range, .. } = info.clone();
        let Part { path, map } = &self.parts[part];
        if tensor_type.block().is_none() {
            let (file, tensor) = (path.clone(), info.name.clone());
            return Err(GgufError::UnreadType { file, tensor, tensor_type });
        }
        Ok(SharedTensor { tensor_type, shape, map: Arc::clone(map), range })
    }

    fn add(&mut self, part: Part, directory: Directory) -> Result<(), GgufError> {
        self.tensors.extend(place(&part.path, directory, self.parts.len(), part.map.len())?);
        self.parts.push(part);
        Ok(())
    }

    fn index(&mut self) -> Result<(), GgufError> {
        let tensors = &self.tensors;
        self.by_name = (0..tensors.len()).collect();
        self.by_name.sort_unstable_by(|a, b| tensors[*a].name.cmp(&tensors[*b].name));
        let mut pairs = self.by_name.windows(2).map(|pair| (&tensors[pair[0]], &tensors[pair[1]]));
        match pairs.find(|(a, b)| a.name == b.name) {
            Some((tensor, _)) => Err(GgufError::DuplicateTensor {
                file: self.parts[tensor.part].path.clone(),
                tensor: tensor.name.clone(),
            }),
            None => Ok(()),
        }
    }
}

impl Part {
    fn open(path: &Path) -> Result<(Self, Metadata, Directory), GgufError> {
        let map = MappedFile::open(path).map_err(|source| GgufError::Io { file: path.to_owned(), source })?;
        let (metadata, directory) = read_header(path, &map)?;
        Ok((Self { path: path.to_owned(), map: Arc::new(map) }, metadata, directory))
    }
}

fn expect(metadata: &Metadata, key: &str, expected: u64) -> Result<(), GgufError> {
    if metadata.required(key, metadata.whole(key))? == expected {
        return Ok(());
    }
    Err(metadata.refused(key, &expected.to_string()))
}

fn refuse_later_part(metadata: &Metadata, count: u64) -> Result<(), GgufError> {
    let file = metadata.file();
    let no = metadata.required(SPLIT_NO, metadata.whole(SPLIT_NO))?;
    if no == 0 {
        return Ok(());
    }
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let own_ending = ending(no.saturating_add(1), count);
    let first = match name.strip_suffix(&own_ending) {
        Some(stem) => format!("{stem}{}", ending(1, count)),
        None => format!("…{}", ending(1, count)),
    };
    Err(GgufError::NotFirst { file: file.to_owned(), first: file.with_file_name(first) })
}

/// What the name of a part ends in, counted from 1.
fn ending(part: u64, count: u64) -> String {
    format!("-{part:05}-of-{count:05}.gguf")
}

/// Where the part of this number is, counted from 0, whose first is at `first`.
fn part_path(first: &Path, no: u64, count: u64) -> Result<PathBuf, GgufError> {
    let own_ending = ending(1, count);
    let name = first.file_name().and_then(|name| name.to_str());
    match name.and_then(|name| name.strip_suffix(&own_ending)) {
        Some(stem) => Ok(first.with_file_name(format!("{stem}{}", ending(no + 1, count)))),
        None => Err(GgufError::SplitName { file: first.to_owned(), parts: count, ending: own_ending }),
    }
}
