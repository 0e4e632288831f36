//! Deterministic mode: every logit has the same bits however its row is computed.
//!
//! Random weights, whose logits lie close together: a difference in the last bits soon changes a token.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::Path;

use models::{DecoderConfig, Weights};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::tensor::{Dtype, TensorView};
use schemas::hidden::Slice;
use schemas::{DType, SequenceId};
use shard_forward::engine::{
    ComputeDevice, Decoder, Engine, EngineOptions, LayerPlan, RowSpec, StepBatch, StepOutput,
};

const VOCABULARY: u32 = 400;
const LAYERS: u32 = 3;
const ANSWER_TOKENS: usize = 20;
const PROMPT_TOKENS: [usize; 4] = [1, 9, 40, 70];

/// A model cut into shards.
struct Model {
    shards: Vec<Decoder>,
}

/// One request and what an undisturbed run gave it.
struct Answer {
    prompt: Vec<u32>,
    greedy: bool,
    tokens: Vec<u32>,
    /// For each token: the bits of all logits.
    logits: Vec<Vec<u32>>,
}

/// Layers of 96 elements, in heads of 24: no multiple of the padding anywhere.
fn config() -> String {
    format!(
        r#"{{"model_type": "llama", "hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": {LAYERS},
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 24, "vocab_size": {VOCABULARY},
        "attention_bias": true, "max_position_embeddings": 512}}"#
    )
}

/// A checkpoint of random weights, of a size that lets rows keep theirs.
fn checkpoint(seed: u64) -> tempfile::TempDir {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("model.embed_tokens.weight".into(), vec![VOCABULARY as usize, 96]),
        ("lm_head.weight".into(), vec![VOCABULARY as usize, 96]),
        ("model.norm.weight".into(), vec![96]),
    ];
    for layer in 0..LAYERS {
        let projections = [("q", 96), ("k", 48), ("v", 48), ("o", 96)];
        for (name, n_out) in projections {
            let name = format!("model.layers.{layer}.self_attn.{name}_proj");
            shapes
                .extend([(format!("{name}.weight"), vec![n_out, 96]), (format!("{name}.bias"), vec![n_out])]);
        }
        for (name, shape) in [("gate", [200, 96]), ("up", [200, 96]), ("down", [96, 200])] {
            shapes.push((format!("model.layers.{layer}.mlp.{name}_proj.weight"), shape.to_vec()));
        }
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            shapes.push((format!("model.layers.{layer}.{norm}.weight"), vec![96]));
        }
    }
    let mut random = StdRng::seed_from_u64(seed);
    let weights: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let scale = if shape.len() == 1 { 1.0 } else { 0.2 };
            let count = shape.iter().product::<usize>();
            let bytes = (0..count).flat_map(|_| (random.random_range(-scale..scale) as f32).to_le_bytes());
            let bytes = bytes.collect();
            (name, shape, bytes)
        })
        .collect();
    let views = weights
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let folder = tempfile::tempdir().unwrap();
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

fn slice(sequence: usize, start: usize, ids: &[u32], sample: bool) -> Slice {
    Slice { sequence: SequenceId(sequence as u64), start: start as u32, ids: ids.to_vec(), sample }
}

/// The token that follows: the likeliest, or drawn at temperature 1 by a number that belongs to the position.
fn next(logits: &[u32], position: usize, greedy: bool) -> u32 {
    let logits: Vec<f64> = logits.iter().map(|&bits| f64::from(f32::from_bits(bits))).collect();
    let max = logits.iter().copied().fold(f64::MIN, f64::max);
    if greedy {
        return logits.iter().position(|&logit| logit == max).unwrap() as u32;
    }
    let weights: Vec<f64> = logits.iter().map(|logit| (logit - max).exp()).collect();
    let uniform = StdRng::seed_from_u64(position as u64).random_range(0.0..1.0);
    let mut left = uniform * weights.iter().sum::<f64>();
    let drawn = weights.iter().position(|weight| {
        left -= weight;
        left < 0.0
    });
    drawn.unwrap_or(weights.len() - 1) as u32
}

