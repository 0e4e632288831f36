//! Weights of a model: one or many memory-mapped safetensors files, or a GGUF.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::Arc;

use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors};
use serde::Deserialize;

use crate::config::DecoderConfig;
use crate::gguf::{Gguf, GgufError, GgufWeights, TensorType};
use crate::mapped_file::MappedFile;

/// Bytes before the header that hold its length.
const HEADER_LENGTH_BYTES: usize = 8;

/// Why the weights of a folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Neither `model.safetensors` nor `model.safetensors.index.json` is in the folder.
    #[error("no `model.safetensors` or `model.safetensors.index.json` in `{folder}`")]
    NoWeights {
        /// The model folder.
        folder: String,
    },
    /// A file could not be read.
    #[error("weights file `{file}`")]
    Io {
        /// Name of the file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not in the safetensors format, or was cut short.
    #[error("weights file `{file}` is damaged")]
    Format {
        /// Name of the file.
        file: String,
        /// What is wrong in it.
        source: SafeTensorError,
    },
    /// The index is not the JSON that is expected.
    #[error("`{file}` is not an index of weights")]
    Index {
        /// Name of the index.
        file: String,
        /// Where the JSON is wrong.
        source: serde_json::Error,
    },
    /// The index names a file outside of the model folder.
    #[error("weight `{name}` is in `{file}`, which is not inside the model folder")]
    Outside {
        /// Name of the weight.
        name: String,
        /// The file as the index has it.
        file: String,
    },
    /// No file holds this weight.
    #[error("weight `{name}` is in none of the files")]
    NotFound {
        /// Name of the weight.
        name: String,
    },
    /// The index promises a weight that its file lacks.
    #[error("weight `{name}` is not in `{file}`, where the index has it")]
    NotInFile {
        /// Name of the weight.
        name: String,
        /// Name of the file.
        file: String,
    },
    /// The weight has a dtype that tokenway does not compute with.
    #[error("weight `{name}` in `{file}` is `{dtype}`, expected F32, F16, BF16 or U8")]
    Dtype {
        /// Name of the weight.
        name: String,
        /// Name of the file.
        file: String,
        /// The dtype as the file has it.
        dtype: String,
    },
    /// A GGUF lacks the weight, or its type is not read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
}

/// Element type of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightDtype {
    /// IEEE 754, 32 bits.
    F32,
    /// IEEE 754, 16 bits.
    F16,
    /// The upper half of an F32.
    Bf16,
    /// Bytes into which weights are packed.
    U8,
    /// Blocks of a GGUF. Never F32, F16 or BF16.
    Quantised(TensorType),
}

/// One weight that keeps its file mapped for as long as it lives.
#[derive(Debug, Clone)]
pub struct SharedWeight {
    /// Element type.
    pub dtype: WeightDtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// The file.
    pub map: Arc<MappedFile>,
    /// Where in the file the elements are, in bytes.
    pub range: Range<usize>,
}

impl SharedWeight {
    /// The elements, as many as `shape` and `dtype` say: little-endian, row-major and of any alignment.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

/// All weights of a model by name. Cheap to clone; nothing is read from disk before its bytes are touched.
#[derive(Debug, Clone)]
pub struct Weights {
    inner: Arc<Inner>,
}

#[derive(Debug)]
enum Inner {
    Safetensors(Safetensors),
    Gguf(GgufWeights),
}

#[derive(Debug)]
struct Safetensors {
    files: Vec<WeightFile>,
    /// Which file has a weight, by name.
    file_of: BTreeMap<String, usize>,
}

impl Weights {
    /// Maps the weights of a model folder. `model.safetensors` comes before an index, as in transformers.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        if folder.join(SINGLE).is_file() {
            return Self::open_single(folder);
        }
        if folder.join(INDEX).is_file() {
            return Self::open_sharded(folder);
        }
        Err(WeightsError::NoWeights { folder: folder.display().to_string() })
    }

    /// The weights of `gguf`, a decoder of this configuration, by the names that a Hugging Face checkpoint gives them.
    pub fn from_gguf(gguf: Arc<Gguf>, config: DecoderConfig) -> Self {
        Self { inner: Arc::new(Inner::Gguf(GgufWeights { gguf, config: Box::new(config) })) }
    }

    /// Names of all weights in the files, sorted.
    pub fn names(&self) -> Vec<&str> {
        match &*self.inner {
            Inner::Safetensors(it) => it.file_of.keys().map(String::as_str).collect(),
            Inner::Gguf(it) => {
                let mut names: Vec<&str> = it.gguf.tensors().map(|tensor| tensor.name.as_str()).collect();
                names.sort_unstable();
                names
            }
        }
    }

    /// Whether there is a weight of this name.
    pub fn contains(&self, name: &str) -> bool {
        match &*self.inner {
            Inner::Safetensors(it) => it.file_of.contains_key(name),
            Inner::Gguf(it) => it.contains(name),
        }
    }

    /// What stands before the names of the language model's weights: of the decoder, and of `lm_head`. A vision-language
    /// checkpoint has them one level deeper, in one of several ways.
    pub fn decoder_prefixes(&self) -> (&'static str, &'static str) {
        let decoder = DECODERS.into_iter().find(|prefix| self.contains_under(prefix)).unwrap_or("model.");
        let head =
            HEADS.into_iter().find(|prefix| self.contains(&format!("{prefix}lm_head.weight"))).unwrap_or("");
        (decoder, head)
    }

    fn contains_under(&self, prefix: &str) -> bool {
        self.contains(&format!("{prefix}norm.weight"))
    }

    /// Name of the safetensors file that holds a weight.
    pub fn file_of(&self, name: &str) -> Option<&str> {
        match &*self.inner {
            Inner::Safetensors(it) => it.file_of.get(name).map(|&file| it.files[file].name.as_str()),
            Inner::Gguf(_) => None,
        }
    }

    /// One weight, which keeps its file mapped.
    pub fn get_shared(&self, name: &str) -> Result<SharedWeight, WeightsError> {
        match &*self.inner {
            Inner::Safetensors(it) => it.get_shared(name),
            Inner::Gguf(it) => it.get_shared(name),
        }
    }

    /// The safetensors files; none of a GGUF.
    pub(crate) fn files(&self) -> &[WeightFile] {
        match &*self.inner {
            Inner::Safetensors(it) => &it.files,
            Inner::Gguf(_) => &[],
        }
    }

    fn open_single(folder: &Path) -> Result<Self, WeightsError> {
        let file = WeightFile::open(folder, SINGLE)?;
        let file_of = file.header.tensors().into_keys().map(|name| (name, 0)).collect();
        Ok(Self::from_files(Safetensors { files: vec![file], file_of }))
    }

    fn open_sharded(folder: &Path) -> Result<Self, WeightsError> {
        let mut files: Vec<WeightFile> = Vec::new();
        let mut opened: HashMap<&str, usize> = HashMap::new();
        let mut file_of = BTreeMap::new();
        let index = read_index(folder)?;
        for (name, file_name) in &index.weight_map {
            let file = match opened.get(file_name.as_str()) {
                Some(&file) => file,
                None => {
                    refuse_outside(name, file_name)?;
                    files.push(WeightFile::open(folder, file_name)?);
                    opened.insert(file_name, files.len() - 1);
                    files.len() - 1
                }
            };
            if files[file].header.info(name).is_none() {
                return Err(WeightsError::NotInFile { name: name.clone(), file: file_name.clone() });
            }
            file_of.insert(name.clone(), file);
        }
        Ok(Self::from_files(Safetensors { files, file_of }))
    }

    fn from_files(files: Safetensors) -> Self {
        Self { inner: Arc::new(Inner::Safetensors(files)) }
    }
}

