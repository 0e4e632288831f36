//! The forward pass against transformers' logits, and against itself: whole, in chunks, batched, sharded.
//!
//! `goldens/make.py` made the checkpoints and says what is in them. They are computed on the device that
//! `TOKENWAY_TEST_DEVICE` names, the CPU without it, and found at `CARGO_MANIFEST_DIR` as it is when the tests run, so that they
//! run where there is no cargo. `TOKENWAY_TEST_MODEL` names one more checkpoint of the same layout, of any size.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod close;
mod gguf;
mod images;
mod model;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use models::{DecoderConfig, ModelFolder, Weights};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use schemas::{DType, SequenceId, Tensor};
use shard_forward::engine::{
    ComputeDevice, Decoder, Engine, EngineOptions, LayerPlan, OutOfBlocks, Overlay, RowError, RowSpec,
    StepBatch, StepOutput,
};

use crate::close::*;
use crate::model::*;

#[test]
fn logits_are_those_of_transformers_on_any_number_of_shards() {
    for name in GOLDENS {
        let config =
            DecoderConfig::from_json(&std::fs::read(golden(name).join("config.json")).unwrap()).unwrap();
        for shards in 1..=config.num_hidden_layers as u16 {
            let mut model = Model::load(&golden(name), shards, &options(DType::F32, 32_768));
            for prompt in prompts(name) {
                let slices = prefixes(&prompt);
                let found = model.logits(&slices);
                assert_close(&found, &prompt.logits, &format!("{name} on {shards} shards"));
            }
        }
    }
}

#[test]
fn deterministic_logits_are_those_of_transformers_too() {
    for dtype in [DType::F32, DType::Bf16] {
        for name in GOLDENS {
            let options =
                EngineOptions { deterministic: true, device: ComputeDevice::Cpu, ..options(dtype, 32_768) };
            let mut model = Model::load(&golden(name), 2, &options);
            let prompts = prompts(name);
            for prompt in &prompts {
                let found = model.logits(&prefixes(prompt));
                match dtype {
                    DType::F32 => assert_close(&found, &prompt.logits, name),
                    DType::Bf16 => assert_close_in_bf16(&found, prompt, &prompts, name),
                }
            }
        }
    }
}

#[test]
fn greedy_answers_are_those_of_transformers_on_any_number_of_shards() {
    for name in GOLDENS {
        let prompts = prompts(name);
        let expected: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt.greedy[..]).collect();
        for shards in [1, 2] {
            let mut model = Model::load(&golden(name), shards, &options(DType::F32, 4_096));
            let found = model.continue_greedily(&prompts, expected[0].len());
            assert_eq!(found, expected, "{name} on {shards} shards");
        }
    }
}

#[test]
fn bf16_stays_close_in_whole_in_chunks_and_batched() {
    for name in GOLDENS {
        let prompts = prompts(name);
        for (i, prompt) in prompts.iter().enumerate() {
            let mut model = Model::load(&golden(name), 1, &options(DType::Bf16, 32_768));
            let found = model.logits(&prefixes(prompt));
            assert_close_in_bf16(&found, prompt, &prompts, &format!("{name}, prompt {i}"));
            for chunk in [1, 7] {
                let mut model = Model::load(&golden(name), 1, &options(DType::Bf16, 32_768));
                model.opened = Some(prompt.ids.len() as u32);
                let mut found = Vec::new();
                for start in (0..prompt.ids.len()).step_by(chunk) {
                    let end = (start + chunk).min(prompt.ids.len());
                    found =
                        model.logits(&[slice(1, start, &prompt.ids[start..end], end == prompt.ids.len())]);
                }
                assert_close_in_bf16(
                    &found,
                    prompt,
                    &prompts,
                    &format!("{name}, prompt {i} in chunks of {chunk}"),
                );
            }
        }
    }
}

#[test]
fn a_given_model_has_the_logits_of_transformers() {
    let Some(folder) = std::env::var_os("TOKENWAY_TEST_MODEL").map(PathBuf::from) else { return };
    let prompts = prompts(folder.to_str().unwrap());
    let load = |dtype| Model::load(&folder, 1, &options(dtype, 4_096));
    let (mut exact, mut coarse) = (load(DType::F32), load(DType::Bf16));
    for prompt in &prompts {
        let slices = prefixes(prompt);
        let (in_f32, in_bf16) = (exact.logits(&slices), coarse.logits(&slices));
        for (i, expected) in prompt.logits.iter().enumerate() {
            let scale = expected.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
            let (f32_delta, bf16_delta) =
                (largest_delta(&in_f32[i], expected), largest_delta(&in_bf16[i], expected));
            println!("row {i}: largest logit {scale}, f32 differs by {f32_delta}, bf16 by {bf16_delta}");
        }
        assert_close(&in_f32, &prompt.logits, "f32");
        assert_close_in_bf16(&in_bf16, prompt, &prompts, "bf16");
    }
    let expected: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt.greedy[..]).collect();
    assert_eq!(exact.continue_greedily(&prompts, expected[0].len()), expected);
}