impl Model {
    fn load(folder: &Path, shards: u16, threads: usize, dtype: DType) -> Self {
        let config = DecoderConfig::from_json(config().as_bytes()).unwrap();
        let weights = Weights::open(folder).unwrap();
        let plan = LayerPlan::even(LAYERS, shards).unwrap();
        let options = EngineOptions {
            dtype,
            device: ComputeDevice::Cpu,
            kv_tokens: 8_192,
            block_tokens: 16,
            threads: Some(threads),
            deterministic: true,
        };
        let load = |shard| Decoder::from_weights(&config, &weights, &plan, shard, &options).unwrap();
        Self { shards: (0..shards).map(load).collect() }
    }

    /// The bits of all logits of each slice with `sample`, and of their log-sum-exp.
    fn logits(&mut self, slices: &[Slice]) -> Vec<Vec<u32>> {
        let complete = RowSpec { temperature: 0.7, candidates: u32::MAX, ..RowSpec::default() };
        let rows = vec![complete; slices.iter().filter(|slice| slice.sample).count()];
        let mut states = None;
        for shard in &mut self.shards {
            let batch = StepBatch::new(slices, &rows);
            match shard.forward(&batch, states.as_ref()).unwrap() {
                StepOutput::Hidden(hidden) => states = hidden,
                StepOutput::Rows(rows) => {
                    let bits = rows.into_iter().map(|row| {
                        let row = row.unwrap();
                        let mut candidates = row.candidates;
                        candidates.sort_by_key(|(id, _)| *id);
                        let logits = candidates.into_iter().map(|(_, logit)| logit);
                        logits.chain([row.logsumexp, row.logsumexp_scaled]).map(f32::to_bits).collect()
                    });
                    return bits.collect();
                }
            }
        }
        unreachable!("the last shard gives rows")
    }

    fn release(&mut self, sequence: usize) {
        self.shards.iter_mut().for_each(|shard| shard.release(SequenceId(sequence as u64)));
    }

    /// Each answer alone: the prompt in one piece, then token by token.
    fn undisturbed(&mut self) -> Vec<Answer> {
        let mut random = StdRng::seed_from_u64(7);
        let answer = |(i, &length): (usize, &usize)| {
            let prompt: Vec<u32> = (0..length).map(|_| random.random_range(0..VOCABULARY)).collect();
            let mut answer =
                Answer { prompt, greedy: i.is_multiple_of(2), tokens: Vec::new(), logits: Vec::new() };
            let mut ids = answer.prompt.clone();
            let mut start = 0;
            while answer.tokens.len() < ANSWER_TOKENS {
                let logits = self.logits(&[slice(0, start, &ids, true)]).remove(0);
                start += ids.len();
                let token = next(&logits[..VOCABULARY as usize], start, answer.greedy);
                ids = vec![token];
                answer.tokens.push(token);
                answer.logits.push(logits);
            }
            self.release(0);
            answer
        };
        PROMPT_TOKENS.iter().enumerate().map(answer).collect()
    }
}

impl Answer {
    /// The prompt and the first `count` tokens of the answer.
    fn so_far(&self, count: usize) -> Vec<u32> {
        [&self.prompt, &self.tokens[..count]].concat()
    }
}

/// For checkpoints of several seeds in both dtypes: the model on one shard and thread, and the answers that it gives.
fn each_checkpoint(check: impl Fn(&Path, DType, &mut Model, &[Answer])) {
    for seed in 0..3 {
        let folder = checkpoint(seed);
        for dtype in [DType::F32, DType::Bf16] {
            let mut model = Model::load(folder.path(), 1, 1, dtype);
            let answers = model.undisturbed();
            check(folder.path(), dtype, &mut model, &answers);
        }
    }
}

