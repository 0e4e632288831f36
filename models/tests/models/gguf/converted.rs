//! What llama.cpp's converter made of the checkpoints of shard-forward: `models/goldens/gguf_converted.py`, which names its version.

use std::fs;
use std::path::{Path, PathBuf};

use models::gguf::{Gguf, read_config, tensor_name};
use models::{DecoderConfig, RopeScaling, Weights};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/gguf_converted")
}

/// Names of the checkpoints.
fn names() -> Vec<String> {
    let files = fs::read_dir(goldens()).unwrap().map(|file| file.unwrap().path());
    let mut names: Vec<String> =
        files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    assert!(names.len() > 15, "{names:?}");
    names
}

fn open(name: &str) -> Gguf {
    Gguf::open(&goldens().join(format!("{name}.gguf"))).unwrap()
}

fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../stages/shard-forward/goldens").join(name)
}

/// The checkpoint's configuration, but for what a GGUF has differently or does not say.
fn expected(name: &str, found: &DecoderConfig) -> DecoderConfig {
    let json = fs::read(checkpoint(name).join("config.json")).unwrap();
    let mut expected = DecoderConfig::from_json(&json).unwrap();
    (expected.norm_offset, expected.dtype) = (false, None);
    let is_any = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    expected.interleaved_heads = !is_any(&["qwen", "gemma", "phi3"]);
    if name == "gemma2" {
        // `query_pre_attn_scalar` follows from the other sizes.
        expected.attention_scale = 1.0 / (expected.head_dim as f64).sqrt();
    }
    if is_any(&["gemma3"]) {
        // Every sixth layer sees everything, always.
        let window = expected.layers.iter().find_map(|layer| layer.window);
        for (i, layer) in (1..).zip(&mut expected.layers) {
            let is_local = i % 6 != 0;
            (layer.window, layer.rope) = (window.filter(|_| is_local), Some(usize::from(is_local)));
        }
    }
    if !is_any(&["gemma", "phi3"]) {
        expected.layers.iter_mut().for_each(|layer| layer.window = None);
    }
    if is_any(&["smollm3"]) {
        // Every fourth layer, always.
        (1..).zip(&mut expected.layers).for_each(|(i, layer)| layer.rope = (i % 4 != 0).then_some(0));
    }
    if matches!(expected.ropes[0].scaling, Some(RopeScaling::Llama3 { .. })) {
        let scaling = &found.ropes[0].scaling;
        assert!(matches!(scaling, Some(RopeScaling::LongRope { .. })), "{name}: {scaling:?}");
        expected.ropes[0].scaling.clone_from(scaling);
    }
    if let Some(RopeScaling::LongRope { attention_factor, .. }) = &mut expected.ropes[0].scaling {
        // Of 32 bits.
        *attention_factor = (*attention_factor as f32).to_string().parse().unwrap();
    }
    expected
}

#[test]
fn the_configuration_is_that_of_the_checkpoint() {
    let mut different = Vec::new();
    for name in names() {
        let found = read_config(&open(&name)).unwrap();
        let expected = expected(&name, &found);
        if found != expected {
            different.push(format!("{name}: {found:#?}\n{expected:#?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn every_weight_of_the_checkpoint_has_its_tensor() {
    for name in names() {
        let gguf = open(&name);
        let config = read_config(&gguf).unwrap();
        let weights = Weights::open(&checkpoint(&name)).unwrap();
        for weight in weights.names() {
            let tied = weight == "lm_head.weight" && config.tie_word_embeddings;
            let tensor = tensor_name(&config, weight).unwrap().name;
            assert!(tied || gguf.contains(&tensor), "{name}: {weight} is not {tensor}");
        }
    }
}
