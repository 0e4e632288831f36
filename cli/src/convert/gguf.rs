//! Writes a model folder or a GGUF as GGUF, in the types asked for.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use models::ModelFolder;
use models::gguf::convert::{Content, FileType, Plan};
use models::gguf::{Gguf, GgufWriter, TensorType, Value};
use serde::Serialize;

use super::store::store;
use crate::exit::misuse;
use crate::interrupt;
use crate::printable::lossy_path;
use crate::progress::Progress;

/// `GGML_QNT_VERSION`: what the bits of quantised blocks mean.
const QUANTIZATION_VERSION: u32 = 2;

/// What is asked for.
pub struct Job {
    /// A model folder, or a GGUF.
    pub source: PathBuf,
    /// The file to write.
    pub destination: PathBuf,
    /// Name of the type of most matrices.
    pub file_type: String,
    /// `tokenizer.ggml.pre`, where it cannot be told.
    pub pre: Option<String>,
    /// Whether to say what was written as JSON.
    pub json: bool,
}

/// What was written.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(serialize_with = "lossy_path")]
    destination: PathBuf,
    #[serde(rename = "type")]
    file_type: &'static str,
    /// Bytes of the tensors that were read.
    source_bytes: u64,
    /// Bytes of the file that was written.
    bytes: u64,
    /// How many tensors there are of each type.
    tensors: BTreeMap<&'static str, usize>,
    seconds: f64,
}

