//! `tokenway repair`: writes a damaged GGUF whole, where the file itself says how.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use models::gguf::Gguf;
use models::gguf::repair::{Fix, Repair};
use serde::Serialize;

use crate::checkpoint::damaged;
use crate::exit::misuse;
use crate::interrupt;
use crate::memory::human_bytes;
use crate::printable::{escaped, lossy_path};
use crate::progress::Progress;

const EXAMPLES: &str = "\
Examples:
  tokenway repair damaged.gguf whole.gguf
  tokenway repair --dry-run damaged.gguf         what would be changed
  tokenway repair --json damaged.gguf whole.gguf | jq '.changes[].text'

Put right: a version that is not 3; a wrong general.alignment, or tensors that follow another; keys and tensors that are there twice
with one content; gaps between tensors, and bytes or missing padding after them; missing keys whose values the tensors, the other keys
or the tokens give, or that llama.cpp has a default for. The bytes of tensors are copied as they are, and SRC is only read.

Refused: files with missing bytes, with a header that cannot be read, with keys missing that nothing else says (as context_length), or
with keys or tensors that are there twice with different content; parts of split files.

Exit codes: 0 repaired, or nothing to repair (then no file is written), 1 not written, 2 not repairable or wrong usage.";

/// Write a damaged GGUF whole, and say what was changed
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The GGUF file that is damaged
    #[arg(value_name = "SRC.gguf")]
    source: PathBuf,
    /// The GGUF file to write
    #[arg(value_name = "DST.gguf", required_unless_present = "dry_run")]
    destination: Option<PathBuf>,
    /// Only say what would be changed
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was found, and written.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(serialize_with = "lossy_path")]
    source: PathBuf,
    /// None where nothing was written. Not UTF-8, it is shown with other characters.
    destination: Option<String>,
    changes: Vec<Change>,
    /// How many there are in the repaired file.
    tensors: usize,
    /// Bytes of the tensors.
    tensor_bytes: u64,
    seconds: f64,
}

