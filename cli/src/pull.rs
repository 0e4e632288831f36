//! `tokenway models pull`: brings a model from the Hugging Face Hub into its cache on this machine.
//!
//! Of hf-hub, what asks the Hub and what knows the cache's layout is used. Its own download is not: it makes a file part of a
//! snapshot before anything could check it, resumes at chunks only, and sends the token on to the host that the Hub redirects to.

mod cache;
mod choice;
mod digest;
mod error;
mod fetch;
mod hub;
mod listing;
mod part;
mod progress;
mod reference;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::memory::human_bytes;
use crate::registry::Places;
pub use cache::cached;
use choice::Choice;
pub use error::PullError;
use hub::Hub;
use listing::{Listing, RemoteFile};
use progress::Progress;
pub use reference::Reference;

const EXAMPLES: &str = "\
Examples:
  tokenway models pull Qwen/Qwen3-0.6B                         what serving it needs
  tokenway models pull bartowski/Llama-3.2-1B-Instruct-GGUF:q4_k_m
                                                               one GGUF, all its parts
  tokenway models pull ORG/NAME --revision v1.1 --json | jq -r .path

FILE is a GGUF's path in the repository, or a part of its name that only one has, such as its quantisation.
An interrupted download is resumed by the same command. Every file is checked against the hash that the Hub has of it.

Environment: HF_TOKEN, else the file that `hf auth login` writes; HF_ENDPOINT, in place of https://huggingface.co; HF_HOME and
HF_HUB_CACHE, where the cache is; HF_HUB_OFFLINE, to ask nothing.

Exit codes: 0 all is here, 1 not for now (network, disk, a wrong checksum), 2 there is no such thing or it may not be read.";

/// The revision that is taken when none is named.
pub const REVISION: &str = "main";

/// How often in a row a file that brings little is tried again, where nothing else is said.
const RETRIES: u32 = 4;

/// Download a model from the Hugging Face Hub
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The repository, and of one of GGUFs, which
    #[arg(value_name = "ORG/NAME[:FILE]")]
    model: Reference,
    /// Branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = REVISION, value_parser = reference::revision)]
    revision: String,
    /// How often in a row a request that brings little is made again
    #[arg(long, value_name = "N", default_value_t = RETRIES)]
    retries: u32,
    /// Print one JSON object in the end
    #[arg(long)]
    json: bool,
}

/// What is here now.
#[derive(Debug, Serialize)]
pub struct Pulled {
    /// `ORG/NAME`.
    pub repository: String,
    /// The commit.
    pub commit: String,
    /// What to serve: the snapshot's folder, or the GGUF in it, of a split one the first part.
    pub path: PathBuf,
    /// Bytes of all files.
    pub bytes: u64,
    /// Those that came now; the others were here.
    pub downloaded_bytes: u64,
    /// The files.
    pub files: Vec<RemoteFile>,
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let hub = Hub::of_environment(&Places::of_environment(), arguments.retries)?;
    let pulled = pull(&hub, &arguments.model, &arguments.revision).await;
    let pulled = pulled.map_err(PullError::into_command_error)?;
    let mut out = std::io::stdout();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&pulled)?)?;
    } else {
        let (all, now) = (human_bytes(pulled.bytes), human_bytes(pulled.downloaded_bytes));
        writeln!(out, "{}: {all}, {now} of it downloaded", pulled.path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Pulls with the settings of the environment.
pub async fn pull_main(model: &Reference, places: &Places) -> anyhow::Result<PathBuf> {
    let hub = Hub::of_environment(places, RETRIES)?;
    let pulled = pull(&hub, model, REVISION).await.map_err(PullError::into_command_error)?;
    Ok(pulled.path)
}

/// Brings what is missing of `model` into the cache. Its snapshot gets links to the files when all are whole, and
/// `config.json`, without which a folder is no model, last.
async fn pull(hub: &Hub, model: &Reference, revision: &str) -> Result<Pulled, PullError> {
    let listing = hub.listing(model.repository(), revision).await?;
    let progress = Progress::new(model.repository());
    let mut downloaded_bytes = 0;
    let names: Vec<&str> = listing.files.keys().map(String::as_str).collect();
    let choice = choice::choose(&names, model.file()).map_err(|error| error.of(model.repository()))?;
    let mut paths = choice.paths();
    if let Choice::Folder { index: Some(index), .. } = &choice {
        let file = listing.of_index(index)?;
        progress.expect(file.size);
        downloaded_bytes += hub.fetch(&listing, &file, &progress).await?;
        paths.extend(cache::weights_of_index(&hub.blob(&listing, &file))?);
    }
    let files = paths.iter().map(|path| listing.hashed(path)).collect::<Result<Vec<_>, _>>()?;
    hub.expect_space(hub.missing(&listing, &files))?;
    for file in &files {
        progress.expect(file.size);
    }
    for file in &files {
        downloaded_bytes += hub.fetch(&listing, file, &progress).await?;
    }
    let snapshot = hub.link(&listing, &files, revision)?;
    let path = match &choice {
        Choice::Folder { .. } => snapshot,
        Choice::Gguf { parts } => snapshot.join(&parts[0]),
    };
    let bytes = files.iter().map(|file| file.size).sum();
    let Listing { repository, commit, .. } = listing;
    Ok(Pulled { repository, commit, path, bytes, downloaded_bytes, files })
}
