//! A decoder of RMSNorm, rotary embedding, grouped-query attention and gated MLPs: Llama and its kin, as their configs say.
//! Source: Llama, arXiv:2302.13971; grouped-query attention, arXiv:2305.13245.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use models::{Activation, DecoderConfig, LayerConfig, ModelFolder, Weights};
use schemas::hidden::Slice;
use schemas::{DType, SequenceId};
use tch::{Device, Kind, Tensor};

use super::blocks::Blocks;
use super::device::{ComputeDevice, set_threads};
use super::device_rows::DeviceRows;
use super::exact::Exact;
use super::kv::KvCache;
use super::libtorch::{Libtorch, row_counts};
use super::memory::Shared;
use super::message::{from_message, kind_of, to_message};
use super::ops::{Attention, Linear, Ops, Scoring};
use super::plan::LayerPlan;
use super::rope::{Rope, Rotation};
use super::rows::output_rows;
use super::step::{Engine, RowError, RowOutput, RowSpec, StepBatch, StepOutput};
use super::weights::{Loader, Weight};

/// How an engine computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineOptions {
    /// Of weights, hidden states and KV cache.
    pub dtype: DType,
    /// Where tensors live.
    pub device: ComputeDevice,
    /// Size of the KV cache in tokens, rounded down to whole blocks.
    pub kv_tokens: u32,
    /// Tokens a block.
    pub block_tokens: u32,
    /// Threads of the CPU kernels; none takes as many as pay for layers of this size.
    pub threads: Option<usize>,
    /// Gives each row the same bits whatever is computed with it, in whatever chunks and on any number of threads or shards.
    /// On the CPU only.
    pub deterministic: bool,
}

/// A run of decoder layers of a model; the first also embeds, the last also gives logits.
#[derive(Debug)]
pub struct Decoder {
    sizes: Sizes,
    ops: Box<dyn Ops>,
    /// On the first shard, `[vocab_size, hidden_size]`.
    embed_tokens: Option<Weight>,
    layers: Vec<Layer>,
    /// On the last shard.
    head: Option<Head>,
    ropes: Vec<Rope>,
    /// How far the layers see, each once.
    windows: Vec<Option<u32>>,
    kv: KvCache,
    kept: HashMap<SequenceId, KeptRow>,
    options: (Kind, Device),
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    hidden: i64,
    heads: i64,
    kv_heads: i64,
    head_dim: i64,
    intermediate: i64,
    vocabulary: u32,
    eps: f64,
    qkv_bias: bool,
    o_bias: bool,
    mlp_bias: bool,
    qk_norm: bool,
    sandwich_norms: bool,
    norm_offset: bool,
    activation: Activation,
    embedding_scale: Option<f64>,
    scoring: Scoring,
    logit_softcap: Option<f64>,
    fused: bool,
}

#[derive(Debug)]
struct Layer {
    before_attention: Weight,
    /// q, k and v heads side by side: `[(n_heads + 2 n_kv_heads) * head_dim, hidden_size]`.
    qkv_proj: Box<dyn Linear>,
    /// Where each head of queries and keys is normed, `[head_dim]` each.
    qk_norm: Option<[Weight; 2]>,
    o_proj: Box<dyn Linear>,
    /// Where what attention gives is normed before it is added.
    after_attention: Option<Weight>,
    before_mlp: Weight,
    /// Gate and up side by side: `[2 * intermediate_size, hidden_size]`.
    gate_up_proj: Box<dyn Linear>,
    down_proj: Box<dyn Linear>,
    /// Where what the MLP gives is normed before it is added.
    after_mlp: Option<Weight>,
    /// Which of the model's rotary embeddings turns queries and keys.
    rope: Option<usize>,
    /// How far it sees, by its place among the shard's windows.
    window: usize,
}

#[derive(Debug)]
struct Head {
    norm: Weight,
    lm_head: Box<dyn Linear>,
}

/// What all layers need to know of a step, and the head. All that it needs of the host is on the device before the first layer
/// is started, so that the host waits for the device once a step.
struct Step {
    /// One for each rotary embedding of the model.
    rotations: Vec<Rotation>,
    slots: Tensor,
    /// One for each of the shard's windows.
    attention: Vec<Box<dyn Attention>>,
    /// On the last shard, the rows that give a token; none when all do.
    sampled: Option<Tensor>,
    /// On the last shard, when it is not on the CPU.
    rows: Option<DeviceRows>,
}

