//! The weights of a GGUF by the names that a Hugging Face checkpoint gives them.

use std::sync::Arc;

use super::file::Gguf;
use super::names::{TensorName, tensor_name};
use super::tensor_type::TensorType;
use crate::config::DecoderConfig;
use crate::weights::{SharedWeight, WeightDtype, WeightsError};

/// A GGUF with the configuration that says what its tensors are called.
#[derive(Debug)]
pub(crate) struct GgufWeights {
    pub(crate) gguf: Arc<Gguf>,
    pub(crate) config: Box<DecoderConfig>,
}

impl GgufWeights {
    /// Whether there is a weight of this name.
    pub(crate) fn contains(&self, name: &str) -> bool {
        tensor_name(&self.config, name).is_some_and(|found| self.gguf.contains(&found.name))
    }

    /// The weight that a checkpoint calls `name`; of an expert, its slice of the tensor of all of them.
    pub(crate) fn get_shared(&self, name: &str) -> Result<SharedWeight, WeightsError> {
        let not_found = || WeightsError::NotFound { name: name.to_owned() };
        let TensorName { name: tensor, expert } = tensor_name(&self.config, name).ok_or_else(not_found)?;
        let found = self.gguf.get_shared(&tensor)?;
        let dtype = match found.tensor_type {
            TensorType::F32 => WeightDtype::F32,
            TensorType::F16 => WeightDtype::F16,
            TensorType::BF16 => WeightDtype::Bf16,
            quantised => WeightDtype::Quantised(quantised),
        };
        let Some(expert) = expert else {
            return Ok(SharedWeight { dtype, shape: found.shape, map: found.map, range: found.range });
        };
        let (experts, shape) = found.shape.split_first().ok_or_else(not_found)?;
        if expert >= *experts {
            return Err(not_found());
        }
        // Whole rows, so whole blocks.
        let bytes = found.range.len() / experts;
        let start = found.range.start + expert * bytes;
        Ok(SharedWeight { dtype, shape: shape.to_vec(), map: found.map, range: start..start + bytes })
    }
}
