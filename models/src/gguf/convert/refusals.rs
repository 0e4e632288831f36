//! What llama.cpp does not compute, or a GGUF has no word for.

use super::error::ConvertError;
use super::from_folder::Source;
use crate::rope::RopeScaling;

/// Refuses a model that would answer differently, by the field of `config.json` that says so.
pub(super) fn check(source: &Source<'_>) -> Result<(), ConvertError> {
    let config = source.config();
    let refuse_if = |refused: bool, field: &'static str| {
        if refused { Err(source.inexpressible(field)) } else { Ok(()) }
    };
    let target = source.target;
    let heads = config.num_attention_heads * config.head_dim;
    refuse_if(target.heads_fill_hidden && heads != config.hidden_size, "head_dim")?;
    refuse_if(config.o_bias && !target.all_biases, "attention_bias")?;
    let dense = config.layers.iter().any(|layer| !layer.experts);
    refuse_if(config.mlp_bias && !(target.all_biases && dense), "mlp_bias")?;
    refuse_if(config.ternary.is_some(), "quantization_config")?;
    check_rope(source)?;
    check_layers(source)?;
    if let Some(experts) = &config.experts {
        refuse_if(dense, "mlp_only_layers")?;
        refuse_if(!experts.normalised, "norm_topk_prob")?;
    }
    match target.architecture {
        "gemma2" => {
            refuse_if(!config.tie_word_embeddings, "tie_word_embeddings")?;
            refuse_if(config.attention_softcap.is_none(), "attn_logit_softcapping")?;
            refuse_if(config.logit_softcap.is_none(), "final_logit_softcapping")?;
            refuse_if(config.attention_scale != gemma_scale(source, 46), "query_pre_attn_scalar")
        }
        "gemma3" => {
            refuse_if(config.attention_softcap.is_some(), "attn_logit_softcapping")?;
            refuse_if(config.attention_scale != gemma_scale(source, 62), "query_pre_attn_scalar")
        }
        _ => Ok(()),
    }
}

/// `f_attention_scale`: only the models of 27 billion parameters, told by their layers, scale by another width than a head's.
fn gemma_scale(source: &Source<'_>, layers_27b: usize) -> f64 {
    let config = source.config();
    let is_27b = config.num_hidden_layers == layers_27b;
    let width = if is_27b { config.hidden_size / config.num_attention_heads } else { config.head_dim };
    1.0 / (width as f64).sqrt()
}

fn check_rope(source: &Source<'_>) -> Result<(), ConvertError> {
    let field = if source.fields.get("rope_scaling").is_some() { "rope_scaling" } else { "rope_parameters" };
    let fine = match &source.config().ropes[0].scaling {
        None | Some(RopeScaling::Linear { .. }) => true,
        Some(RopeScaling::Llama3 { .. } | RopeScaling::LongRope { .. }) => source.target.frequency_divisors,
        // llama.cpp rounds outwards always, and makes the attention factor itself.
        Some(RopeScaling::Yarn { factor, truncate, attention_factor, .. }) => {
            let usual = if *factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
            *truncate && (attention_factor - usual).abs() < 1e-6
        }
    };
    if fine { Ok(()) } else { Err(source.inexpressible(field)) }
}

/// Windows and layers without positions stand where llama.cpp has them.
fn check_layers(source: &Source<'_>) -> Result<(), ConvertError> {
    let config = source.config();
    let windows = config.layers.iter().any(|layer| layer.window.is_some());
    match source.target.architecture {
        // It has the key of Phi-3's window, and leaves it out of account.
        "gemma2" | "gemma3" | "phi3" => {}
        _ if windows => return Err(source.inexpressible("sliding_window")),
        _ => {}
    }
    let period = if source.target.architecture == "smollm3" { 4 } else { usize::MAX };
    let rotates = |i: usize| !(i + 1).is_multiple_of(period);
    if config.layers.iter().enumerate().all(|(i, layer)| layer.rope.is_some() == rotates(i)) {
        return Ok(());
    }
    Err(source.inexpressible("no_rope_layers"))
}
