//! GGUF: what `tokenway convert` writes is served as the folder that it came from.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use serde_json::json;
use tests::{Api, Cluster, Options, binary, repository};

const PROMPTS: [&str; 3] = ["Once upon a time", "1, 2, 3, 4,", "Héllo 世界 🙂"];

fn convert(kind: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let file = folder.join(format!("demo-{kind}.gguf"));
    let mut command = Command::new(binary("tokenway")?);
    command.arg("convert").arg(repository().join("models/demo")).arg(&file).args(["--type", kind]);
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(file)
}

async fn serve(model: &Path, shards: u32) -> anyhow::Result<Cluster> {
    let mut options = Options::demo().set("shard-forward", "dtype", "f32");
    options = options.set("shard-forward", "deterministic", true).set("shard-forward", "shards", shards);
    options.overrides.path = Some(model.to_owned());
    Cluster::start(options).await
}

/// Greedy answers to plain prompts, and one through the chat template.
async fn answers(api: &Api) -> anyhow::Result<Vec<String>> {
    let fields = json!({"temperature": 0, "max_tokens": 48});
    let mut answers = Vec::new();
    for prompt in PROMPTS {
        answers.push(api.complete(prompt, fields.clone()).await?.text().to_owned());
    }
    answers.push(api.chat("What is 47 + 38?", fields).await?.text().to_owned());
    ensure!(answers.iter().all(|answer| !answer.is_empty()), "{answers:?}");
    Ok(answers)
}

#[tokio::test]
async fn a_converted_model_answers_as_its_folder() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = convert("f32", folder.path())?;
    let of_folder = answers(&serve(&repository().join("models/demo"), 2).await?.api()).await?;
    let of_file = answers(&serve(&file, 2).await?.api()).await?;
    assert_eq!(of_file, of_folder);
    Ok(())
}

#[tokio::test]
async fn a_quantised_model_answers_alike_on_any_number_of_shards() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = convert("q4_k", folder.path())?;
    let whole = answers(&serve(&file, 1).await?.api()).await?;
    assert!(whole[3].contains("85"), "{whole:?}");
    assert_eq!(answers(&serve(&file, 3).await?.api()).await?, whole);
    Ok(())
}