/// One step's way through the layers.
struct Pass<'a> {
    sizes: &'a Sizes,
    ops: &'a dyn Ops,
    kv: &'a KvCache,
    step: &'a Step,
}

/// The logits for the token at `position`: `[vocab_size]`, in the dtype in which they were computed.
#[derive(Debug)]
struct KeptRow {
    position: u32,
    logits: Tensor,
}

impl Decoder {
    /// Loads shard `shard` of `plan` from a model folder: only its own layers are read.
    pub fn load(
        folder: &ModelFolder,
        plan: &LayerPlan,
        shard: u16,
        options: &EngineOptions,
    ) -> anyhow::Result<Self> {
        Self::from_weights(folder.config(), &folder.open_weights()?, plan, shard, options)
    }

    /// The same without a folder.
    pub fn from_weights(
        config: &DecoderConfig,
        weights: &Weights,
        plan: &LayerPlan,
        shard: u16,
        options: &EngineOptions,
    ) -> anyhow::Result<Self> {
        let device = options.device.open()?;
        let sizes = Sizes::new(config);
        let threads = set_threads(options.threads, sizes.layer_parameters() * options.dtype.size() as u64);
        let _guard = tch::no_grad_guard();
        let kind = kind_of(options.dtype);
        let range = plan.range(shard)?;
        let n_layers: u64 = plan.layers().iter().map(|&n| u64::from(n)).sum();
        ensure!(
            n_layers == config.num_hidden_layers as u64,
            "the layer plan has {n_layers} layers, the model {}",
            config.num_hidden_layers
        );
        ensure!(
            !options.deterministic || device == Device::Cpu,
            "`deterministic` is for the CPU, not for `{}`",
            options.device
        );
        let ops: Box<dyn Ops> = match options.dtype {
            DType::F32 if options.deterministic => Box::new(Exact::<f32>::new(threads)),
            DType::Bf16 if options.deterministic => Box::new(Exact::<half::bf16>::new(threads)),
            _ => Box::new(Libtorch { kind, device }),
        };
        let loader = Loader::new(weights, kind, device, &*ops);
        let embed_tokens = (shard == 0).then(|| sizes.embed_tokens(&loader)).transpose()?;
        let head = (shard + 1 == plan.shards())
            .then(|| Head::load(&loader, &sizes, config.tie_word_embeddings, embed_tokens.as_ref()))
            .transpose()?;
        let mut windows = Vec::new();
        let mut layers = Vec::with_capacity(range.len());
        for i in range {
            layers.push(Layer::load(&loader, &sizes, i, config.layers[i as usize], &mut windows)?);
        }
        let blocks = Blocks::new(options.kv_tokens, options.block_tokens)?;
        let kv_heads = config.num_key_value_heads as u32;
        Ok(Self {
            sizes,
            embed_tokens,
            head,
            ropes: (config.ropes.iter())
                .map(|rope| Rope::new(rope, config.rotary_dim, ops.between(), device))
                .collect(),
            windows,
            kv: KvCache::new(blocks, layers.len(), kv_heads, sizes.head_dim, (kind, device)),
            layers,
            ops,
            kept: HashMap::new(),
            options: (kind, device),
        })
    }

    /// Has the kernels compiled or loaded for steps of up to `rows_max` rows, `sampled_max` of which give a token, so that no
    /// request waits for it.
    pub fn warm_up(&mut self, rows_max: usize, sampled_max: usize) -> anyhow::Result<()> {
        match self.options {
            (Kind::BFloat16, Device::Cpu) => self.compile_kernels(rows_max, sampled_max),
            (_, Device::Cpu) => {}
            _ => self.load_kernels(rows_max)?,
        }
        Ok(())
    }