impl Safetensors {
    fn get_shared(&self, name: &str) -> Result<SharedWeight, WeightsError> {
        let Some(&file) = self.file_of.get(name) else {
            return Err(WeightsError::NotFound { name: name.to_owned() });
        };
        let file = &self.files[file];
        let (dtype, shape, range) = file.locate(name)?;
        Ok(SharedWeight { dtype, shape, map: Arc::clone(&file.map), range })
    }
}

/// Plain Llama, LLaVA as on the Hub, LLaVA as transformers 5 writes it, Idefics3.
const DECODERS: [&str; 4] = ["model.", "language_model.model.", "model.language_model.", "model.text_model."];
const HEADS: [&str; 2] = ["", "language_model."];

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Which file has which weight. The order of files is that of the sorted names, so it does not depend on the
/// JSON.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

fn read_index(folder: &Path) -> Result<Index, WeightsError> {
    let file = INDEX.to_owned();
    match std::fs::read(folder.join(INDEX)) {
        Ok(json) => serde_json::from_slice(&json).map_err(|source| WeightsError::Index { file, source }),
        Err(source) => Err(WeightsError::Io { file, source }),
    }
}

fn refuse_outside(name: &str, file: &str) -> Result<(), WeightsError> {
    let mut components = Path::new(file).components().peekable();
    if components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_))) {
        return Ok(());
    }
    Err(WeightsError::Outside { name: name.to_owned(), file: file.to_owned() })
}

/// One mapped file. Its header has been checked: the elements of all tensors fill the rest of the file
/// without a gap.
#[derive(Debug)]
pub(crate) struct WeightFile {
    pub(crate) name: String,
    pub(crate) map: Arc<MappedFile>,
    pub(crate) header: Metadata,
    /// Where the elements begin, in bytes.
    pub(crate) data_start: usize,
}

impl WeightFile {
    fn open(folder: &Path, name: &str) -> Result<Self, WeightsError> {
        let file = || name.to_owned();
        let map = MappedFile::open(&folder.join(name))
            .map_err(|source| WeightsError::Io { file: file(), source })?;
        let (header_bytes, header) = SafeTensors::read_metadata(&map)
            .map_err(|source| WeightsError::Format { file: file(), source })?;
        Ok(Self { name: file(), map: Arc::new(map), header, data_start: HEADER_LENGTH_BYTES + header_bytes })
    }

    fn locate(&self, name: &str) -> Result<(WeightDtype, Vec<usize>, Range<usize>), WeightsError> {
        let (name, file) = (name.to_owned(), self.name.clone());
        let Some(info) = self.header.info(&name) else { return Err(WeightsError::NotInFile { name, file }) };
        let dtype = match info.dtype {
            Dtype::F32 => WeightDtype::F32,
            Dtype::F16 => WeightDtype::F16,
            Dtype::BF16 => WeightDtype::Bf16,
            Dtype::U8 => WeightDtype::U8,
            other => return Err(WeightsError::Dtype { name, file, dtype: other.to_string() }),
        };
        let (start, end) = info.data_offsets;
        Ok((dtype, info.shape.clone(), self.data_start + start..self.data_start + end))
    }
}
