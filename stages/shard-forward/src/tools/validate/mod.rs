//! `tokenway validate`: whether a model's files are whole and agree with each other, and whether it computes.

mod files;
mod forward;
mod report;
mod text;

use std::path::Path;

use anyhow::{Context as _, ensure};
use models::ModelFolder;
use pipelines::tools::{Compute, Validate};

use super::exit::{misuse, one_line};
use super::model;
use super::progress::Progress;
use crate::engine::EngineOptions;
use files::Files;
use forward::{CONTINUED, SEQUENCES};
pub use report::{Check, Outcome, ValidateReport};

/// What a check says where it has not failed.
enum Finding {
    Passed(String),
    Skipped(String),
}

/// How many checks there are.
const CHECKS: u64 = 11;

/// Goes through all checks. An error only where there is no model at all.
pub fn run(arguments: &Validate) -> anyhow::Result<ValidateReport> {
    let path = &arguments.model;
    std::fs::metadata(path).map_err(|error| misuse(format!("`{}`: {error}", path.display())))?;
    let mut checks = Checks { checks: Vec::new(), progress: Progress::new(CHECKS) };

    let files = checks.add("files", || Ok((Files::open(path)?, "every file is whole".to_owned())));
    let folder = checks.add("configuration", || configuration(path));
    let without = "there are no whole files";
    checks.with("finite", files.as_ref(), without, Files::finite);

    let without = "there is no configuration";
    let tokenizer = match &folder {
        Some(folder) => checks.add("tokenizer", || text::tokenizer(folder)),
        None => checks.skip("tokenizer", without),
    };
    let both = folder.as_ref().zip(tokenizer.as_ref());
    let missing = "there is no tokenizer";
    checks.with("special tokens", both.as_ref(), missing, |(folder, tokenizer)| {
        text::special_tokens(folder, tokenizer)
    });
    checks.with("chat template", both.as_ref(), missing, |(folder, tokenizer)| {
        text::chat_template(folder, tokenizer)
    });
    checks.with("images", folder.as_ref(), without, images);

    let options = folder.as_ref().map(|folder| options(folder, arguments)).transpose()?;
    let both = folder.as_ref().zip(options.as_ref());
    let engine = match both {
        Some((folder, options)) => checks.add("shapes", || {
            let engine = model::load(folder, options)?;
            Ok((engine, "every weight has the shape that the configuration says".to_owned()))
        }),
        None => checks.skip("shapes", without),
    };
    let without = "the model cannot be loaded";
    let prompt = folder.as_ref().map(|folder| forward::prompt(folder, tokenizer.as_ref()));
    let loaded = engine.zip(prompt.as_ref());
    let logits = match loaded {
        Some((mut engine, prompt)) => {
            let logits = checks.add("forward pass", || forward::logits(&mut engine, prompt));
            let computed = logits.is_some().then_some(());
            checks.with("greedy", computed, "the forward pass has failed", |()| {
                forward::greedy(&mut engine, prompt)
            });
            logits
        }
        None => {
            checks.skip::<()>("forward pass", without);
            checks.skip("greedy", without)
        }
    };
    // The whole model is no longer in memory.
    let sharded = both.zip(prompt.as_ref()).zip(logits.as_ref());
    checks.with(
        "shards",
        sharded,
        "there are no logits to compare with",
        |(((folder, options), prompt), logits)| forward::shards(folder, options, prompt, logits),
    );
    Ok(ValidateReport { model: path.clone(), dtype: arguments.dtype, checks: checks.checks })
}

/// Checks so far.
struct Checks {
    checks: Vec<Check>,
    progress: Progress,
}

impl Checks {
    /// Does one that gives something for others.
    fn add<T>(
        &mut self,
        name: &'static str,
        check: impl FnOnce() -> anyhow::Result<(T, String)>,
    ) -> Option<T> {
        self.progress.now(name);
        let (found, outcome, detail) = match check() {
            Ok((found, detail)) => (Some(found), Outcome::Passed, detail),
            Err(error) => (None, Outcome::Failed, one_line(error)),
        };
        self.push(Check { name, outcome, detail });
        found
    }

    /// Does one that needs what another gave; `without` says what is missing.
    fn with<T>(
        &mut self,
        name: &'static str,
        needed: Option<T>,
        without: &str,
        check: impl FnOnce(T) -> anyhow::Result<Finding>,
    ) {
        let Some(needed) = needed else {
            self.skip::<()>(name, without);
            return;
        };
        self.progress.now(name);
        let (outcome, detail) = match check(needed) {
            Ok(Finding::Passed(detail)) => (Outcome::Passed, detail),
            Ok(Finding::Skipped(reason)) => (Outcome::Skipped, reason),
            Err(error) => (Outcome::Failed, one_line(error)),
        };
        self.push(Check { name, outcome, detail });
    }

    /// Leaves one out.
    fn skip<T>(&mut self, name: &'static str, reason: &str) -> Option<T> {
        self.push(Check { name, outcome: Outcome::Skipped, detail: reason.to_owned() });
        None
    }

    fn push(&mut self, check: Check) {
        self.checks.push(check);
        self.progress.step();
    }
}

fn configuration(path: &Path) -> anyhow::Result<(ModelFolder, String)> {
    let folder = ModelFolder::open(path)?;
    let config = folder.config();
    let detail = format!(
        "{} layers of {}, {} heads on {} of keys and values, {} tokens",
        config.num_hidden_layers,
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.vocab_size,
    );
    Ok((folder, detail))
}

/// That what reads pictures is there. vision-encode, which is linked to ONNX Runtime, computes with it when it starts.
fn images(folder: &ModelFolder) -> anyhow::Result<Finding> {
    if folder.vision().is_none() {
        return Ok(Finding::Skipped("the model takes none".to_owned()));
    }
    let encoder = folder.vision_encoder();
    let length = std::fs::metadata(&encoder)
        .with_context(|| format!("`{}`, which `tokenway convert --vision` writes", encoder.display()))?
        .len();
    ensure!(length > 0, "`{}` is empty", encoder.display());
    Ok(Finding::Passed("the vision encoder is there; it is computed when vision-encode starts".to_owned()))
}

/// In deterministic mode, so that what must be equal is equal in every bit.
fn options(folder: &ModelFolder, arguments: &Validate) -> anyhow::Result<EngineOptions> {
    let compute = Compute { threads: arguments.threads, device: "cpu".to_owned() };
    let tokens = forward::prompt_tokens(folder) + CONTINUED;
    let options =
        model::options(folder, &compute, arguments.dtype, (SEQUENCES, tokens.min(folder.context_length())))
            .context("the forward passes")?;
    Ok(EngineOptions { deterministic: true, ..options })
}

#[cfg(test)]
mod tests;