/// All answers at once, each beginning a step after the one before it, slices in turning order.
fn check_batched(model: &mut Model, answers: &[Answer]) {
    for step in 0..ANSWER_TOKENS + answers.len() - 1 {
        let mut targets = Vec::new();
        let mut slices = Vec::new();
        for (i, answer) in answers.iter().enumerate() {
            let Some(count) = step.checked_sub(i).filter(|&count| count < ANSWER_TOKENS) else { continue };
            let ids = answer.so_far(count);
            let start = if count == 0 { 0 } else { ids.len() - 1 };
            slices.push(slice(i, start, &ids[start..], true));
            targets.push(&answer.logits[count]);
        }
        let turn = step % slices.len();
        slices.rotate_left(turn);
        targets.rotate_left(turn);
        for (found, expected) in model.logits(&slices).iter().zip(targets) {
            assert_eq!(found, expected, "step {step}");
        }
    }
    (0..answers.len()).for_each(|i| model.release(i));
}

#[test]
fn a_batch_on_any_shards_and_threads_gives_what_each_gives_alone() {
    each_checkpoint(|folder, dtype, model, answers| {
        check_batched(model, answers);
        for (shards, threads) in [(1, 2), (2, 1), (3, 2), (3, 3)] {
            check_batched(&mut Model::load(folder, shards, threads, dtype), answers);
        }
    });
}

#[test]
fn chunks_of_any_size_give_what_the_whole_prompt_gives() {
    each_checkpoint(|_, _, model, answers| {
        for answer in answers {
            let ids = answer.so_far(ANSWER_TOKENS - 1);
            for chunk in [1, 5, 16, 33] {
                let mut found = Vec::new();
                for start in (0..ids.len()).step_by(chunk) {
                    let end = (start + chunk).min(ids.len());
                    found = model.logits(&[slice(0, start, &ids[start..end], true)]);
                }
                model.release(0);
                assert_eq!(found[0], answer.logits[ANSWER_TOKENS - 1], "chunks of {chunk}");
            }
        }
    });
}

#[test]
fn an_answer_resumed_anywhere_goes_on_as_it_would_have() {
    each_checkpoint(|_, _, model, answers| {
        for count in 0..ANSWER_TOKENS {
            // Prompt and delivered tokens at once, in company of the others, then one more token of each.
            let held: Vec<Vec<u32>> = answers.iter().map(|answer| answer.so_far(count)).collect();
            let slices: Vec<Slice> = (0..).zip(&held).map(|(i, ids)| slice(i, 0, ids, true)).collect();
            let found = model.logits(&slices);
            let mut next_slices = Vec::new();
            for ((i, answer), logits) in answers.iter().enumerate().zip(&found) {
                assert_eq!(logits, &answer.logits[count], "resumed at {count}");
                let token = next(&logits[..VOCABULARY as usize], held[i].len(), answer.greedy);
                assert_eq!(token, answer.tokens[count]);
                next_slices.push(slice(i, held[i].len(), &[token], true));
            }
            if count + 1 < ANSWER_TOKENS {
                for (logits, answer) in model.logits(&next_slices).iter().zip(answers) {
                    assert_eq!(logits, &answer.logits[count + 1], "one after {count}");
                }
            }
            (0..answers.len()).for_each(|i| model.release(i));
        }
    });
}

#[test]
fn positions_beyond_the_first_table_have_the_angles_that_they_would_have_had() {
    let folder = checkpoint(9);
    let ids: Vec<u32> = (0..700_u32).map(|i| i * 31 % VOCABULARY).collect();
    let mut grown = Model::load(folder.path(), 1, 1, DType::F32);
    grown.logits(&[slice(1, 0, &ids[..100], true)]);
    let found = grown.logits(&[slice(1, 100, &ids[100..], true)]);
    assert_eq!(found, Model::load(folder.path(), 1, 2, DType::F32).logits(&[slice(1, 0, &ids, true)]));
}
