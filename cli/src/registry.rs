//! `tokenway models`: the models that are on this machine, and which of them can be served.

mod known;
mod places;
mod row;
mod search;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::exit::misuse;
use crate::memory::{self, human_bytes, human_count};
use crate::printable::{escaped, shortened};
use crate::pull;
use crate::table::{right, table};
pub use places::Places;
use row::Row;
pub use row::Source;
use search::Search;
pub use search::name;

const EXAMPLES: &str = "\
Examples:
  tokenway models
  tokenway models /data/checkpoints ~/Downloads
  tokenway models --json | jq -r '.models[] | select(.servable) | .path'
  tokenway models pull ORG/NAME                 downloads a model; its own --help says more

Lists the demo model, those named in ~/.config/tokenway/models.toml, and model folders and .gguf files below the folders given, else
below ~/models and the Hugging Face cache, four levels deep. An entry of models.toml:
  [models.my-llama]
  path = \"~/checkpoints/llama\"

A model is servable when tokenway computes its architecture and its weights and a KV cache of 8,192 tokens fit into the memory that is
available now.";

/// Characters of a reason in the table; `--json` has all of it.
const REASON_CHARACTERS: usize = 120;

/// List the models on this machine and which can be served, or download one
#[derive(Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where to look in place of ~/models and the Hugging Face cache
    #[arg(value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    Pull(pull::Arguments),
}

/// A model of the list: how it came there, its name, and its folder or file.
pub type Known = (Source, String, PathBuf);

/// Everything that `models` shows.
#[derive(Debug, Serialize)]
struct Report {
    /// Memory that can be had without swapping.
    available_bytes: Option<u64>,
    /// Whether there was more than is looked at.
    incomplete: bool,
    models: Vec<Row>,
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Command::Pull(arguments)) = arguments.command {
        return pull::run(arguments).await;
    }
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let places = Places::of_environment();
    let report = Report::new(&places, &arguments.folders, memory::available_bytes(&meminfo))?;
    let mut out = std::io::stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{}", render(&report))?;
    if report.incomplete {
        eprintln!("only the first {} files and folders were looked at", search::ENTRIES_MAX);
    }
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn new(places: &Places, folders: &[PathBuf], available: Option<u64>) -> anyhow::Result<Self> {
        let (known, incomplete) = known(places, folders)?;
        let row = |(source, name, path): Known| Row::new(source, name, path, available);
        let models = known.into_iter().map(row).collect();
        Ok(Self { available_bytes: available, incomplete, models })
    }
}

/// The demo, the models that `models.toml` names, and those below `folders`, else below the usual places; and whether there was
/// more than is looked at.
pub fn known(places: &Places, folders: &[PathBuf]) -> anyhow::Result<(Vec<Known>, bool)> {
    let mut search = Search::default();
    if folders.is_empty() {
        places.usual_folders().iter().for_each(|folder| search.look_below(folder));
    }
    for folder in folders {
        if let Err(error) = fs::metadata(folder) {
            return Err(misuse(format!("`{}`: {error}", folder.display())));
        }
        search.look_below(folder);
    }
    let mut known = known::demo();
    known.extend(known::named(places)?);
    known.extend(search.found.into_iter().map(|(name, path)| (Source::Found, name, path)));
    let mut seen = HashSet::new();
    known.retain(|(_, _, path)| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    Ok((known, search.incomplete))
}

fn render(report: &Report) -> String {
    if report.models.is_empty() {
        return "no models".to_owned();
    }
    let header =
        ["NAME", "ARCHITECTURE", "PARAMETERS", "SIZE", "TYPE", "CONTEXT", "NEEDS", "SERVABLE", "PATH"];
    let mut table = table(&header);
    for row in &report.models {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.add_row([
            escaped(&row.name),
            or_dash(row.architecture.as_deref().map(escaped)),
            or_dash(row.parameters.map(human_count)),
            or_dash(row.bytes.map(human_bytes)),
            or_dash(row.type_name.clone()),
            or_dash(row.context.map(|tokens| tokens.to_string())),
            or_dash(row.needed_bytes.map(human_bytes)),
            match &row.reason {
                None => "yes".to_owned(),
                Some(reason) => format!("no: {}", shortened(reason, REASON_CHARACTERS)),
            },
            escaped(&row.path.display().to_string()),
        ]);
    }
    right(&mut table, &[2, 3, 5, 6]);
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn empty() -> Places {
        Places::new(|_| None)
    }

    /// A copy of the demo's configuration, tokenizer and weights.
    fn copy_demo(to: &Path) {
        fs::create_dir_all(to).unwrap();
        for file in ["config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"] {
            fs::copy(Path::new("../models/demo").join(file), to.join(file)).unwrap();
        }
    }

    #[test]
    fn a_model_is_servable_when_it_fits_and_else_says_what_it_needs() {
        let folder = tempfile::tempdir().unwrap();
        copy_demo(&folder.path().join("tiny"));
        let folders = [folder.path().to_owned()];
        let report = |available| Report::new(&empty(), &folders, available).unwrap();
        let last =
            |report: &Report| report.models.last().map(|row| (row.name.clone(), row.reason.clone())).unwrap();
        assert_eq!(last(&report(Some(1 << 40))), ("tiny".to_owned(), None));
        assert_eq!(last(&report(None)), ("tiny".to_owned(), None));
        let (_, reason) = last(&report(Some(1 << 20)));
        assert!(reason.unwrap().contains("1.0 MiB"));
        let text = render(&report(Some(1 << 40)));
        assert!(text.contains("tiny") && text.contains("BF16"), "{text}");
    }

    #[test]
    fn damaged_models_are_listed_with_their_reason() {
        let folder = tempfile::tempdir().unwrap();
        copy_demo(&folder.path().join("broken"));
        fs::write(folder.path().join("broken/model.safetensors"), "no").unwrap();
        fs::write(folder.path().join("bad.gguf"), "GGUF").unwrap();
        let report = Report::new(&empty(), &[folder.path().to_owned()], None).unwrap();
        let json = serde_json::to_value(&report).unwrap();
        let reasons: Vec<_> = json["models"].as_array().unwrap().iter().rev().take(2).collect();
        assert!(reasons.iter().all(|row| row["servable"] == false), "{json}");
        assert!(reasons[0]["reason"].as_str().unwrap().contains("model.safetensors"), "{json}");
        assert!(reasons[1]["reason"].as_str().unwrap().contains("bad.gguf"), "{json}");
    }

    #[test]
    fn a_model_that_is_named_and_found_is_listed_once_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        copy_demo(&folder.path().join("m"));
        fs::create_dir(folder.path().join("tokenway")).unwrap();
        let toml = "[models.mine]\npath = \"../m\"\n";
        fs::write(folder.path().join("tokenway/models.toml"), toml).unwrap();
        let config = folder.path().as_os_str().to_owned();
        let places = Places::new(|name| (name == "XDG_CONFIG_HOME").then(|| config.clone()));
        let report = Report::new(&places, &[folder.path().to_owned()], None).unwrap();
        let names: Vec<_> = report
            .models
            .iter()
            .filter(|row| row.source != Source::Demo)
            .map(|row| row.name.as_str())
            .collect();
        assert_eq!(names, ["mine"]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_misuse() {
        let error = Report::new(&empty(), &["/absent-folder".into()], None).unwrap_err();
        assert!(error.is::<crate::exit::Misuse>(), "{error:#}");
    }
}
