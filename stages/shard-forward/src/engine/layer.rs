//! One decoder layer, and the head: what they hold and how a step goes through them.
//! Source: Llama, arXiv:2302.13971; grouped-query attention, arXiv:2305.13245.

use models::{Activation, DecoderConfig, ExpertsConfig, LayerConfig};
use tch::{Kind, Tensor};

use super::device_rows::DeviceRows;
use super::embedding::{self, Embedding};
use super::kv::KvCache;
use super::memory::Shared;
use super::mlp::Mlp;
use super::ops::{Attention, Linear, Ops, Scoring};
use super::rope::Rotation;
use super::weights::{Loader, Weight};

/// Shape and constants of every layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) hidden: i64,
    heads: i64,
    kv_heads: i64,
    pub(super) head_dim: i64,
    pub(super) intermediate: i64,
    pub(super) experts: Option<ExpertsConfig>,
    pub(super) vocabulary: u32,
    pub(super) eps: f64,
    qkv_bias: bool,
    o_bias: bool,
    pub(super) mlp_bias: bool,
    qk_norm: bool,
    sandwich_norms: bool,
    pub(super) sub_norms: bool,
    norm_offset: bool,
    interleaved_heads: bool,
    pub(super) activation: Activation,
    pub(super) embedding_scale: Option<f64>,
    pub(super) scoring: Scoring,
    logit_softcap: Option<f64>,
    fused: bool,
}

/// One decoder layer.
#[derive(Debug)]
pub(super) struct Layer {
    before_attention: Weight,
    /// q, k and v heads side by side: `[(n_heads + 2 n_kv_heads) * head_dim, hidden_size]`.
    qkv_proj: Box<dyn Linear>,
    /// Where each head of queries and keys is normed, `[head_dim]` each.
    qk_norm: Option<[Weight; 2]>,
    /// Where what attention gives is normed before it is projected: `[n_heads * head_dim]`.
    attn_sub_norm: Option<Weight>,
    o_proj: Box<dyn Linear>,
    /// Where what attention gives is normed before it is added.
    after_attention: Option<Weight>,
    before_mlp: Weight,
    pub(super) mlp: Mlp,
    /// Where what the MLP gives is normed before it is added.
    after_mlp: Option<Weight>,
    /// Which of the model's rotary embeddings turns queries and keys.
    rope: Option<usize>,
    /// How far it sees, by its place among the shard's windows.
    window: usize,
}

/// What makes logits of the last hidden states.
#[derive(Debug)]
pub(super) struct Head {
    norm: Weight,
    pub(super) lm_head: Box<dyn Linear>,
}

/// What all layers need to know of a step, and the head. All that it needs of the host is on the device before the first layer
/// is started, so that the host waits for the device once a step.
pub(super) struct Step {
    /// One for each rotary embedding of the model.
    pub(super) rotations: Vec<Rotation>,
    pub(super) slots: Tensor,
    /// One for each of the shard's windows.
    pub(super) attention: Vec<Box<dyn Attention>>,
    /// On the last shard, the rows that give a token; none when all do.
    pub(super) sampled: Option<Tensor>,
    /// On the last shard, when it is not on the CPU.
    pub(super) rows: Option<DeviceRows>,
}

/// One step's way through the layers.
pub(super) struct Pass<'a> {
    pub(super) sizes: &'a Sizes,
    pub(super) ops: &'a dyn Ops,
    pub(super) kv: &'a KvCache,
    pub(super) step: &'a Step,
}

