//! A model on disk: a folder in Hugging Face layout, or a GGUF.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::DecoderConfig;
use crate::config_fields::{ConfigError, ConfigFields};
use crate::fingerprint::{FingerprintError, fingerprint, gguf_fingerprint};
use crate::generation::GenerationConfig;
use crate::gguf::{Gguf, GgufConfigError, Value, Vocabulary, read_config, template_name};
use crate::template::{ChatTemplate, TemplateError};
use crate::template_source::TemplateSource;
use crate::tokenizer::{Tokenizer, TokenizerError};
use crate::vision::{ENCODER_FILE, VisionConfig};
use crate::weights::{Weights, WeightsError};

/// Why a path is not a model folder that tokenway can serve.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file that every model folder has could not be read.
    #[error("`{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A configuration file was refused.
    #[error("model folder `{path}`")]
    Config {
        /// The folder.
        path: PathBuf,
        /// Which field, and why.
        source: ConfigError,
    },
    /// A GGUF is damaged, or of a model that is not computed.
    #[error(transparent)]
    Gguf(#[from] GgufConfigError),
}

/// A model on disk: its configuration, read and checked, and the way to everything else in the folder or GGUF.
#[derive(Debug, Clone)]
pub struct ModelFolder {
    path: PathBuf,
    /// None of a folder.
    gguf: Option<Arc<Gguf>>,
    config: DecoderConfig,
    vision: Option<VisionConfig>,
    generation: GenerationConfig,
}

impl ModelFolder {
    /// Reads `config.json` and, when there, `generation_config.json`. Tokenizer, template and weights are
    /// opened by the processes that need them.
    ///
    /// A file is a GGUF; of a split one, the first part.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        if path.is_file() {
            return Self::open_gguf(path);
        }
        let refused = |source| FolderError::Config { path: path.to_owned(), source };
        let config_path = path.join("config.json");
        let Some(config) = read_if_there(&config_path)? else {
            return Err(FolderError::Io { path: config_path, source: io::ErrorKind::NotFound.into() });
        };
        let generation = match read_if_there(&path.join("generation_config.json"))? {
            Some(json) => GenerationConfig::from_json(&json).map_err(refused)?,
            None => GenerationConfig::default(),
        };
        let fields = ConfigFields::parse("config.json", &config).map_err(refused)?;
        let vision = VisionConfig::read(path, &fields).map_err(refused)?;
        let config = match &vision {
            Some(_) => DecoderConfig::from_text_config(&fields),
            None => DecoderConfig::from_json(&config),
        };
        Ok(Self { path: path.to_owned(), gguf: None, config: config.map_err(refused)?, vision, generation })
    }

    fn open_gguf(path: &Path) -> Result<Self, FolderError> {
        let gguf = Gguf::open(path).map_err(GgufConfigError::from)?;
        let config = read_config(&gguf)?;
        Ok(Self {
            path: path.to_owned(),
            gguf: Some(Arc::new(gguf)),
            config,
            vision: None,
            generation: GenerationConfig::default(),
        })
    }

    /// The folder, or the GGUF.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its vision side; none for a text model.
    pub fn vision(&self) -> Option<&VisionConfig> {
        self.vision.as_ref()
    }

    /// Where the vision encoder is, in ONNX form.
    pub fn vision_encoder(&self) -> PathBuf {
        self.path.join(ENCODER_FILE)
    }

    /// Shape and constants of the language model.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The authors' defaults for sampling.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// Tokens that end an answer: those of `generation_config.json`, else those of `config.json`.
    pub fn eos_ids(&self) -> Vec<u32> {
        let own = &self.generation.eos_token_ids;
        if own.is_empty() { self.config.eos_token_ids.clone() } else { own.clone() }
    }

    /// Longest sequence in tokens, prompt and answer together.
    pub fn context_length(&self) -> u32 {
        self.config.max_position_embeddings
    }

    /// Loads `tokenizer.json`, or makes the tokenizer of a GGUF's vocabulary.
    pub fn load_tokenizer(&self) -> Result<Tokenizer, TokenizerError> {
        match &self.gguf {
            Some(gguf) => Ok(Vocabulary::read(gguf)?.tokenizer()?),
            None => Tokenizer::from_file(&self.path.join("tokenizer.json")),
        }
    }

    /// Loads and compiles the chat template; `None` when the model has none.
    pub fn load_chat_template(&self) -> Result<Option<ChatTemplate>, TemplateError> {
        let Some(gguf) = &self.gguf else { return ChatTemplate::from_folder(&self.path) };
        let templates = gguf.metadata().iter().filter_map(|(key, value)| match value {
            Value::String(template) => Some((template_name(key)?.to_owned(), template.clone())),
            _ => None,
        });
        let templates = templates.collect();
        let special_tokens = Vocabulary::read(gguf)?.special_tokens();
        ChatTemplate::from_source(TemplateSource { templates, special_tokens })
    }

    /// Maps the weights.
    pub fn open_weights(&self) -> Result<Weights, WeightsError> {
        match &self.gguf {
            Some(gguf) => Ok(Weights::from_gguf(Arc::clone(gguf), self.config.clone())),
            None => Weights::open(&self.path),
        }
    }

    /// The fingerprint of everything in the folder that decides what the model answers: equal for copies of a
    /// folder wherever they lie, different once a configuration, the tokenizer, the template or a weight
    /// differs.
    ///
    /// BLAKE3. Files of weights over 256 MiB are sampled (header, first, middle and last 4 KiB of each
    /// tensor), because every process takes this hash when it starts; smaller ones are hashed whole.
    pub fn hash(&self) -> Result<[u8; 32], FingerprintError> {
        match &self.gguf {
            Some(gguf) => gguf_fingerprint(gguf),
            None => fingerprint(&self.path, &self.open_weights()?),
        }
    }
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, FolderError> {
    match std::fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FolderError::Io { path: path.to_owned(), source }),
    }
}