#[test]
fn embeddings_from_an_image_stand_for_tokens_in_whole_and_in_chunks() {
    let prompt = prompts("gqa").into_iter().find(|prompt| prompt.ids.len() > 20).unwrap();
    let expected = &prompt.logits[prompt.logits.len() - 1..];
    let weights = Weights::open(&golden("gqa")).unwrap();
    let embed_tokens = weights.get_shared("model.embed_tokens.weight").unwrap();
    let row_bytes = embed_tokens.bytes().len() / embed_tokens.shape[0];
    // The rows of the prompt's own tokens, in place of a placeholder that stands in the prompt.
    let (from, to) = (3, 14);
    let row = |id: &u32| &embed_tokens.bytes()[*id as usize * row_bytes..][..row_bytes];
    let rows: Vec<u8> = prompt.ids[from..to].iter().flat_map(row).copied().collect();
    let mut ids = prompt.ids.clone();
    ids[from..to].fill(1);
    for chunk in [4, 5, 11, ids.len()] {
        let mut model = Model::golden("gqa");
        for start in (0..ids.len()).step_by(chunk) {
            let end = (start + chunk).min(ids.len());
            let (first, last) = (from.max(start), to.min(end));
            let overlay = (first < last).then(|| Overlay {
                row: first - start,
                rows: Tensor::new(
                    DType::F32,
                    vec![(last - first) as u32, (row_bytes / 4) as u32],
                    Bytes::copy_from_slice(&rows[(first - from) * row_bytes..(last - from) * row_bytes]),
                )
                .unwrap(),
            });
            let slices = [slice(0, start, &ids[start..end], end == ids.len())];
            model.overlays = overlay.into_iter().collect();
            let found = model.logits(&slices);
            if end == ids.len() {
                assert_close(&found, expected, &format!("chunks of {chunk}"));
            }
        }
    }
}

#[test]
fn prefill_in_chunks_is_prefill_in_one_piece() {
    for name in GOLDENS {
        for prompt in prompts(name) {
            let last = &prompt.logits[prompt.logits.len() - 1..];
            for chunk in [1, 5, 16, 32] {
                let mut model = Model::golden(name);
                model.opened = Some(prompt.ids.len() as u32);
                let mut start = 0;
                let mut found = Vec::new();
                for ids in prompt.ids.chunks(chunk) {
                    let end = start + ids.len();
                    found = model.logits(&[slice(1, start, ids, end == prompt.ids.len())]);
                    start = end;
                }
                assert_close(&found, last, &format!("{name} in chunks of {chunk}"));
            }
        }
    }
}

#[test]
fn a_step_of_prefills_chunks_and_decodes_gives_what_each_gives_alone() {
    let prompts = prompts("llama3-rope");
    let long = &prompts[prompts.len() - 1].ids;
    let prepare = |model: &mut Model| {
        let held = [
            slice(1, 0, &long[..100], false),
            slice(2, 0, &long[..7], false),
            slice(3, 0, &long[..9], false),
        ];
        model.step(&held, &greedy()).unwrap();
    };
    let mixed = [
        slice(1, 100, &long[100..101], true),
        slice(2, 7, &long[7..40], true),
        slice(4, 0, &long[..21], true),
        slice(3, 9, &long[9..10], true),
        slice(5, 0, &long[..1], true),
    ];
    let mut model = Model::golden("llama3-rope");
    prepare(&mut model);
    let together = model.logits(&mixed);
    for (i, alone) in mixed.iter().enumerate() {
        let mut model = Model::golden("llama3-rope");
        prepare(&mut model);
        let found = model.logits(std::slice::from_ref(alone));
        assert_close(&found, &together[i..=i], &format!("slice {i}"));
    }
}

#[test]
fn an_earlier_start_computes_those_positions_again() {
    let prompt = &prompts("gqa")[2];
    let mut model = Model::golden("gqa");
    model.logits(&[slice(1, 0, &prompt.ids, true)]);
    let other: Vec<u32> = prompt.ids.iter().map(|id| (id + 1) % 128).collect();
    model.logits(&[slice(1, 4, &other[4..], true)]);
    let found = model.logits(&[slice(1, 4, &prompt.ids[4..], true)]);
    assert_close(&found, &prompt.logits[prompt.logits.len() - 1..], "after two others");
}

