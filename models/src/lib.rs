//! Model folders and files as users have them: Hugging Face layout or GGUF, read without a line of Python.
//!
//! Start at [`ModelFolder`]; everything else is reached from it.

mod folder;

mod architecture;
mod config;
mod config_fields;
mod generation;
mod rope;
mod ternary;

mod image_rules;
mod patches;
mod vision;

pub mod gguf;

mod fingerprint;
mod mapped_file;
mod safetensors_file;
mod weights;

mod byte_alphabet;
mod incremental;
mod tokenizer;

mod python_value;
mod template;
mod template_source;
mod to_json;

pub use config::{Activation, DecoderConfig, ExpertNames, ExpertsConfig, LayerConfig, RopeConfig};
pub use config_fields::ConfigError;
pub use fingerprint::FingerprintError;
pub use folder::{FolderError, ModelFolder};
pub use generation::GenerationConfig;
pub use image_rules::{Filter, ImageRefusal, ImageRules, Tiling};
pub use incremental::IncrementalDecoder;
pub use mapped_file::MappedFile;
pub use patches::PatchRules;
pub use rope::{LongFactor, RopeScaling};
pub use safetensors_file::{SafetensorsFile, StoredTensor};
pub use template::{ChatTemplate, TemplateError, TemplateInput};
pub use ternary::{TernaryConfig, TernaryLinears};
pub use tokenizer::{Tokenizer, TokenizerError};
pub use vision::{ENCODER_FILE, ImagePlan, VisionConfig};
pub use weights::{SharedWeight, WeightDtype, Weights, WeightsError};