    /// Large models stop at a time limit, and compile the rest when it is first needed.
    fn compile_kernels(&self, rows_max: usize, sampled_max: usize) {
        const TIME_MAX: Duration = Duration::from_secs(3);
        let _guard = tch::no_grad_guard();
        let until = Instant::now() + TIME_MAX;
        for rows in row_counts(rows_max as i64).take_while(|_| Instant::now() < until) {
            // The weights of all layers have the same shapes.
            for layer in self.layers.iter().take(1) {
                let linears = [&layer.qkv_proj, &layer.o_proj, &layer.gate_up_proj, &layer.down_proj];
                linears.iter().for_each(|linear| linear.warm_up(rows));
            }
            for head in self.head.iter().filter(|_| rows as usize <= sampled_max) {
                head.lm_head.warm_up(rows);
            }
        }
    }

    /// Runs a prompt, its next token and a chunk behind it, which between them take every path.
    fn load_kernels(&mut self, rows_max: usize) -> anyhow::Result<()> {
        let sequence = SequenceId(u64::MAX);
        let tokens = self.kv.blocks.total().saturating_mul(self.kv.blocks.block_tokens()) as usize;
        let prompt = rows_max.clamp(1, tokens.saturating_sub(3).max(1));
        let sampled = RowSpec { temperature: 0.5, candidates: 64, extras: vec![0], keep: false };
        let greedy = RowSpec { candidates: 1, ..RowSpec::default() };
        for (start, rows, spec) in [(0, prompt, sampled), (prompt, 1, greedy.clone()), (prompt, 2, greedy)] {
            let slices = [Slice { sequence, start: start as u32, ids: vec![0; rows], sample: true }];
            let batch = StepBatch { slices: &slices, overlays: &[], rows: &[spec] };
            let states = Tensor::zeros([rows as i64, self.sizes.hidden], (self.options.0, Device::Cpu));
            let states = self.embed_tokens.is_none().then(|| to_message(states)).transpose()?;
            self.forward(&batch, states.as_ref())?;
        }
        self.release(sequence);
        Ok(())
    }

    /// Token ids → `[rows, hidden_size]`, with the rows of images over them.
    fn embed(&self, embed_tokens: &Weight, batch: &StepBatch<'_>) -> anyhow::Result<Tensor> {
        let vocabulary = self.sizes.vocabulary;
        let ids = batch.slices.iter().flat_map(|slice| &slice.ids);
        if let Some(id) = ids.clone().find(|&&id| id >= vocabulary) {
            anyhow::bail!("id {id} is outside the vocabulary of {vocabulary}");
        }
        let ids: Vec<i64> = ids.map(|&id| i64::from(id)).collect();
        let ids = Tensor::from_slice(&ids).to_device(self.options.1);
        let mut x = embed_tokens.tensor().index_select(0, &ids);
        if let Some(scale) = self.sizes.embedding_scale {
            // In the dtype of what it scales, as in transformers.
            let scale = Tensor::from(scale).to_kind(x.kind()).double_value(&[]);
            x *= scale;
        }
        for overlay in batch.overlays {
            let rows = from_message(&overlay.rows);
            x.narrow(0, overlay.row as i64, rows.tensor().size()[0]).copy_(rows.tensor());
        }
        Ok(x)
    }

    /// Makes room for the step's rows and plans what is the same in every layer.
    fn prepare(&mut self, batch: &StepBatch<'_>) -> anyhow::Result<Step> {
        let slots = self.kv.extend(batch.slices)?;
        let attention = |&window| self.ops.attention(batch.slices, &self.kv, window, self.sizes.scoring);
        let attention = self.windows.iter().map(attention).collect();
        let mut positions = Vec::with_capacity(batch.row_count());
        let mut end = 0;
        for slice in batch.slices {
            let slice_end = slice.start + slice.ids.len() as u32;
            positions.extend((slice.start..slice_end).map(i64::from));
            end = end.max(slice_end);
        }
        let device = self.options.1;
        let on_device_positions = Tensor::from_slice(&positions).to_device(device);
        let rotations = self.ropes.iter_mut().map(|rope| rope.at(&on_device_positions, end)).collect();
        let sampled = sampled_rows(batch.slices);
        let not_all = self.head.is_some() && sampled.len() < positions.len();
        let sampled = not_all.then(|| Tensor::from_slice(&sampled).to_device(device));
        let on_device = self.head.is_some() && device != Device::Cpu;
        let rows = on_device.then(|| DeviceRows::new(batch.rows, self.sizes.vocabulary, device));
        Ok(Step { rotations, slots, attention, sampled, rows })
    }