#[test]
fn released_blocks_serve_other_sequences() {
    let prompt = &prompts("gqa")[2];
    let mut model = Model::load(&golden("gqa"), 2, &options(DType::F32, 48));
    for sequence in 0..5 {
        let found = model.logits(&[slice(sequence, 0, &prompt.ids, true)]);
        assert_close(&found, &prompt.logits[prompt.logits.len() - 1..], "reused blocks");
        assert!(model.shards.iter().all(|shard| shard.blocks_used() == 3 && shard.blocks_total() == 3));
        let error = model.step(&[slice(9, 0, &[1], true)], &greedy()).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&OutOfBlocks { needed: 1, free: 0, total: 3 }));
        model.shards.iter_mut().for_each(|shard| shard.release(SequenceId(sequence)));
        assert!(model.shards.iter().all(|shard| shard.blocks_used() == 0));
    }
}

#[test]
fn a_kept_row_is_given_in_full() {
    let mut model = Model::golden("gqa");
    let ids = &prompts("gqa")[1].ids;
    let keep = RowSpec { keep: true, ..greedy() };
    model.step(&[slice(1, 0, ids, true), slice(2, 0, &ids[..3], true)], &keep).unwrap();
    let shard = &model.shards[0];
    let wanted = RowSpec { temperature: 0.5, extras: vec![3, 64], ..greedy() };
    let row = shard.full_row(SequenceId(1), ids.len() as u32, &wanted).unwrap().unwrap();
    let expected = &prompts("gqa")[1].logits[ids.len() - 1];
    assert_eq!((row.candidates.len(), row.extras.len()), (126, 2));
    for (id, logit) in row.candidates.iter().chain(&row.extras) {
        assert!((expected[*id as usize] - logit).abs() <= DELTA_MAX);
    }
    assert!(shard.full_row(SequenceId(1), 3, &wanted).is_none(), "another position");
    assert!(shard.full_row(SequenceId(3), 3, &wanted).is_none(), "another sequence");
    model.shards[0].release(SequenceId(1));
    assert!(model.shards[0].full_row(SequenceId(1), ids.len() as u32, &wanted).is_none(), "released");
}

#[test]
fn a_step_that_cannot_be_computed_changes_nothing() {
    let mut model = Model::load(&golden("gqa"), 2, &options(DType::F32, 512));
    assert!(model.step(&[slice(1, 0, &[1, 128], true)], &greedy()).is_err(), "outside the vocabulary");
    assert!(model.step(&[slice(1, 1, &[1], true)], &greedy()).is_err(), "a gap");
    let slices = [slice(1, 0, &[1, 2], true)];
    let specs = [greedy()];
    let batch = StepBatch::new(&slices, &specs);
    let data = vec![0; 3 * 64 * 4].into();
    let three_rows = schemas::Tensor::new(DType::F32, vec![3, 64], data).unwrap();
    assert!(model.shards[1].forward(&batch, None).is_err(), "no states");
    assert!(model.shards[1].forward(&batch, Some(&three_rows)).is_err(), "another shape");
    assert!(model.shards[0].forward(&batch, Some(&three_rows)).is_err(), "states for the first");
    assert!(model.shards[1].forward(&StepBatch::new(&slices, &[]), None).is_err(), "no rows");
    assert!(model.shards.iter().all(|shard| shard.blocks_used() == 0));
}

#[test]
fn ternary_layers_give_the_same_bits_in_any_chunks_shards_and_threads() {
    let bits = |rows: Vec<Vec<f32>>| -> Vec<Vec<u32>> {
        rows.into_iter().map(|row| row.into_iter().map(f32::to_bits).collect()).collect()
    };
    for name in ["bitnet", "bitnet-online", "bitnet-biases", "bitnet-bitlinear", "llama-bitlinear"] {
        for dtype in [DType::F32, DType::Bf16] {
            let load = |shards, threads| {
                let device = ComputeDevice::Cpu;
                let options = EngineOptions {
                    deterministic: true,
                    device,
                    threads: Some(threads),
                    ..options(dtype, 32_768)
                };
                Model::load(&golden(name), shards, &options)
            };
            let prompt = prompts(name).remove(2);
            let last = prompt.ids.len() - 1;
            let expected = bits(load(1, 1).logits(&[slice(0, 0, &prompt.ids, true)]));
            for (shards, threads) in [(1, 3), (3, 2)] {
                let mut model = load(shards, threads);
                let together = bits(model.logits(&prefixes(&prompt)));
                assert_eq!(together[last], expected[0], "{name} on {shards} shards");
            }
            for chunk in [1, 5, 16] {
                let mut model = load(1, 1);
                let mut found = Vec::new();
                for (i, ids) in prompt.ids.chunks(chunk).enumerate() {
                    found = model.logits(&[slice(1, i * chunk, ids, true)]);
                }
                assert_eq!(bits(found), expected, "{name} in chunks of {chunk}");
            }
        }
    }
}

