//! Prompts with images, for a model whose positions have three axes: against transformers, and against themselves.

use bytes::Bytes;
use safetensors::SafeTensors;
use schemas::hidden::Slice;
use schemas::prompt::Grid;
use schemas::{DType, SequenceId, Tensor};
use shard_forward::engine::{ComputeDevice, EngineOptions, Overlay};

use crate::close::assert_close;
use crate::model::*;

const NAME: &str = "qwen2-5-vl";

/// One prompt with images of a golden file.
struct Prompt {
    ids: Vec<u32>,
    grids: Vec<Grid>,
    /// `[rows of all images, hidden_size]`, f32.
    embeddings: Vec<u8>,
    /// At every position.
    logits: Vec<Vec<f32>>,
    /// What follows greedily.
    greedy: Vec<u32>,
}

fn prompts_with_images() -> Vec<Prompt> {
    let file = std::fs::read(golden(NAME).join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let numbers = |name: &str, i: usize| -> Option<Vec<u32>> {
        let data = tensors.tensor(&format!("{name}.{i}")).ok()?.data();
        Some(data.as_chunks::<8>().0.iter().map(|id| i64::from_le_bytes(*id) as u32).collect())
    };
    let prompt = |i: usize| {
        let logits = tensors.tensor(&format!("image_logits.{i}")).ok()?;
        let floats: Vec<f32> =
            logits.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        let grids = numbers("image_grids", i)?;
        Some(Prompt {
            ids: numbers("image_input_ids", i)?,
            grids: (grids.as_chunks::<3>().0.iter())
                .map(|&[start, rows, columns]| Grid { start, rows, columns })
                .collect(),
            embeddings: tensors.tensor(&format!("image_embeddings.{i}")).ok()?.data().to_vec(),
            logits: floats.chunks(logits.shape()[1]).map(<[f32]>::to_vec).collect(),
            greedy: numbers("image_greedy", i)?,
        })
    };
    let prompts: Vec<Prompt> = (0..).map_while(prompt).collect();
    assert_eq!(prompts.iter().map(|prompt| prompt.grids.len()).collect::<Vec<_>>(), [1, 2, 3]);
    prompts
}

impl Prompt {
    /// Embeddings for the positions from `start` to `end`, rows of a step from `first_row` on.
    fn overlays(&self, start: usize, end: usize, first_row: usize) -> Vec<Overlay> {
        let row_bytes =
            self.embeddings.len() / self.grids.iter().map(|grid| grid.len() as usize).sum::<usize>();
        let places = self.grids.iter().flat_map(|grid| (grid.start as usize..).take(grid.len() as usize));
        let inside =
            places.zip(self.embeddings.chunks(row_bytes)).filter(|(place, _)| (start..end).contains(place));
        let overlay = |(place, row): (usize, &[u8])| Overlay {
            row: first_row + place - start,
            rows: Tensor::new(DType::F32, vec![1, (row_bytes / 4) as u32], Bytes::copy_from_slice(row))
                .unwrap(),
        };
        inside.map(overlay).collect()
    }
}

/// Logits of the slices' last rows; slice i is of `prompts[i]` and may go beyond it.
fn logits(model: &mut Model, slices: &[Slice], prompts: &[&Prompt]) -> Vec<Vec<f32>> {
    let mut row = 0;
    model.overlays.clear();
    for (slice, prompt) in slices.iter().zip(prompts) {
        let (start, end) = (slice.start as usize, slice.start as usize + slice.ids.len());
        model.overlays.extend(prompt.overlays(start, end, row));
        model.grids.insert(slice.sequence, prompt.grids.clone());
        row += slice.ids.len();
    }
    model.logits(slices)
}

/// Every prefix of `prompt` as a sequence of its own, and what it gives.
fn at_every_position(model: &mut Model, prompt: &Prompt) -> Vec<Vec<f32>> {
    let prefixes = (0..prompt.ids.len()).map(|end| slice(end as u64, 0, &prompt.ids[..=end], true));
    let prefixes: Vec<Slice> = prefixes.collect();
    let prompts = vec![prompt; prefixes.len()];
    logits(model, &prefixes, &prompts)
}

#[test]
fn logits_after_images_are_those_of_transformers_on_any_number_of_shards() {
    for deterministic in [false, true] {
        let device = if deterministic { ComputeDevice::Cpu } else { device() };
        let options = EngineOptions { deterministic, device, ..options(DType::F32, 32_768) };
        for shards in 1..=3 {
            for (i, prompt) in prompts_with_images().iter().enumerate() {
                let mut model = Model::load(&golden(NAME), shards, &options);
                let found = at_every_position(&mut model, prompt);
                assert_close(&found, &prompt.logits, &format!("prompt {i} on {shards} shards"));
            }
        }
    }
}

#[test]
fn images_in_chunks_are_images_in_one_piece() {
    for prompt in prompts_with_images() {
        let last = &prompt.logits[prompt.logits.len() - 1..];
        for chunk in [1, 4, 7, 16] {
            let mut model = Model::golden(NAME);
            let mut found = Vec::new();
            for start in (0..prompt.ids.len()).step_by(chunk) {
                let end = (start + chunk).min(prompt.ids.len());
                let part = slice(1, start, &prompt.ids[start..end], end == prompt.ids.len());
                found = logits(&mut model, &[part], &[&prompt]);
            }
            assert_close(&found, last, &format!("in chunks of {chunk}"));
        }
    }
}

#[test]
fn greedy_answers_after_images_are_those_of_transformers_batched_and_resumed() {
    let images = prompts_with_images();
    let text = &prompts(NAME)[2];
    let mut model = Model::load(&golden(NAME), 2, &options(DType::F32, 4_096));
    let prompts: Vec<&Prompt> = images.iter().collect();
    let first: Vec<Slice> = (0..).zip(&images).map(|(i, prompt)| slice(i, 0, &prompt.ids, true)).collect();
    let mut ids: Vec<Vec<u32>> = images.iter().map(|prompt| prompt.ids.clone()).collect();
    let mut given = logits(&mut model, &first, &prompts);
    model.overlays.clear();
    let mut answer = model.greedy(&[slice(9, 0, &text.ids, true)]);
    for _ in 1..text.greedy.len() {
        ids.iter_mut().zip(&given).for_each(|(ids, row)| ids.push(largest(row)));
        let last = |(i, ids): (u64, &Vec<u32>)| slice(i, ids.len() - 1, &ids[ids.len() - 1..], true);
        let mut step: Vec<Slice> = (0..).zip(&ids).map(last).collect();
        step.push(slice(9, text.ids.len() + answer.len() - 1, &answer[answer.len() - 1..], true));
        given = logits(&mut model, &step, &prompts);
        answer.extend(given.pop().map(|row| largest(&row)));
    }
    ids.iter_mut().zip(&given).for_each(|(ids, row)| ids.push(largest(row)));
    assert_eq!(answer, text.greedy, "text beside images");
    for ((i, prompt), ids) in (20..).zip(&images).zip(&ids) {
        assert_eq!(ids[prompt.ids.len()..], prompt.greedy, "prompt {i}");
        // Preempted or resumed: the tokens so far are prefilled with the prompt.
        let again = logits(&mut model, &[slice(i, 0, &ids[..ids.len() - 1], true)], &[prompt]);
        assert_close(&again, &given[i as usize - 20..][..1], "computed anew");
    }
}

fn largest(row: &[f32]) -> u32 {
    (0..).zip(row).max_by(|a, b| a.1.total_cmp(b.1)).map(|(id, _)| id).unwrap()
}

#[test]
fn text_alone_has_the_bits_of_qwen2() {
    let folder = tempfile::tempdir().unwrap();
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(golden(NAME).join("config.json")).unwrap()).unwrap();
    let mut plain = config.as_object().unwrap().clone();
    for field in ["rope_scaling", "vision_config", "architectures"] {
        plain.remove(field);
    }
    plain.insert("model_type".into(), "qwen2".into());
    std::fs::write(folder.path().join("config.json"), serde_json::to_vec(&plain).unwrap()).unwrap();
    std::fs::copy(golden(NAME).join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    for prompt in prompts(NAME) {
        let slices = prefixes(&prompt);
        let bits = |mut model: Model| -> Vec<u32> {
            model.logits(&slices).concat().iter().map(|logit| logit.to_bits()).collect()
        };
        let qwen2 = bits(Model::load(folder.path(), 1, &options(DType::F32, 32_768)));
        assert_eq!(bits(Model::golden(NAME)), qwen2);
    }
    assert_eq!(prompts(NAME).len(), 4);
}

#[test]
fn images_of_another_number_of_slices_are_refused() {
    use shard_forward::engine::{Engine, StepBatch};
    let mut model = Model::golden(NAME);
    let slices = [slice(1, 0, &[5], false)];
    let batch = StepBatch { grids: &[&[], &[]], ..StepBatch::new(&slices, &[]) };
    assert!(model.shards[0].forward(&batch, None).is_err());
    assert_eq!((model.shards[0].blocks_used(), slices[0].sequence), (0, SequenceId(1)));
}