/// One change.
#[derive(Debug, Serialize)]
struct Change {
    kind: &'static str,
    /// A line; of keys and names, control characters are escaped.
    text: String,
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { source, destination, dry_run, json } = arguments;
    let report = repair(source, destination, dry_run).await?;
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        writeln!(out, "{}", render(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn repair(source: PathBuf, destination: Option<PathBuf>, dry_run: bool) -> anyhow::Result<Report> {
    let start = Instant::now();
    if let Some(destination) = &destination {
        check_destination(&source, destination)?;
    }
    let plan = Repair::plan(&source).map_err(damaged)?;
    let changes = plan.fixes().iter().map(Change::new).collect::<Vec<_>>();
    let (mut tensors, tensor_bytes) = (plan.tensors(), plan.bytes());
    let wanted = destination.filter(|_| !dry_run && !changes.is_empty());
    if let Some(destination) = &wanted {
        let to = destination.clone();
        tensors = interrupt::writing(destination, move || write(plan, &to)).await?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let destination = wanted.map(|path| path.to_string_lossy().into_owned());
    Ok(Report { source, destination, changes, tensors, tensor_bytes, seconds })
}

/// Writes the file, opens it as any reader does, and says how many tensors it has.
fn write(plan: Repair, to: &Path) -> anyhow::Result<usize> {
    let progress = Progress::new(plan.bytes());
    plan.write(to, |bytes| progress.add(bytes))?;
    drop(progress);
    let written = Gguf::open(to).context("the file that was written")?;
    Ok(written.tensors().count())
}

/// Another file than the source, by whatever name, and no folder.
fn check_destination(source: &Path, destination: &Path) -> anyhow::Result<()> {
    let Ok(there) = std::fs::metadata(destination) else { return Ok(()) };
    let name = destination.display();
    if there.is_dir() {
        return Err(misuse(format!("`{name}` is a folder")));
    }
    match std::fs::metadata(source) {
        Ok(source) if (source.dev(), source.ino()) == (there.dev(), there.ino()) => {
            Err(misuse(format!("`{name}` is the file that is to be repaired: name another to write")))
        }
        _ => Ok(()),
    }
}

impl Change {
    fn new(fix: &Fix) -> Self {
        Self { kind: fix.kind(), text: escaped(&fix.to_string()) }
    }
}

fn render(report: &Report) -> String {
    let source = escaped(&report.source.display().to_string());
    if report.changes.is_empty() {
        return format!("`{source}`: nothing to repair, so nothing is written");
    }
    let mut lines = vec![format!("`{source}`:")];
    lines.extend(report.changes.iter().map(|change| format!("  {}", change.text)));
    let (tensors, bytes) = (report.tensors, human_bytes(report.tensor_bytes));
    lines.push(match &report.destination {
        Some(destination) => {
            let destination = escaped(destination);
            let seconds = report.seconds;
            format!("wrote `{destination}` and read it back: {tensors} tensors, {bytes}, in {seconds:.1} s")
        }
        None => format!("nothing is written (--dry-run): {tensors} tensors, {bytes}"),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use models::gguf::{GgufWriter, TensorType, Value};

    use super::*;
    use crate::exit::Misuse;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// A whole file, of an architecture that nothing is known of.
    fn whole(path: &Path) {
        let mut writer = GgufWriter::new();
        writer
            .key("general.architecture", Value::String("other".to_owned()))
            .key("other.\x1b[2J", Value::U32(1))
            .tensor("w", TensorType::F32, &[8]);
        let mut tensors = writer.create(path).unwrap();
        tensors.write(&[9; 32]).unwrap();
        tensors.finish().unwrap();
    }

    /// The same with bytes at its end, and its source's bytes.
    fn damaged_file(folder: &Path) -> (PathBuf, Vec<u8>) {
        let path = folder.join("damaged.gguf");
        whole(&path);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"more");
        std::fs::write(&path, &bytes).unwrap();
        (path, bytes)
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_destination_is_needed_unless_nothing_is_written() {
        let parses =
            |line: &str| Line::try_parse_from(["repair"].into_iter().chain(line.split_whitespace())).is_ok();
        let fine = ["a.gguf b.gguf", "a.gguf --dry-run", "a.gguf b.gguf --dry-run --json"];
        assert!(fine.iter().all(|line| parses(line)));
        assert!(!["", "a.gguf", "--dry-run", "a b c"].iter().any(|line| parses(line)));
    }

    #[tokio::test]
    async fn a_damaged_file_is_written_whole_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (source, bytes) = damaged_file(folder.path());
        let destination = folder.path().join("whole.gguf");
        let report = repair(source.clone(), Some(destination.clone()), false).await.unwrap();
        assert_eq!((report.tensors, report.tensor_bytes), (1, 32));
        let text = render(&report);
        assert!(text.contains("4 bytes after the tensors") && text.contains("1 tensors"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["changes"][0]["kind"], "trailing_bytes");
        assert_eq!(json["destination"], destination.to_str().unwrap());
        assert_eq!(std::fs::read(&source).unwrap(), bytes);
        assert_eq!(std::fs::read(&destination).unwrap(), bytes[..bytes.len() - 4]);
        assert_eq!(files(folder.path()), 2);
    }

    #[tokio::test]
    async fn nothing_is_written_where_nothing_is_wrong_or_nothing_is_to_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let (source, _) = damaged_file(folder.path());
        let destination = Some(folder.path().join("whole.gguf"));
        let report = repair(source.clone(), destination.clone(), true).await.unwrap();
        assert!(report.changes.len() == 1 && report.destination.is_none());
        assert!(render(&report).contains("--dry-run"));
        whole(&source);
        let report = repair(source, destination, false).await.unwrap();
        assert!(report.changes.is_empty() && report.destination.is_none());
        assert!(render(&report).contains("nothing to repair"));
        assert_eq!(files(folder.path()), 1);
    }

    #[tokio::test]
    async fn the_source_by_any_name_or_a_folder_is_no_destination() {
        let folder = tempfile::tempdir().unwrap();
        let (source, bytes) = damaged_file(folder.path());
        let (link, hard) = (folder.path().join("link.gguf"), folder.path().join("hard.gguf"));
        std::os::unix::fs::symlink(&source, &link).unwrap();
        std::fs::hard_link(&source, &hard).unwrap();
        for destination in [source.clone(), link, hard, folder.path().to_owned()] {
            let error = repair(source.clone(), Some(destination), false).await.unwrap_err();
            assert!(error.is::<Misuse>(), "{error:#}");
        }
        assert_eq!(std::fs::read(&source).unwrap(), bytes);
        assert_eq!(files(folder.path()), 3);
    }

    #[tokio::test]
    async fn what_cannot_be_repaired_is_misuse_on_one_line_and_what_cannot_be_written_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (source, bytes) = damaged_file(folder.path());
        let nowhere = folder.path().join("absent/whole.gguf");
        let error = repair(source.clone(), Some(nowhere), false).await.unwrap_err();
        assert!(!error.is::<Misuse>(), "{error:#}");
        std::fs::write(&source, &bytes[..bytes.len() - 5]).unwrap();
        for source in [source, folder.path().join("absent.gguf"), folder.path().to_owned()] {
            let error = repair(source, Some(folder.path().join("whole.gguf")), false).await.unwrap_err();
            assert!(error.is::<Misuse>() && !format!("{error:#}").contains('\n'), "{error:#}");
        }
        assert_eq!(files(folder.path()), 1);
    }

    #[test]
    fn names_from_the_file_are_escaped() {
        let text = Change::new(&Fix::KeyTwice { key: "other.\x1b[2J".to_owned() }).text;
        assert!(!text.contains('\x1b') && text.contains("\\u{1b}"), "{text}");
    }
}