    /// `x`: the last layer's hidden states, `[rows, hidden_size]`.
    fn output(&mut self, x: Tensor, batch: &StepBatch<'_>, step: &Step) -> anyhow::Result<StepOutput> {
        let Some(head) = &self.head else { return Ok(StepOutput::Hidden(Some(to_message(x)?))) };
        if batch.rows.is_empty() {
            return Ok(StepOutput::Rows(Vec::new()));
        }
        let x = step.sampled.as_ref().map_or_else(|| x.shallow_clone(), |sampled| x.index_select(0, sampled));
        let logits = head.forward(&self.sizes, &*self.ops, &x);
        let targets = batch.slices.iter().filter(|slice| slice.sample);
        let rows = (0..).zip(targets).zip(batch.rows).filter(|(_, spec)| spec.keep);
        for ((row, slice), _) in rows {
            let position = slice.start + slice.ids.len() as u32;
            // A copy: a view would keep the logits of the whole step alive.
            self.kept.insert(slice.sequence, KeptRow { position, logits: logits.get(row).copy() });
        }
        Ok(StepOutput::Rows(match &step.rows {
            Some(rows) => rows.read(&logits, batch.rows),
            None => output_rows(&logits, batch.rows),
        }))
    }

    fn check(&self, batch: &StepBatch<'_>, states: Option<&schemas::Tensor>) -> anyhow::Result<()> {
        let samples = batch.slices.iter().filter(|slice| slice.sample).count();
        ensure!(
            self.head.is_none() || samples == batch.rows.len(),
            "{samples} slices give a token, but {} rows are asked for",
            batch.rows.len()
        );
        for overlay in batch.overlays {
            let [rows, width] = overlay.rows.shape() else {
                anyhow::bail!("image embeddings are not a matrix")
            };
            let fits =
                overlay.row + *rows as usize <= batch.row_count() && i64::from(*width) == self.sizes.hidden;
            ensure!(fits, "{rows} image embeddings of width {width} at row {}", overlay.row);
            ensure!(self.embed_tokens.is_some(), "image embeddings behind the first shard");
        }
        let Some(states) = states else { return Ok(()) };
        ensure!(self.embed_tokens.is_none(), "hidden states for the first shard");
        let expected = [batch.row_count(), self.sizes.hidden as usize];
        let found: Vec<usize> = states.shape().iter().map(|&n| n as usize).collect();
        ensure!(found == expected, "hidden states of shape {found:?}, expected {expected:?}");
        ensure!(kind_of(states.dtype()) == self.options.0, "hidden states of dtype {:?}", states.dtype());
        Ok(())
    }
}

impl Engine for Decoder {
    fn forward(
        &mut self,
        batch: &StepBatch<'_>,
        states: Option<&schemas::Tensor>,
    ) -> anyhow::Result<StepOutput> {
        let _guard = tch::no_grad_guard();
        self.check(batch, states)?;
        // Lives until the step has been computed: `x` may lie in the message.
        let received = states.map(from_message);
        let mut x = match (&self.embed_tokens, &received) {
            (Some(embed_tokens), _) => self.embed(embed_tokens, batch)?,
            (None, Some(received)) => received.tensor().to_device(self.options.1),
            (None, None) => anyhow::bail!("hidden states are missing"),
        };
        if batch.slices.is_empty() {
            return Ok(match self.head {
                Some(_) => StepOutput::Rows(Vec::new()),
                None => StepOutput::Hidden(Some(to_message(x)?)),
            });
        }
        let step = self.prepare(batch)?;
        let pass = Pass { sizes: &self.sizes, ops: &*self.ops, kv: &self.kv, step: &step };
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&pass, i, x);
        }
        self.output(x, batch, &step)
    }

    fn full_row(
        &self,
        sequence: SequenceId,
        position: u32,
        spec: &RowSpec,
    ) -> Option<Result<RowOutput, RowError>> {
        let _guard = tch::no_grad_guard();
        let kept = self.kept.get(&sequence).filter(|kept| kept.position == position)?;
        let spec = RowSpec { candidates: self.sizes.vocabulary, ..spec.clone() };
        let logits = kept.logits.unsqueeze(0);
        let specs = std::slice::from_ref(&spec);
        let rows = match self.options.1 {
            Device::Cpu => output_rows(&logits, specs),
            device => DeviceRows::new(specs, self.sizes.vocabulary, device).read(&logits, specs),
        };
        rows.into_iter().next()
    }

    fn release(&mut self, sequence: SequenceId) {
        self.kv.blocks.release(sequence);
        self.kept.remove(&sequence);
    }

    fn blocks_total(&self) -> u32 {
        self.kv.blocks.total()
    }

    fn blocks_used(&self) -> u32 {
        self.kv.blocks.used()
    }

    fn block_tokens(&self) -> u32 {
        self.kv.blocks.block_tokens()
    }

    fn vocabulary(&self) -> u32 {
        self.sizes.vocabulary
    }
}

