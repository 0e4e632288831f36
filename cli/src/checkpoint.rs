//! A model's files, looked at and not computed: what it is, its tensors, and why it would not be served.

mod facts;
mod folder;
mod gguf;
mod metadata;

use std::fs;
use std::path::{Path, PathBuf};

use models::SafetensorsFile;
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::exit::misuse;
pub use facts::Facts;

/// How a model is kept on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One GGUF file, or one split over several.
    Gguf,
    /// A single file of weights.
    Safetensors,
    /// A folder in Hugging Face layout.
    Folder,
}

/// One tensor.
#[derive(Debug, Clone, Serialize)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// How many bytes it takes; none where the type's blocks are not known.
    pub bytes: Option<u64>,
}

impl Tensor {
    /// How many elements it has; none where that is beyond 64 bits.
    pub fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1_u64, |product, size| product.checked_mul(u64::try_from(*size).ok()?))
    }
}

/// The tensors of one type together.
#[derive(Debug, Clone, Serialize)]
pub struct TypeTotal {
    /// How elements are stored.
    #[serde(rename = "type")]
    pub type_name: String,
    /// How many tensors.
    pub tensors: usize,
    /// Their elements.
    pub parameters: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
}

/// Everything about a model that can be said without computing it.
#[derive(Debug)]
pub struct Checkpoint {
    /// File or folder; of a split file, its first part.
    pub path: PathBuf,
    /// How it is kept.
    pub format: Format,
    /// What it is.
    pub facts: Facts,
    /// Metadata of a GGUF, `config.json` of a folder, `__metadata__` of a safetensors file.
    pub metadata: Map<String, Json>,
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// Length of the files of weights together.
    pub file_bytes: u64,
    /// Why it would not be served; none where nothing is known against it.
    pub refusal: Option<String>,
}

impl Checkpoint {
    /// Looks at a GGUF file, a safetensors file or a model folder. A damaged one is refused with file and field; one that
    /// would not be served is not.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let kind = fs::metadata(path).map_err(|error| misuse(format!("`{}`: {error}", path.display())))?;
        if kind.is_dir() {
            return folder::read(path);
        }
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            return read_safetensors(path);
        }
        gguf::read(path)
    }

    /// Elements of all tensors; none where that is beyond 64 bits.
    pub fn parameters(&self) -> Option<u64> {
        sum(self.tensors.iter().map(Tensor::elements))
    }

    /// Bytes of all tensors; none where those of a type are not known.
    pub fn stored_bytes(&self) -> Option<u64> {
        sum(self.tensors.iter().map(|tensor| tensor.bytes))
    }

    /// Totals by type, that of the most elements first.
    pub fn types(&self) -> Vec<TypeTotal> {
        let mut totals: Vec<TypeTotal> = Vec::new();
        for tensor in &self.tensors {
            let (parameters, bytes) = (tensor.elements(), tensor.bytes);
            match totals.iter_mut().find(|total| total.type_name == tensor.type_name) {
                Some(total) => {
                    total.tensors += 1;
                    total.parameters = sum([total.parameters, parameters]);
                    total.bytes = sum([total.bytes, bytes]);
                }
                None => totals.push(TypeTotal {
                    type_name: tensor.type_name.clone(),
                    tensors: 1,
                    parameters,
                    bytes,
                }),
            }
        }
        totals.sort_by_key(|total| std::cmp::Reverse(total.parameters.unwrap_or(u64::MAX)));
        totals
    }
}

/// That a file is damaged, as an error of one line and exit code 2.
pub fn damaged(error: impl Into<anyhow::Error>) -> anyhow::Error {
    misuse(one_line(error))
}

/// An error with its causes, on one line.
pub fn one_line(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into()).replace(['\n', '\r'], " ")
}

fn sum(numbers: impl IntoIterator<Item = Option<u64>>) -> Option<u64> {
    numbers.into_iter().try_fold(0_u64, |sum, number| sum.checked_add(number?))
}

fn read_safetensors(path: &Path) -> anyhow::Result<Checkpoint> {
    let file = SafetensorsFile::open(path).map_err(damaged)?;
    Ok(Checkpoint {
        path: path.to_owned(),
        format: Format::Safetensors,
        facts: Facts::default(),
        metadata: file.metadata().map(|(key, value)| (key.to_owned(), value.into())).collect(),
        tensors: file.tensors().iter().map(stored).collect(),
        file_bytes: file.bytes() as u64,
        refusal: Some("a file of weights has no configuration: serve the folder that it lies in".to_owned()),
    })
}

fn stored(tensor: &models::StoredTensor) -> Tensor {
    Tensor {
        name: tensor.name.clone(),
        type_name: tensor.dtype.clone(),
        shape: tensor.shape.clone(),
        bytes: Some(tensor.bytes as u64),
    }
}