/// Converts, and prints a line, or JSON, when done.
pub async fn run(job: Job) -> anyhow::Result<ExitCode> {
    let (destination, json) = (job.destination.clone(), job.json);
    let report = interrupt::writing(&destination, move || convert(&job)).await?;
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(out, "{}", line(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the file. A source that cannot be a GGUF is misuse.
pub fn convert(job: &Job) -> anyhow::Result<Report> {
    let start = Instant::now();
    let file_type =
        FileType::named(&job.file_type).ok_or_else(|| misuse(format!("no type `{}`", job.file_type)))?;
    let plan = plan(&job.source, job.pre.as_deref())?;
    let types: Vec<TensorType> = plan.tensors.iter().map(|tensor| file_type.of_tensor(tensor)).collect();
    let mut writer = GgufWriter::new();
    for (key, value) in &plan.metadata {
        writer.key(key, value.clone());
    }
    writer.key("general.file_type", Value::U32(file_type.id));
    writer.key("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
    let mut total = 0;
    for (tensor, tensor_type) in plan.tensors.iter().zip(&types) {
        total += tensor_type.bytes(&tensor.shape).unwrap_or_default() as u64;
        writer.tensor(&tensor.name, *tensor_type, &tensor.shape);
    }
    let progress = Progress::new(total);
    let mut out = writer.create(&job.destination)?;
    for (tensor, tensor_type) in plan.tensors.iter().zip(&types) {
        store(tensor, *tensor_type, &mut out, |bytes| progress.add(bytes))?;
    }
    out.finish()?;
    drop(progress);
    let mut tensors = BTreeMap::new();
    types.iter().for_each(|tensor_type| *tensors.entry(tensor_type.name()).or_insert(0) += 1);
    let written =
        std::fs::metadata(&job.destination).with_context(|| format!("`{}`", job.destination.display()))?;
    Ok(Report {
        destination: job.destination.clone(),
        file_type: file_type.name,
        source_bytes: source_bytes(&plan),
        bytes: written.len(),
        tensors,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// What the source holds. That it cannot be a GGUF, or is none, is the user's to change.
fn plan(source: &Path, pre: Option<&str>) -> anyhow::Result<Plan> {
    if source.is_dir() {
        let folder = ModelFolder::open(source).map_err(refused)?;
        return Plan::of_folder(&folder, pre).map_err(refused);
    }
    if pre.is_some() {
        return Err(misuse("`--pre` is for model folders: a GGUF has its own"));
    }
    let gguf = Gguf::open(source).map_err(refused)?;
    Plan::of_gguf(&gguf).map_err(refused)
}

fn refused(error: impl Error + Send + Sync + 'static) -> anyhow::Error {
    misuse(format!("{:#}", anyhow::Error::from(error)))
}

fn source_bytes(plan: &Plan) -> u64 {
    let bytes = plan.tensors.iter().map(|tensor| match &tensor.content {
        Content::Stored { parts, .. } => parts.iter().map(|part| part.bytes().len() as u64).sum(),
        Content::Numbers(_) => 0,
    });
    bytes.sum::<u64>()
}

/// What was written, for people.
pub fn line(report: &Report) -> String {
    let counts: Vec<String> = report.tensors.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    format!(
        "wrote `{}`: {:.1} MB of {:.1} MB, tensors: {}, in {:.1} s",
        report.destination.display(),
        megabytes(report.bytes),
        megabytes(report.source_bytes),
        counts.join(", "),
        report.seconds,
    )
}

#[cfg(test)]
mod tests {
    use models::gguf::read_config;

    use super::*;
    use crate::convert::elements::Elements;

    const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo");

    fn job(source: &Path, folder: &Path, file_type: &str) -> Job {
        Job {
            source: source.to_owned(),
            destination: folder.join(format!("{file_type}.gguf")),
            file_type: file_type.to_owned(),
            pre: None,
            json: false,
        }
    }

    fn numbers(gguf: &Gguf, name: &str) -> Vec<f32> {
        let tensor = gguf.get_shared(name).unwrap();
        let mut numbers = vec![0.0; tensor.shape.iter().product()];
        Elements::of(tensor.tensor_type).unwrap().read(tensor.bytes(), &mut numbers);
        numbers
    }

    #[test]
    fn the_demo_model_is_read_back_from_each_type() {
        let folder = tempfile::tempdir().unwrap();
        let exact = job(Path::new(DEMO), folder.path(), "f32");
        convert(&exact).unwrap();
        let exact = Gguf::open(&exact.destination).unwrap();
        let config = read_config(&exact).unwrap();
        assert_eq!((config.hidden_size, config.vocab_size, config.tie_word_embeddings), (192, 263, true));
        for (file_type, most) in [("f16", 0.001), ("q8_0", 0.01), ("q4_k", 0.1)] {
            let job = job(Path::new(DEMO), folder.path(), file_type);
            let report = convert(&job).unwrap();
            assert_eq!(report.tensors.values().sum::<usize>(), exact.tensors().count());
            let found = Gguf::open(&job.destination).unwrap();
            assert_eq!(read_config(&found).unwrap(), config);
            for tensor in exact.tensors() {
                let (a, b) = (numbers(&exact, &tensor.name), numbers(&found, &tensor.name));
                let largest = a.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()));
                let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= most * largest, "{file_type} {}: {worst} of {largest}", tensor.name);
            }
        }
    }

    #[test]
    fn a_gguf_is_written_in_other_types_with_its_keys() {
        let folder = tempfile::tempdir().unwrap();
        let first = job(Path::new(DEMO), folder.path(), "f32");
        convert(&first).unwrap();
        let direct = job(Path::new(DEMO), folder.path(), "q8_0");
        convert(&direct).unwrap();
        let again = Job {
            destination: folder.path().join("again.gguf"),
            ..job(&first.destination, folder.path(), "q8_0")
        };
        convert(&again).unwrap();
        assert_eq!(std::fs::read(&again.destination).unwrap(), std::fs::read(&direct.destination).unwrap());
    }

    #[test]
    fn what_is_no_model_is_misuse_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        for source in [folder.path(), Path::new(file!()), Path::new("/nowhere")] {
            let error = convert(&job(source, folder.path(), "q8_0")).unwrap_err();
            assert!(error.is::<crate::exit::Misuse>(), "{error:#}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
