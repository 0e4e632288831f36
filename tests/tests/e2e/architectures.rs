//! Every architecture over HTTP: the greedy tokens of transformers on one, two and three shards.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use models::ModelFolder;
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};
use tests::{Cluster, Options, repository};

/// One checkpoint of each architecture, and one whose longer sequences have other keys and values.
const ARCHITECTURES: [&str; 12] = [
    "gqa",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "phi3",
    "phi3-longrope",
    "gemma2",
    "gemma3",
    "mixtral",
    "qwen3-moe",
    "bitnet",
];

fn golden(name: &str) -> PathBuf {
    repository().join("stages/shard-forward/goldens").join(name)
}

/// Each id is the byte of that value, so that an answer's text says its ids.
fn byte_tokenizer() -> Value {
    let vocabulary: Map<String, Value> = (0..128_u32)
        .map(|byte| {
            // The characters by which byte-level BPE names bytes.
            let name = match byte {
                0..=32 => byte + 256,
                127 => 289,
                visible => visible,
            };
            (char::from_u32(name).unwrap().to_string(), json!(byte))
        })
        .collect();
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": level, "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    })
}

fn model_folder(name: &str, folder: &Path) -> anyhow::Result<()> {
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden(name).join(file), folder.join(file))
            .with_context(|| format!("{name}/{file}"))?;
    }
    std::fs::write(folder.join("tokenizer.json"), byte_tokenizer().to_string())?;
    Ok(())
}

/// The golden's prompts with what follows each greedily.
fn prompts(name: &str) -> anyhow::Result<Vec<(Vec<u32>, Vec<u32>)>> {
    let file = std::fs::read(golden(name).join("expected.safetensors"))?;
    let tensors = SafeTensors::deserialize(&file)?;
    let ids = |name: String| -> Option<Vec<u32>> {
        let data = tensors.tensor(&name).ok()?.data().to_vec();
        Some(data.chunks(8).map(|id| i64::from_le_bytes(id.try_into().unwrap()) as u32).collect())
    };
    Ok((0..).map_while(|i| Some((ids(format!("input_ids.{i}"))?, ids(format!("greedy.{i}"))?))).collect())
}

#[tokio::test]
async fn every_architecture_answers_as_in_transformers_on_any_number_of_shards() -> anyhow::Result<()> {
    for name in ARCHITECTURES {
        let folder = tempfile::tempdir()?;
        model_folder(name, folder.path())?;
        let context = ModelFolder::open(folder.path())?.context_length() as usize;
        for shards in 1..=3 {
            let mut options = Options::demo().set("shard-forward", "dtype", "f32");
            options = options.set("shard-forward", "shards", shards);
            options.overrides.path = Some(folder.path().to_owned());
            options.overrides.model = Some(name.into());
            let cluster = Cluster::start(options).await?;
            for (prompt, greedy) in prompts(name)? {
                if prompt.len() + greedy.len() > context {
                    continue;
                }
                let fields = json!({"temperature": 0, "max_tokens": greedy.len(), "ignore_eos": true});
                let reply = cluster.api().complete(json!(prompt), fields).await?;
                let found: Vec<u32> = reply.text().bytes().map(u32::from).collect();
                assert_eq!(
                    found,
                    greedy,
                    "{name} on {shards} shards, a prompt of {}: {}",
                    prompt.len(),
                    reply.body
                );
            }
        }
    }
    Ok(())
}