#[test]
fn packed_weights_without_a_word_in_the_config_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(golden("bitnet").join("model.safetensors"), folder.path().join("model.safetensors"))
        .unwrap();
    let json = std::fs::read_to_string(golden("bitnet").join("config.json")).unwrap();
    for (word, other) in [("quantization_config", "not_a_field"), ("offline", "online")] {
        std::fs::write(folder.path().join("config.json"), json.replace(word, other)).unwrap();
        let folder = ModelFolder::open(folder.path()).unwrap();
        let plan = LayerPlan::even(3, 1).unwrap();
        let error = Decoder::load(&folder, &plan, 0, &options(DType::F32, 512)).unwrap_err();
        assert!(format!("{error:#}").contains("`model.layers.0.self_attn.q_proj.weight`"), "{error:#}");
    }
}

/// A copy of a golden checkpoint, its weights changed by `change`.
fn changed(name: &str, change: impl Fn(&str, Vec<f32>) -> (Dtype, Vec<u8>)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(golden(name).join("config.json"), folder.path().join("config.json")).unwrap();
    let file = std::fs::read(golden(name).join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let weights: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let floats = view.data().chunks(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
            let (dtype, bytes) = change(&name, floats);
            (name, dtype, view.shape().to_vec(), bytes)
        })
        .collect();
    let views = weights.iter().map(|(name, dtype, shape, bytes)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let path = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).unwrap();
    folder
}

#[test]
fn files_in_half_precision_compute_in_f32_and_in_bf16() {
    let prompt = &prompts("gqa")[2];
    let to_bf16 =
        |floats: Vec<f32>| floats.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect();
    let to_f16 =
        |floats: Vec<f32>| floats.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect();
    let bf16_file = changed("gqa", |_, floats| (Dtype::BF16, to_bf16(floats)));
    let f16_file = changed("gqa", |_, floats| (Dtype::F16, to_f16(floats)));
    let last = |folder: &Path, dtype| {
        let mut model = Model::load(folder, 2, &options(dtype, 512));
        let found = model.logits(&[slice(1, 0, &prompt.ids, true)]).remove(0);
        let delta = found.iter().zip(&prompt.logits[prompt.ids.len() - 1]).map(|(a, b)| (a - b).abs());
        (delta.fold(0.0, f32::max), found)
    };
    let scale = prompt.logits[prompt.ids.len() - 1].iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let (exact, mapped) = last(bf16_file.path(), DType::Bf16);
    let (_, converted) = last(&golden("gqa"), DType::Bf16);
    assert_eq!(mapped, converted, "the same weights in bf16, mapped and converted");
    assert!(exact < 0.1 * scale, "bf16: {exact} of {scale}");
    let (in_f32, _) = last(bf16_file.path(), DType::F32);
    assert!(in_f32 < 0.05 * scale, "bf16 file in f32: {in_f32} of {scale}");
    let (in_f32, _) = last(f16_file.path(), DType::F32);
    assert!(in_f32 < 0.01 * scale, "f16 file in f32: {in_f32} of {scale}");
}

#[test]
fn a_sequence_of_nan_fails_alone_and_leaves_nothing_behind() {
    let prompt = &prompts("gqa")[2];
    let poison = 5;
    let folder = changed("gqa", |name, mut floats| {
        if name == "model.embed_tokens.weight" {
            floats[poison * 64] = f32::NAN;
        }
        (Dtype::F32, floats.iter().flat_map(|x| x.to_le_bytes()).collect())
    });
    let healthy: Vec<u32> = prompt.ids.iter().map(|&id| if id == poison as u32 { 6 } else { id }).collect();
    let mut model = Model::load(folder.path(), 1, &options(DType::F32, 80));
    let alone = model.logits(&[slice(1, 0, &healthy, false), slice(2, 0, &healthy[..20], true)]);
    model.shards[0].release(SequenceId(2));
    let mixed = [slice(1, healthy.len(), &[7], true), slice(3, 0, &[poison as u32], true)];
    for spec in [greedy(), complete()] {
        let StepOutput::Rows(rows) = model.step(&mixed, &spec).unwrap() else { unreachable!() };
        assert!(rows[0].is_ok());
        assert_eq!(rows[1], Err(RowError::NotFinite));
    }
    model.shards[0].release(SequenceId(1));
    model.shards[0].release(SequenceId(3));
    model.logits(&[slice(4, 0, &healthy[..17], false)]);
    model.logits(&[slice(5, 0, &healthy[..19], false)]);
    let after = model.logits(&[slice(5, 19, &healthy[19..20], true), slice(4, 17, &healthy[17..18], true)]);
    assert_close(&after[..1], &alone, "in blocks that held NaN");
}
