//! Which pipelines to serve: the files as given, with the flags over them, resolved once for all processes.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use models::ModelFolder;
use pipelines::Pipeline;
use pipelines::graph::Overrides;
use schemas::Role;

use super::replicas::Replicas;
use crate::exit::misuse;
use crate::locate;
use crate::named::{self, Model};

const DEMO: &str = "pipelines/demo.toml";

/// What to serve and how.
#[derive(Args, Debug, Default)]
pub struct Arguments {
    /// Pipeline files [default: pipelines/demo.toml]
    #[arg(value_name = "PIPELINE.toml")]
    files: Vec<PathBuf>,
    /// Model folder, GGUF, a name that `tokenway models` shows, or hf:ORG/NAME[:FILE]; its name becomes the model id
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Cut the layers evenly into this many shards
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// Element type of weights, hidden states and KV cache
    #[arg(long, value_parser = ["f32", "bf16"])]
    dtype: Option<String>,
    /// Where the model computes: cpu or cuda:N
    #[arg(long, value_parser = device)]
    device: Option<String>,
    /// Compute each row alike in any company, so that a resumed answer goes on as it would have; on the CPU only
    #[arg(long)]
    deterministic: bool,
    /// Processes of a stage, or of one shard (shard-forward.1=2); repeatable
    #[arg(long, value_name = "STAGE=N")]
    replicas: Vec<Replicas>,
}

impl Arguments {
    /// The model as it is named.
    pub fn model(&self) -> Option<&Path> {
        self.model.as_deref()
    }
}

/// A resolved pipeline.
#[derive(Debug)]
pub struct Planned {
    /// Id for the request's `model` field.
    pub model: String,
    /// The resolved file that every process of the pipeline reads.
    pub file: PathBuf,
    /// Every role with the number of its processes.
    pub roles: Vec<(Role, u32)>,
}

/// Resolves the pipelines and writes them into `folder`. `model` is the one that the arguments name.
pub fn make(arguments: &Arguments, model: Option<&Model>, folder: &Path) -> anyhow::Result<Vec<Planned>> {
    let mut planned: Vec<Planned> = Vec::new();
    for (index, file) in files(arguments, model, folder)?.iter().enumerate() {
        let pipeline = resolve(arguments, model, file)?;
        if planned.iter().any(|other| other.model == pipeline.model) {
            return Err(misuse(format!("two pipelines have the model id `{}`", pipeline.model)));
        }
        let resolved = folder.join(format!("pipeline-{index}.toml"));
        fs::write(&resolved, toml::to_string(&pipeline)?)?;
        let roles = pipeline.roles().into_iter().map(|role| counted(role, &arguments.replicas)).collect();
        planned.push(Planned { model: pipeline.model, file: resolved, roles });
    }
    Ok(planned)
}

/// The files given; else one about the model folder given; else the demo's.
fn files(arguments: &Arguments, model: Option<&Model>, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if let (Some(_), [_, _, ..]) = (model, arguments.files.as_slice()) {
        return Err(misuse("`--model` goes with at most one pipeline file"));
    }
    if !arguments.files.is_empty() {
        return arguments.files.iter().map(|file| existing(file)).collect();
    }
    if let Some(model) = model {
        let mut table: toml::Table = [("model", model.id.clone()), ("path", text(&model.path)?)]
            .map(|(key, value)| (key.into(), value.into()))
            .into_iter()
            .collect();
        // Left out again for a model that does not see.
        let vision = toml::Table::from_iter([("vision-encode".to_owned(), toml::Table::new().into())]);
        table.insert("stages".into(), vision.into());
        let file = folder.join("model.toml");
        fs::write(&file, toml::to_string(&table)?)?;
        return Ok(vec![file]);
    }
    let demo = locate::in_repository(Path::new(DEMO));
    demo.map(|file| vec![file])
        .ok_or_else(|| misuse(format!("no `{DEMO}` here: name a pipeline file, or `--model PATH`")))
}