impl Layer {
    /// Adds how far the layer sees to the shard's `windows` where none is as far.
    fn load(
        loader: &Loader<'_>,
        sizes: &Sizes,
        i: u32,
        config: LayerConfig,
        windows: &mut Vec<Option<u32>>,
    ) -> anyhow::Result<Self> {
        let Sizes { hidden, heads, kv_heads, head_dim, intermediate, .. } = *sizes;
        let q_proj = format!("model.layers.{i}.self_attn.q_proj");
        let k_proj = format!("model.layers.{i}.self_attn.k_proj");
        let v_proj = format!("model.layers.{i}.self_attn.v_proj");
        let o_proj = format!("model.layers.{i}.self_attn.o_proj");
        let gate_proj = format!("model.layers.{i}.mlp.gate_proj");
        let up_proj = format!("model.layers.{i}.mlp.up_proj");
        let down_proj = format!("model.layers.{i}.mlp.down_proj");
        let (n_q, n_kv) = (heads * head_dim, kv_heads * head_dim);
        let qkv = [(&*q_proj, n_q), (&*k_proj, n_kv), (&*v_proj, n_kv)];
        let gate_up = [(&*gate_proj, intermediate), (&*up_proj, intermediate)];
        let norm =
            |name: &str, width: i64| sizes.norm(loader, &format!("model.layers.{i}.{name}.weight"), width);
        // Their parts side by side, by the checkpoint or here.
        let joined = |name: &str, parts: &[(&str, i64)], bias: bool| match sizes.fused {
            true => {
                let n_out = parts.iter().map(|(_, n_out)| n_out).sum();
                loader.linear(&format!("model.layers.{i}.{name}"), [n_out, hidden], bias)
            }
            false => loader.fused(parts, hidden, bias),
        };
        let qk_norm = match sizes.qk_norm {
            true => Some([norm("self_attn.q_norm", head_dim)?, norm("self_attn.k_norm", head_dim)?]),
            false => None,
        };
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
            qkv_proj: joined("self_attn.qkv_proj", &qkv, sizes.qkv_bias)?,
            qk_norm,
            o_proj: loader.linear(&o_proj, [hidden, n_q], sizes.o_bias)?,
            after_attention: after_attention.map(|name| norm(name, hidden)).transpose()?,
            before_mlp: norm(before_mlp, hidden)?,
            gate_up_proj: joined("mlp.gate_up_proj", &gate_up, sizes.mlp_bias)?,
            down_proj: loader.linear(&down_proj, [hidden, intermediate], sizes.mlp_bias)?,
            after_mlp: after_mlp.map(|name| norm(name, hidden)).transpose()?,
            rope: config.rope,
            window,
        })
    }

    /// `x`: `[rows, hidden_size]` → the same shape.
    fn forward(&self, pass: &Pass<'_>, layer: usize, x: Tensor) -> Tensor {
        let Pass { sizes, ops, .. } = pass;
        let add = |x: Tensor, linear: &dyn Linear, y: &Tensor, norm: &Option<Weight>| match norm {
            Some(norm) => ops.add(x, &ops.rms_norm(&linear.forward(y), norm, sizes.eps)),
            None => linear.add_to(x, y),
        };
        let normed = ops.rms_norm(&x, &self.before_attention, sizes.eps);
        let attended = self.attend(pass, layer, &normed);
        let x = add(x, &*self.o_proj, &attended, &self.after_attention);
        let normed = ops.rms_norm(&x, &self.before_mlp, sizes.eps);
        let gated = ops.gated(&self.gate_up_proj.forward(&normed), sizes.activation);
        add(x, &*self.down_proj, &gated, &self.after_mlp)
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
            qk = ops.rotate(&qk, &step.rotations[rope]);
        }
        let q = qk.narrow(1, 0, heads);
        let (k, v) = (qk.narrow(1, heads, kv_heads), qkv.narrow(1, heads + kv_heads, kv_heads));
        let keys_values = Tensor::cat(&[k, v], 1);
        kv.write(layer, &step.slots, &keys_values);
        step.attention[self.window].forward(layer, kv, &q, &keys_values)
    }
}

