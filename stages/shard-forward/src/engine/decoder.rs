//! A decoder of RMSNorm, rotary embedding, grouped-query attention and gated MLPs: Llama and its kin, as their configs say.
//! Source: Llama, arXiv:2302.13971; grouped-query attention, arXiv:2305.13245.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::ensure;
use models::{DecoderConfig, ModelFolder, Weights};
use schemas::hidden::Slice;
use schemas::{DType, SequenceId};
use tch::{Device, Kind, Tensor};

use super::blocks::Blocks;
use super::device::{ComputeDevice, set_threads};
use super::device_rows::DeviceRows;
use super::embedding::Embedding;
use super::exact::Exact;
use super::kv::KvCache;
use super::layer::{Head, Layer, Pass, Sizes, Step};
use super::libtorch::{Libtorch, row_counts};
use super::memory::elements;
use super::message::{from_message, kind_of, to_message};
use super::ops::Ops;
use super::plan::LayerPlan;
use super::positions::{Lengths, Positions};
use super::record::{Place, Recorded, Recorder};
use super::rope::Rope;
use super::rows::output_rows;
use super::step::{Engine, RowError, RowOutput, RowSpec, StepBatch, StepOutput};
use super::weights::Loader;

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
    /// On the first shard.
    embed_tokens: Option<Embedding>,
    layers: Vec<Layer>,
    /// On the last shard.
    head: Option<Head>,
    ropes: Vec<Rope>,
    short_length: Option<u32>,
    /// How far the layers see, each once.
    windows: Vec<Option<u32>>,
    kv: KvCache,
    kept: HashMap<SequenceId, KeptRow>,
    options: (Kind, Device),
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
        Self::build(config, weights, (plan, shard), options, |ops| ops)
    }

    /// Loads the whole of a model, and what records where its steps' time goes.
    pub fn load_recorded(folder: &ModelFolder, options: &EngineOptions) -> anyhow::Result<(Self, Recorder)> {
        let plan = LayerPlan::even(u32::try_from(folder.config().num_hidden_layers)?, 1)?;
        let recorder = Recorder::new(options.device.open()?);
        let recorded = |ops| Box::new(Recorded::new(ops, recorder.clone())) as Box<dyn Ops>;
        let weights = folder.open_weights()?;
        let decoder = Self::build(folder.config(), &weights, (&plan, 0), options, recorded)?;
        Ok((decoder, recorder))
    }

    fn build(
        config: &DecoderConfig,
        weights: &Weights,
        (plan, shard): (&LayerPlan, u16),
        options: &EngineOptions,
        wrap: impl FnOnce(Box<dyn Ops>) -> Box<dyn Ops>,
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
        let ops = wrap(ops);
        let loader = Loader::new(weights, (kind, device), &*ops, threads, config.ternary);
        let embed_tokens = (shard == 0).then(|| Embedding::load(&loader, &sizes, kind)).transpose()?;
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
            short_length: config.short_length(),
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

    /// Bytes of the matrices that a step of one row goes through. The embedding, of which it needs one row, is not among them
    /// unless it is the head too.
    pub fn row_bytes(&self) -> u64 {
        let layers = self.layers.iter().map(Layer::row_bytes).sum::<u64>();
        layers + self.head.as_ref().map_or(0, |head| head.lm_head.bytes())
    }

    /// Runs one slice through a whole model and gives `each` the logits behind its rows from number `from` on, in f32, with the
    /// number of the row.
    ///
    /// Errors as in [`Engine::forward`], and where the model is not whole.
    pub fn score(
        &mut self,
        slice: &Slice,
        from: usize,
        mut each: impl FnMut(usize, &[f32]),
    ) -> anyhow::Result<()> {
        /// Rows whose logits are in memory at once.
        const PIECE: usize = 32;
        let _guard = tch::no_grad_guard();
        let slice = Slice { sample: false, ..slice.clone() };
        let batch = StepBatch::new(std::slice::from_ref(&slice), &[]);
        self.check(&batch, None)?;
        let Some(embed_tokens) = &self.embed_tokens else { anyhow::bail!("a part of a model is scored") };
        let x = self.embed(embed_tokens, &batch)?;
        let step = self.prepare(&batch)?;
        let x = self.through_layers(x, &step);
        let Some(head) = &self.head else { anyhow::bail!("a part of a model is scored") };
        let n_rows = slice.ids.len();
        for start in (from..n_rows).step_by(PIECE) {
            let rows = x.narrow(0, start as i64, PIECE.min(n_rows - start) as i64);
            let logits = head.forward(&self.sizes, &*self.ops, &rows).to_device(Device::Cpu);
            let logits = logits.to_kind(Kind::Float).contiguous();
            let width = self.sizes.vocabulary as usize;
            let rows = elements(&logits).chunks_exact(width);
            (start..).zip(rows).for_each(|(row, logits)| each(row, logits));
        }
        Ok(())
    }

    /// `x`: `[rows, hidden_size]` → the last layer's hidden states, of the same shape.
    fn through_layers(&self, mut x: Tensor, step: &Step) -> Tensor {
        let pass = Pass { sizes: &self.sizes, ops: &*self.ops, kv: &self.kv, step };
        for (i, layer) in self.layers.iter().enumerate() {
            self.ops.enter(Place::Layer(i));
            x = layer.forward(&pass, i, x);
        }
        x
    }

    /// Large models stop at a time limit, and compile the rest when it is first needed.
    fn compile_kernels(&self, rows_max: usize, sampled_max: usize) {
        const TIME_MAX: Duration = Duration::from_secs(3);
        let _guard = tch::no_grad_guard();
        let until = Instant::now() + TIME_MAX;
        for rows in row_counts(rows_max as i64).take_while(|_| Instant::now() < until) {
            // The weights of all layers have the same shapes.
            for layer in self.layers.iter().take(1) {
                layer.linears().for_each(|linear| linear.warm_up(rows));
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
            let specs = [spec];
            let batch = StepBatch::new(&slices, &specs);
            let states = Tensor::zeros([rows as i64, self.sizes.hidden], (self.options.0, Device::Cpu));
            let states = self.embed_tokens.is_none().then(|| to_message(states)).transpose()?;
            self.forward(&batch, states.as_ref())?;
        }
        self.release(sequence);
        Ok(())
    }

    /// Token ids → `[rows, hidden_size]`, with the rows of images over them.
    fn embed(&self, embed_tokens: &Embedding, batch: &StepBatch<'_>) -> anyhow::Result<Tensor> {
        let vocabulary = self.sizes.vocabulary;
        let ids = batch.slices.iter().flat_map(|slice| &slice.ids);
        if let Some(id) = ids.clone().find(|&&id| id >= vocabulary) {
            anyhow::bail!("id {id} is outside the vocabulary of {vocabulary}");
        }
        let ids: Vec<u32> = ids.copied().collect();
        let mut x = embed_tokens.rows(&ids, self.options.1);
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
        let device = self.options.1;
        let (positions, end) = Positions::new(batch.slices, batch.grids, device);
        let lengths = Lengths::new(batch.slices, batch.opened, self.short_length, device);
        let rotations = self.ropes.iter_mut().map(|rope| rope.at(&positions, &lengths, end)).collect();
        let sampled = sampled_rows(batch.slices);
        let not_all = self.head.is_some() && sampled.len() < batch.row_count();
        let sampled = not_all.then(|| Tensor::from_slice(&sampled).to_device(device));
        let on_device = self.head.is_some() && device != Device::Cpu;
        let rows = on_device.then(|| DeviceRows::new(batch.rows, self.sizes.vocabulary, device));
        Ok(Step { rotations, slots, attention, sampled, rows })
    }

    /// `x`: the last layer's hidden states, `[rows, hidden_size]`.
    fn output(&mut self, x: Tensor, batch: &StepBatch<'_>, step: &Step) -> anyhow::Result<StepOutput> {
        self.ops.enter(Place::Head);
        let Some(head) = &self.head else { return Ok(StepOutput::Hidden(Some(to_message(x)?))) };
        if batch.rows.is_empty() {
            return Ok(StepOutput::Rows(Vec::new()));
        }
        let x = step.sampled.as_ref().map_or_else(|| x.shallow_clone(), |sampled| x.index_select(0, sampled));
        let logits = head.forward(&self.sizes, &*self.ops, &x);
        self.ops.enter(Place::Rows);
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
        let grids = batch.grids.len();
        ensure!(grids == 0 || grids == batch.slices.len(), "images of {grids} slices");
        let opened = batch.opened.len();
        ensure!(opened == 0 || opened == batch.slices.len(), "lengths of {opened} slices");
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
        self.ops.enter(Place::Embedding);
        let x = match (&self.embed_tokens, &received) {
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
        self.ops.enter(Place::Plan);
        let step = self.prepare(batch)?;
        let x = self.through_layers(x, &step);
        let output = self.output(x, batch, &step);
        self.ops.enter(Place::Outside);
        output
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

    fn short_length(&self) -> Option<u32> {
        self.short_length
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