fn resolve(arguments: &Arguments, model: Option<&Model>, file: &Path) -> anyhow::Result<Pipeline> {
    let mut overrides = Overrides::default();
    if let Some(model) = model {
        overrides.model = Some(model.id.clone());
        overrides.path = Some(model.path.clone());
    }
    if let Some(shards) = arguments.shards {
        overrides.set("shard-forward", "shards", shards);
        overrides.set("shard-forward", "layers", Vec::<u32>::new());
    }
    for (setting, value) in [("dtype", &arguments.dtype), ("device", &arguments.device)] {
        if let Some(value) = value {
            overrides.set("shard-forward", setting, value.as_str());
        }
    }
    if arguments.deterministic {
        overrides.set("shard-forward", "deterministic", true);
    }
    for replicas in arguments.replicas.iter().filter(|replicas| replicas.shard.is_none()) {
        overrides.set(&replicas.stage, "replicas", replicas.count);
    }
    let mut pipeline = Pipeline::read(file, overrides)
        .map_err(|error| misuse(format!("{:#}", anyhow::Error::new(error))))?;
    pipeline.path = model_at(&pipeline.path)?;
    settle_vision(&mut pipeline)?;
    let no_such_shard = |replicas: &&Replicas| replicas.shard.is_some_and(|shard| shard >= pipeline.shards());
    if let Some(replicas) = arguments.replicas.iter().find(no_such_shard) {
        let shard = replicas.shard.unwrap_or_default();
        return Err(misuse(format!(
            "`{}` has {} shards, so no shard {shard}",
            pipeline.model,
            pipeline.shards()
        )));
    }
    Ok(pipeline)
}

/// Leaves vision-encode out where the model does not see; one that does must have its encoder.
fn settle_vision(pipeline: &mut Pipeline) -> anyhow::Result<()> {
    if pipeline.stages.vision_encode.is_none() {
        return Ok(());
    }
    let folder = ModelFolder::open(&pipeline.path)
        .map_err(|error| misuse(format!("{:#}", anyhow::Error::new(error))))?;
    if folder.vision().is_none() {
        pipeline.stages.vision_encode = None;
    } else if !folder.vision_encoder().is_file() {
        let path = folder.path().display();
        return Err(misuse(format!(
            "`{path}` sees, but its encoder is not in ONNX form yet: tokenway convert --vision {path}"
        )));
    }
    Ok(())
}

/// A role with its number of processes, the last flag about just this shard first.
fn counted((role, count): (Role, u32), replicas: &[Replicas]) -> (Role, u32) {
    let own = replicas.iter().rev().find(|replicas| replicas.shard.is_some() && replicas.applies_to(role));
    (role, own.map_or(count, |replicas| replicas.count))
}

/// The folder or GGUF at `model`, else the folder of that name under models/. Absolute.
fn model_at(model: &Path) -> anyhow::Result<PathBuf> {
    let named = || locate::in_repository(&Path::new("models").join(model));
    let found = if model.exists() { Some(model.to_owned()) } else { named().filter(|path| path.is_dir()) };
    let found = named::absolute(found.as_deref().unwrap_or(model))?;
    if found.is_dir() && !found.join("config.json").is_file() {
        return Err(misuse(format!("model folder `{}` has no config.json", found.display())));
    }
    Ok(found)
}

fn existing(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().map_err(|error| misuse(format!("pipeline `{}`: {error}", path.display())))
}

fn text(path: &Path) -> anyhow::Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| misuse(format!("`{}` is not UTF-8", path.display())))
}

fn device(text: &str) -> Result<String, String> {
    let is_cuda = text.strip_prefix("cuda:").is_some_and(|index| index.parse::<u16>().is_ok());
    if text == "cpu" || is_cuda { Ok(text.to_owned()) } else { Err("must be cpu or cuda:N".to_owned()) }
}

#[cfg(test)]
mod tests;