impl Head {
    fn load(
        loader: &Loader<'_>,
        sizes: &Sizes,
        tied: bool,
        embed_tokens: Option<&Weight>,
    ) -> anyhow::Result<Self> {
        let lm_head = match embed_tokens {
            Some(Shared::Owned(embed_tokens)) if tied => Shared::Owned(embed_tokens.shallow_clone()),
            _ if tied => sizes.embed_tokens(loader)?,
            _ => loader.get("lm_head.weight", &[i64::from(sizes.vocabulary), sizes.hidden])?,
        };
        Ok(Self {
            norm: sizes.norm(loader, "model.norm.weight", sizes.hidden)?,
            lm_head: loader.ops().linear(lm_head, None),
        })
    }

    /// `x`: `[rows, hidden_size]` → logits, `[rows, vocab_size]`.
    fn forward(&self, sizes: &Sizes, ops: &dyn Ops, x: &Tensor) -> Tensor {
        let logits = self.lm_head.forward(&ops.rms_norm(x, &self.norm, sizes.eps));
        match sizes.logit_softcap {
            Some(cap) => ops.softcap(logits, cap),
            None => logits,
        }
    }
}

impl Sizes {
    fn new(config: &DecoderConfig) -> Self {
        Self {
            hidden: config.hidden_size as i64,
            heads: config.num_attention_heads as i64,
            kv_heads: config.num_key_value_heads as i64,
            head_dim: config.head_dim as i64,
            intermediate: config.intermediate_size as i64,
            vocabulary: config.vocab_size as u32,
            eps: config.rms_norm_eps,
            qkv_bias: config.qkv_bias,
            o_bias: config.o_bias,
            mlp_bias: config.mlp_bias,
            qk_norm: config.qk_norm,
            sandwich_norms: config.sandwich_norms,
            norm_offset: config.norm_offset,
            activation: config.activation,
            embedding_scale: config.embedding_scale,
            scoring: Scoring { scale: config.attention_scale, softcap: config.attention_softcap },
            logit_softcap: config.logit_softcap,
            fused: config.fused,
        }
    }

    /// Of the matrices of one layer.
    fn layer_parameters(&self) -> u64 {
        let attention = 2 * (self.heads + self.kv_heads) * self.head_dim;
        (self.hidden * (attention + 3 * self.intermediate)).unsigned_abs()
    }

    /// What a norm scales by: `[width]`, in f32 where it is not what the checkpoint has.
    fn norm(&self, loader: &Loader<'_>, name: &str, width: i64) -> anyhow::Result<Weight> {
        let weight = loader.get(name, &[width])?;
        Ok(match self.norm_offset {
            true => Shared::Owned(weight.tensor().to_kind(Kind::Float) + 1.0),
            false => weight,
        })
    }

    fn embed_tokens(&self, loader: &Loader<'_>) -> anyhow::Result<Weight> {
        loader.get("model.embed_tokens.weight", &[i64::from(self.vocabulary), self.hidden])
    }
}

/// Last rows of the slices that give a token.
fn sampled_rows(slices: &[Slice]) -> Vec<i64> {
    let mut end = 0;
    let ends = slices.iter().map(|slice| {
        end += slice.ids.len() as i64;
        (slice.sample, end)
    });
    ends.filter(|(sample, _)| *sample).map(|(_, end)| end - 1).collect()
}