impl Layer {
    /// Adds how far the layer sees to the shard's `windows` where none is as far.
    pub(super) fn load(
        loader: &Loader<'_>,
        sizes: &Sizes,
        i: u32,
        config: LayerConfig,
        windows: &mut Vec<Option<u32>>,
    ) -> anyhow::Result<Self> {
        let Sizes { hidden, heads, kv_heads, head_dim, .. } = *sizes;
        let q_proj = format!("model.layers.{i}.self_attn.q_proj");
        let k_proj = format!("model.layers.{i}.self_attn.k_proj");
        let v_proj = format!("model.layers.{i}.self_attn.v_proj");
        let o_proj = format!("model.layers.{i}.self_attn.o_proj");
        let (n_q, n_kv) = (heads * head_dim, kv_heads * head_dim);
        let qkv = [(&*q_proj, n_q), (&*k_proj, n_kv), (&*v_proj, n_kv)];
        let norm =
            |name: &str, width: i64| sizes.norm(loader, &format!("model.layers.{i}.{name}.weight"), width);
        let qk_norm = match sizes.qk_norm {
            true => Some([norm("self_attn.q_norm", head_dim)?, norm("self_attn.k_norm", head_dim)?]),
            false => None,
        };
        let attn_sub_norm = sizes.sub_norms.then(|| norm("self_attn.attn_sub_norm", n_q)).transpose()?;
        let window = windows.iter().position(|window| *window == config.window).unwrap_or_else(|| {
            windows.push(config.window);
            windows.len() - 1
        });
        // Llama's `post_attention_layernorm` stands before its MLP.
        let (after_attention, before_mlp, after_mlp) = match sizes.sandwich_norms {
            true => (
                Some("post_attention_layernorm"),
                "pre_feedforward_layernorm",
                Some("post_feedforward_layernorm"),
            ),
            false => (None, "post_attention_layernorm", None),
        };
        Ok(Self {
            before_attention: norm("input_layernorm", hidden)?,
            qkv_proj: sizes.joined(
                loader,
                &format!("model.layers.{i}.self_attn.qkv_proj"),
                &qkv,
                sizes.qkv_bias,
            )?,
            qk_norm,
            attn_sub_norm,
            o_proj: loader.linear(&o_proj, [hidden, n_q], sizes.o_bias)?,
            after_attention: after_attention.map(|name| norm(name, hidden)).transpose()?,
            before_mlp: norm(before_mlp, hidden)?,
            mlp: Mlp::load(loader, sizes, i, config.experts)?,
            after_mlp: after_mlp.map(|name| norm(name, hidden)).transpose()?,
            rope: config.rope,
            window,
        })
    }

    /// `x`: `[rows, hidden_size]` → the same shape.
    pub(super) fn forward(&self, pass: &Pass<'_>, layer: usize, x: Tensor) -> Tensor {
        let Pass { sizes, ops, .. } = pass;
        let add = |x: Tensor, y: &Tensor, norm: &Weight| ops.add(x, &ops.rms_norm(y, norm, sizes.eps));
        let normed = ops.rms_norm(&x, &self.before_attention, sizes.eps);
        let mut attended = self.attend(pass, layer, &normed);
        if let Some(norm) = &self.attn_sub_norm {
            attended = ops.rms_norm(&attended.contiguous(), norm, sizes.eps);
        }
        let x = match &self.after_attention {
            Some(norm) => add(x, &self.o_proj.forward(&attended), norm),
            None => self.o_proj.add_to(x, &attended),
        };
        let normed = ops.rms_norm(&x, &self.before_mlp, sizes.eps);
        match &self.after_mlp {
            Some(norm) => add(x, &self.mlp.forward(*ops, sizes.activation, &normed), norm),
            None => self.mlp.add_to(*ops, sizes.activation, x, &normed),
        }
    }

    /// Bytes of the matrices that one row goes through.
    pub(super) fn row_bytes(&self) -> u64 {
        self.qkv_proj.bytes() + self.o_proj.bytes() + self.mlp.row_bytes()
    }

    /// Its dense matrices.
    pub(super) fn linears(&self) -> impl Iterator<Item = &dyn Linear> {
        [&*self.qkv_proj, &*self.o_proj].into_iter().chain(self.mlp.linears())
    }

    /// `x`: `[rows, hidden_size]`, normed → `[rows, n_heads * head_dim]`.
    fn attend(&self, pass: &Pass<'_>, layer: usize, x: &Tensor) -> Tensor {
        let Pass { ops, kv, step, .. } = pass;
        let Sizes { heads, kv_heads, head_dim, eps, .. } = *pass.sizes;
        let qkv = self.qkv_proj.forward(x).view([-1, heads + 2 * kv_heads, head_dim]);
        let mut qk = qkv.narrow(1, 0, heads + kv_heads);
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            let q = ops.rms_norm(&qk.narrow(1, 0, heads).contiguous(), q_norm, eps);
            let k = ops.rms_norm(&qk.narrow(1, heads, kv_heads).contiguous(), k_norm, eps);
            qk = Tensor::cat(&[q, k], 1);
        }
        if let Some(rope) = self.rope {
            if pass.sizes.interleaved_heads {
                qk = apart(&qk);
            }
            qk = ops.rotate(&qk, &step.rotations[rope]);
        }
        let q = qk.narrow(1, 0, heads);
        let (k, v) = (qk.narrow(1, heads, kv_heads), qkv.narrow(1, heads + kv_heads, kv_heads));
        let keys_values = Tensor::cat(&[k, v], 1);
        kv.write(layer, &step.slots, &keys_values);
        step.attention[self.window].forward(layer, kv, &q, &keys_values)
    }
}

