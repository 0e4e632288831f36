//! The tensors of a checkpoint's weights, in the order of the layers.

use super::error::ConvertError;
use super::from_folder::Source;
use super::plan::{Change, Content, PlannedTensor};
use crate::config::{DecoderConfig, ExpertsConfig};
use crate::gguf::{SharedTensor, TensorType, tensor_name};
use crate::weights::{WeightDtype, Weights};

/// A weight of the checkpoint: its name as a plain decoder has it, and its shape.
type Weight = (String, Vec<usize>);

/// All tensors but those of the rotary embedding.
pub(super) fn of_weights(source: &Source<'_>) -> Result<Vec<PlannedTensor>, ConvertError> {
    let config = source.config();
    let weights = source.folder.open_weights()?;
    let reader = Reader { source, config, prefixes: weights.decoder_prefixes(), weights: &weights };
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let mut tensors = vec![reader.single("model.embed_tokens.weight", &[vocab, hidden])?];
    for layer in 0..config.num_hidden_layers {
        for (name, shape) in layer_weights(config, layer) {
            tensors.push(reader.single(&name, &shape)?);
        }
        if let Some(experts) = config.experts.as_ref().filter(|_| config.layers[layer].experts) {
            for (projection, shape) in expert_weights(config, experts) {
                tensors.push(reader.stacked(layer, experts, projection, &shape)?);
            }
        }
    }
    tensors.push(reader.single("model.norm.weight", &[hidden])?);
    if !config.tie_word_embeddings {
        tensors.push(reader.single("lm_head.weight", &[vocab, hidden])?);
    }
    Ok(tensors)
}

/// The weights of a layer, without experts.
fn layer_weights(config: &DecoderConfig, layer: usize) -> Vec<Weight> {
    let hidden = config.hidden_size;
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let mut modules: Vec<(&str, Vec<usize>, bool)> = vec![("input_layernorm", vec![hidden], false)];
    if config.fused {
        modules.push(("self_attn.qkv_proj", vec![queries + 2 * keys, hidden], config.qkv_bias));
    } else {
        modules.push(("self_attn.q_proj", vec![queries, hidden], config.qkv_bias));
        modules.push(("self_attn.k_proj", vec![keys, hidden], config.qkv_bias));
        modules.push(("self_attn.v_proj", vec![keys, hidden], config.qkv_bias));
    }
    if config.qk_norm {
        modules.push(("self_attn.q_norm", vec![config.head_dim], false));
        modules.push(("self_attn.k_norm", vec![config.head_dim], false));
    }
    modules.push(("self_attn.o_proj", vec![hidden, queries], config.o_bias));
    modules.push(("post_attention_layernorm", vec![hidden], false));
    if config.sandwich_norms {
        modules.push(("pre_feedforward_layernorm", vec![hidden], false));
        modules.push(("post_feedforward_layernorm", vec![hidden], false));
    }
    match config.experts.as_ref().filter(|_| config.layers[layer].experts) {
        Some(experts) => modules.push((experts.names.router, vec![experts.count, hidden], false)),
        None => modules.extend(mlp(config)),
    }
    let weights = modules.into_iter().flat_map(|(module, shape, bias)| {
        let name = format!("model.layers.{layer}.{module}");
        let bias = bias.then(|| (format!("{name}.bias"), vec![shape[0]]));
        [Some((format!("{name}.weight"), shape)), bias].into_iter().flatten()
    });
    weights.collect()
}

fn mlp(config: &DecoderConfig) -> Vec<(&'static str, Vec<usize>, bool)> {
    let (hidden, inner, bias) = (config.hidden_size, config.intermediate_size, config.mlp_bias);
    let down = ("mlp.down_proj", vec![hidden, inner], bias);
    if config.fused {
        return vec![("mlp.gate_up_proj", vec![2 * inner, hidden], bias), down];
    }
    vec![("mlp.gate_proj", vec![inner, hidden], bias), ("mlp.up_proj", vec![inner, hidden], bias), down]
}

fn expert_weights(config: &DecoderConfig, experts: &ExpertsConfig) -> [(&'static str, [usize; 2]); 3] {
    let (hidden, inner) = (config.hidden_size, experts.intermediate_size);
    let names = &experts.names;
    [(names.gate, [inner, hidden]), (names.up, [inner, hidden]), (names.down, [hidden, inner])]
}

struct Reader<'a> {
    source: &'a Source<'a>,
    config: &'a DecoderConfig,
    weights: &'a Weights,
    /// What stands before the names of the decoder's weights, and of the head.
    prefixes: (&'static str, &'static str),
}

impl Reader<'_> {
    fn single(&self, name: &str, shape: &[usize]) -> Result<PlannedTensor, ConvertError> {
        let parts = vec![self.read(name, shape)?];
        self.planned(name, shape.to_vec(), Content::Stored { parts, change: self.change(name) })
    }

    /// One projection of all experts of a layer: `[experts, out, in]`.
    fn stacked(
        &self,
        layer: usize,
        experts: &ExpertsConfig,
        projection: &str,
        shape: &[usize; 2],
    ) -> Result<PlannedTensor, ConvertError> {
        let name = |expert: usize| {
            format!("model.layers.{layer}.{}.{expert}.{projection}.weight", experts.names.experts)
        };
        let parts = (0..experts.count).map(|expert| self.read(&name(expert), shape));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let shape = vec![experts.count, shape[0], shape[1]];
        self.planned(&name(0), shape, Content::Stored { parts, change: Change::Nothing })
    }

    fn planned(
        &self,
        name: &str,
        shape: Vec<usize>,
        content: Content,
    ) -> Result<PlannedTensor, ConvertError> {
        match tensor_name(self.config, name) {
            Some(tensor) => Ok(PlannedTensor { name: tensor.name, shape, content }),
            None => Err(self.source.inexpressible("architectures")),
        }
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<SharedTensor, ConvertError> {
        let (decoder, head) = self.prefixes;
        let stored = match name.strip_prefix("model.") {
            Some(rest) => format!("{decoder}{rest}"),
            None => format!("{head}{name}"),
        };
        let weight = self.weights.get_shared(&stored)?;
        if weight.shape != expected {
            let (found, expected) = (weight.shape, expected.to_vec());
            return Err(ConvertError::Shape { name: stored, found, expected });
        }
        let tensor_type = match weight.dtype {
            WeightDtype::F32 => TensorType::F32,
            WeightDtype::F16 => TensorType::F16,
            WeightDtype::Bf16 => TensorType::BF16,
            WeightDtype::Quantised(found) => found,
            // Refused before, with the config that says how they are packed.
            WeightDtype::U8 => return Err(self.source.inexpressible("quantization_config")),
        };
        Ok(SharedTensor { tensor_type, shape: weight.shape, map: weight.map, range: weight.range })
    }

    fn change(&self, name: &str) -> Change {
        let is = |module: &str| name.contains(module);
        if self.source.target.interleaved_heads && (is(".q_proj.") || is(".k_proj.")) {
            return Change::PairNeighbours { head_dim: self.config.head_dim };
        }
        let is_norm = is("norm.weight");
        if self.config.norm_offset && is_norm { Change::AddOne } else { Change::Nothing }
    }
}
