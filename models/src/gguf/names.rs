//! Names of tensors: what the Hugging Face checkpoint of an architecture calls a weight, and what a GGUF calls it.
//! Source: `llama-arch.cpp` of llama.cpp and `gguf/tensor_mapping.py` of gguf.

use crate::config::DecoderConfig;

/// Where a GGUF has a weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorName {
    /// Name of the tensor.
    pub name: String,
    /// Which of the tensor's outermost slices it is, where the experts of a layer are one tensor: `[experts, out, in]`. Else the
    /// tensor is the weight.
    pub expert: Option<usize>,
}

/// Names outside of layers.
const OUTSIDE: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// Names within a layer, without `.weight` or `.bias`.
const INSIDE: [(&str, &str); 15] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    // Phi-3: gate above up, in both.
    ("mlp.gate_up_proj", "ffn_up"),
    // The router: Qwen3-MoE, Mixtral.
    ("mlp.gate", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("pre_feedforward_layernorm", "ffn_norm"),
];

/// What stands before the number of an expert and after it, and the tensor of all of them: Qwen3-MoE, Mixtral.
const EXPERTS: [(&str, &str, &str); 6] = [
    ("mlp.experts.", ".gate_proj", "ffn_gate_exps"),
    ("mlp.experts.", ".up_proj", "ffn_up_exps"),
    ("mlp.experts.", ".down_proj", "ffn_down_exps"),
    ("block_sparse_moe.experts.", ".w1", "ffn_gate_exps"),
    ("block_sparse_moe.experts.", ".w3", "ffn_up_exps"),
    ("block_sparse_moe.experts.", ".w2", "ffn_down_exps"),
];

/// The GGUF's name of a weight of a decoder of this configuration; none for a weight that no GGUF has.
pub fn tensor_name(config: &DecoderConfig, name: &str) -> Option<TensorName> {
    if let Some((_, name)) = OUTSIDE.iter().find(|(outside, _)| *outside == name) {
        return Some(TensorName { name: (*name).to_owned(), expert: None });
    }
    let (layer, inside) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let layer: u32 = layer.parse().ok()?;
    let (module, kind) = inside.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
    let (module, expert) = inside_layer(config, module)?;
    Some(TensorName { name: format!("blk.{layer}.{module}.{kind}"), expert })
}

fn inside_layer(config: &DecoderConfig, module: &str) -> Option<(&'static str, Option<usize>)> {
    match (module, config.sandwich_norms) {
        // Llama's stands before its MLP.
        ("post_attention_layernorm", false) => return Some(("ffn_norm", None)),
        ("post_attention_layernorm", true) => return Some(("post_attention_norm", None)),
        ("post_feedforward_layernorm", _) => return Some(("post_ffw_norm", None)),
        _ => {}
    }
    if let Some((_, found)) = INSIDE.iter().find(|(name, _)| *name == module) {
        return Some((found, None));
    }
    EXPERTS.iter().find_map(|(before, after, found)| {
        let expert = module.strip_prefix(before)?.strip_suffix(after)?.parse().ok()?;
        Some((*found, Some(expert)))
    })
}

/// Whether a GGUF's tensor is one that a decoder of this configuration asks for.
pub(super) fn is_used(config: &DecoderConfig, experts: bool, tensor: &str) -> bool {
    if OUTSIDE.iter().any(|(_, outside)| *outside == tensor) {
        return true;
    }
    let Some((layer, inside)) = tensor.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let is_layer = layer.parse::<usize>().is_ok_and(|layer| layer < config.num_hidden_layers);
    let Some((module, kind)) = inside.rsplit_once('.').filter(|_| is_layer) else { return false };
    match (module, kind) {
        ("attn_norm" | "attn_output" | "ffn_norm", "weight") => true,
        ("attn_q" | "attn_k" | "attn_v", "weight") => !config.fused,
        ("attn_qkv", "weight") => config.fused,
        ("attn_q_norm" | "attn_k_norm", "weight") => config.qk_norm,
        ("post_attention_norm" | "post_ffw_norm", "weight") => config.sandwich_norms,
        ("ffn_up" | "ffn_down", "weight") => !experts,
        ("ffn_gate", "weight") => !experts && !config.fused,
        ("ffn_gate_inp" | "ffn_gate_exps" | "ffn_up_exps" | "ffn_down_exps", "weight") => experts,
        ("attn_q" | "attn_k" | "attn_v", "bias") => config.qkv_bias && !config.fused,
        ("attn_qkv", "bias") => config.qkv_bias && config.fused,
        ("attn_output", "bias") => config.o_bias,
        ("ffn_up" | "ffn_down", "bias") => config.mlp_bias && !experts,
        ("ffn_gate", "bias") => config.mlp_bias && !experts && !config.fused,
        _ => false,
    }
}