/// The pairs (2i, 2i + 1) of each head as (i, i + head_dim/2). `heads`: `[rows, n_heads, head_dim]`.
fn apart(heads: &Tensor) -> Tensor {
    let [rows, n_heads, head_dim] = heads.size()[..] else { unreachable!("rows of heads") };
    heads.reshape([rows, n_heads, head_dim / 2, 2]).transpose(2, 3).reshape([rows, n_heads, head_dim])
}

impl Head {
    pub(super) fn load(
        loader: &Loader<'_>,
        sizes: &Sizes,
        tied: bool,
        embed_tokens: Option<&Embedding>,
    ) -> anyhow::Result<Self> {
        let shape = [i64::from(sizes.vocabulary), sizes.hidden];
        let lm_head = match embed_tokens.and_then(Embedding::owned) {
            Some(embed_tokens) if tied => {
                loader.ops().named("embed_tokens", loader.ops().linear(embed_tokens, None))
            }
            _ if tied => loader.linear(embedding::NAME, shape, false)?,
            _ => loader.linear("lm_head", shape, false)?,
        };
        Ok(Self { norm: sizes.norm(loader, "model.norm.weight", sizes.hidden)?, lm_head })
    }

    /// `x`: `[rows, hidden_size]` → logits, `[rows, vocab_size]`.
    pub(super) fn forward(&self, sizes: &Sizes, ops: &dyn Ops, x: &Tensor) -> Tensor {
        let logits = self.lm_head.forward(&ops.rms_norm(x, &self.norm, sizes.eps));
        match sizes.logit_softcap {
            Some(cap) => ops.softcap(logits, cap),
            None => logits,
        }
    }
}

impl Sizes {
    pub(super) fn new(config: &DecoderConfig) -> Self {
        Self {
            hidden: config.hidden_size as i64,
            heads: config.num_attention_heads as i64,
            kv_heads: config.num_key_value_heads as i64,
            head_dim: config.head_dim as i64,
            intermediate: config.intermediate_size as i64,
            experts: config.experts,
            vocabulary: config.vocab_size as u32,
            eps: config.rms_norm_eps,
            qkv_bias: config.qkv_bias,
            o_bias: config.o_bias,
            mlp_bias: config.mlp_bias,
            qk_norm: config.qk_norm,
            sandwich_norms: config.sandwich_norms,
            sub_norms: config.sub_norms,
            norm_offset: config.norm_offset,
            interleaved_heads: config.interleaved_heads,
            activation: config.activation,
            embedding_scale: config.embedding_scale,
            scoring: Scoring { scale: config.attention_scale, softcap: config.attention_softcap },
            logit_softcap: config.logit_softcap,
            fused: config.fused,
        }
    }

    /// Of the matrices of one layer through which a row goes.
    pub(super) fn layer_parameters(&self) -> u64 {
        let attention = 2 * (self.heads + self.kv_heads) * self.head_dim;
        let intermediate = self
            .experts
            .map_or(self.intermediate, |experts| (experts.per_token * experts.intermediate_size) as i64);
        (self.hidden * (attention + 3 * intermediate)).unsigned_abs()
    }

    /// Linear layers of hidden states side by side, by the checkpoint, where they are `name`, or here.
    pub(super) fn joined(
        &self,
        loader: &Loader<'_>,
        name: &str,
        parts: &[(&str, i64)],
        bias: bool,
    ) -> anyhow::Result<Box<dyn Linear>> {
        if !self.fused {
            return loader.fused(parts, self.hidden, bias);
        }
        let n_out = parts.iter().map(|(_, n_out)| n_out).sum();
        loader.linear(name, [n_out, self.hidden], bias)
    }

    /// What a norm scales by: `[width]`, in f32 where it is not what the checkpoint has.
    pub(super) fn norm(&self, loader: &Loader<'_>, name: &str, width: i64) -> anyhow::Result<Weight> {
        let weight = loader.get(name, &[width])?;
        Ok(match self.norm_offset {
            true => Shared::Owned(weight.tensor().to_kind(Kind::Float) + 1.0),
            false => weight,
        })
    }
}
