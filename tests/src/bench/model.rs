//! A Llama of 125 million random parameters in Hugging Face layout, made here.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use safetensors::tensor::{Dtype, View, serialize_to_file};
use serde_json::{Value, json};

use crate::bench::random::Random;

/// Size of the vocabulary; every id has a text.
pub const VOCABULARY: u32 = 32_000;

/// Bytes of text that each token stands for, a space first, so that a client can count tokens in a text.
pub const TOKEN_TEXT_BYTES: usize = 5;

const HIDDEN: usize = 768;
const LAYERS: usize = 12;
const HEADS: usize = 12;
const KV_HEADS: usize = 4;
const INTERMEDIATE: usize = 2048;
const POSITIONS: usize = 4096;

/// Half the width of the weights' uniform distribution: a standard deviation of 0.02, as `initializer_range` has it.
const WEIGHT_MAX: f32 = 0.034_64;

/// Part of the folder's name, so that a folder made by another version of this file is not taken for this one's.
const VERSION: u32 = 1;

/// The model folder under `cache`, made when it is not there.
pub fn cached(cache: &Path) -> anyhow::Result<PathBuf> {
    let folder = cache.join(format!("llama-125m-v{VERSION}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    eprintln!("bench: making a model of random weights in {}", folder.display());
    // Renamed when complete, so that an interrupted run leaves no half of a model.
    let unfinished = cache.join(format!("unfinished-{}", std::process::id()));
    std::fs::create_dir_all(&unfinished).with_context(|| format!("folder `{}`", unfinished.display()))?;
    std::fs::write(unfinished.join("config.json"), config().to_string())?;
    std::fs::write(unfinished.join("tokenizer.json"), tokenizer().to_string())?;
    serialize_to_file(weights(), None, &unfinished.join("model.safetensors"))?;
    std::fs::rename(&unfinished, &folder).with_context(|| format!("folder `{}`", folder.display()))?;
    Ok(folder)
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 0,
    })
}

/// Byte-level, without merges: each id is a space and four letters.
fn tokenizer() -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        (0..VOCABULARY).map(|id| (format!("Ġ{}", letters(id)), json!(id))).collect();
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocabulary, "merges": [],
        },
    })
}

/// `id` in base 26, four digits.
fn letters(id: u32) -> String {
    let digit = |place: u32| char::from(b'a' + (id / 26_u32.pow(place) % 26) as u8);
    [3, 2, 1, 0].into_iter().map(digit).collect()
}

/// Every weight by its name in the checkpoint.
fn weights() -> Vec<(String, RandomWeight)> {
    let head_dim = HIDDEN / HEADS;
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![VOCABULARY as usize, HIDDEN])];
    for layer in 0..LAYERS {
        let parts = [
            ("input_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![KV_HEADS * head_dim, HIDDEN]),
            ("self_attn.v_proj", vec![KV_HEADS * head_dim, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("mlp.gate_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.up_proj", vec![INTERMEDIATE, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INTERMEDIATE]),
        ];
        shapes.extend(parts.map(|(part, shape)| (format!("model.layers.{layer}.{part}.weight"), shape)));
    }
    shapes.push(("model.norm.weight".into(), vec![HIDDEN]));
    shapes.push(("lm_head.weight".into(), vec![VOCABULARY as usize, HIDDEN]));
    let weight = |(seed, (name, shape)): (u64, (String, Vec<usize>))| (name, RandomWeight { seed, shape });
    (1..).zip(shapes).map(weight).collect()
}

/// A bf16 weight whose elements are made when they are written: matrices at random, the vectors of norms as ones.
struct RandomWeight {
    seed: u64,
    shape: Vec<usize>,
}

impl RandomWeight {
    fn element(&self, random: &mut Random) -> f32 {
        if self.shape.len() == 1 { 1.0 } else { random.signed_unit() * WEIGHT_MAX }
    }
}

impl View for RandomWeight {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut random = Random::new(self.seed << 40);
        let n_elements: usize = self.shape.iter().product();
        // bf16 is the upper half of an f32.
        let bits = (0..n_elements).map(|_| (self.element(&mut random).to_bits() >> 16) as u16);
        bits.flat_map(u16::to_le_bytes).collect()
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_has_125_million_parameters() {
        let parameters: usize = weights().iter().map(|(_, weight)| weight.data_len() / 2).sum();
        assert!((124_000_000..126_000_000).contains(&parameters), "{parameters}");
    }

    #[test]
    fn every_id_has_a_text_of_the_same_length() {
        let tokenizer = models::Tokenizer::from_json(tokenizer().to_string().as_bytes()).unwrap();
        assert_eq!(tokenizer.vocab_size(), VOCABULARY as usize);
        for ids in [[0, 1], [25, 26], [VOCABULARY - 1, 17_576]] {
            assert_eq!(tokenizer.decode(&ids, true).unwrap().len(), 2 * TOKEN_TEXT_BYTES);
        }
    }
}
