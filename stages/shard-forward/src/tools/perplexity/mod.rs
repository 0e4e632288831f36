//! `tokenway perplexity`: how well a model predicts a text, and how far its predictions are from another's.
//!
//! Windows and scored tokens are those of llama.cpp's `perplexity` tool: the text's tokens, behind the token that starts a sequence
//! where the tokenizer adds one, cut into windows of `context`; that token also takes the first place of each window; the tokens
//! of the second half but its first are scored. So the figures can be compared.
//! Source: `tools/perplexity/perplexity.cpp` of llama.cpp.

mod report;
mod score;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use models::{ModelFolder, Tokenizer};
use pipelines::tools::Perplexity;

use super::exit::{misuse, unusable};
use super::model;
use super::progress::Progress;
use crate::engine::{Decoder, Engine as _};
pub use report::{Divergence, PerplexityReport, Predicted};
use score::{Compared, Scored, Window, compare, score};

/// Longest text: hours of work for the smallest models.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Measures the model, and the other where one is given.
pub fn run(arguments: &Perplexity) -> anyhow::Result<PerplexityReport> {
    let text = read(&arguments.text)?;
    let folder = model::open(&arguments.model)?;
    let base = arguments.base.as_deref().map(model::open).transpose()?;
    let tokenizer = base.as_ref().unwrap_or(&folder).load_tokenizer().map_err(unusable)?;
    let ids = ids(&tokenizer, &text)?;
    let windows = windows(&ids, arguments)?;
    let mut engine = load(&folder, arguments, &ids.text)?;
    let mut base_engine = base.as_ref().map(|base| load(base, arguments, &ids.text)).transpose()?;
    if let Some(base) = &base_engine {
        let (found, expected) = (engine.vocabulary(), base.vocabulary());
        if found != expected {
            return Err(misuse(format!("the models have vocabularies of {found} and {expected} tokens")));
        }
        refuse_too_many_logits(arguments.context, expected)?;
    }
    let progress = Progress::new(windows.len() as u64);
    let (mut scored, mut base_scored, mut compared) =
        (Scored::default(), Scored::default(), Compared::default());
    for window in &windows {
        match &mut base_engine {
            Some(base) => compare(base, &mut engine, window, &mut base_scored, &mut scored, &mut compared)?,
            None => score(&mut engine, window, &mut scored)?,
        }
        progress.now(format!("perplexity {:.4}", scored.perplexity().0));
        progress.step();
    }
    Ok(PerplexityReport {
        context: arguments.context,
        windows: windows.len(),
        tokens: scored.tokens(),
        dtype: arguments.dtype,
        threads: model::threads(),
        model: Predicted::new(model::name(&folder), engine.row_bytes(), &scored),
        base: base
            .as_ref()
            .zip(base_engine.as_ref())
            .map(|(folder, engine)| Predicted::new(model::name(folder), engine.row_bytes(), &base_scored)),
        divergence: base.is_some().then(|| compared.divergence(&scored, &base_scored)),
    })
}

/// The tokens of a text.
struct Ids {
    text: Vec<u32>,
    /// What the tokenizer puts before a text.
    start: Option<u32>,
}

fn read(path: &Path) -> anyhow::Result<String> {
    let refused = |why: String| misuse(format!("`{}`: {why}", path.display()));
    let file = File::open(path).map_err(|error| refused(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| refused(error.to_string()))?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(refused(format!("longer than {TEXT_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| refused("not UTF-8".to_owned()))
}

fn ids(tokenizer: &Tokenizer, text: &str) -> anyhow::Result<Ids> {
    let (with, without) = (tokenizer.encode("a", true)?, tokenizer.encode("a", false)?);
    // What it puts behind a text, if anything, does not end windows.
    let start = with.first().filter(|id| with.len() > without.len() && without.first() != Some(id)).copied();
    let text = start.into_iter().chain(tokenizer.encode(text, false)?).collect();
    Ok(Ids { text, start })
}

fn windows(ids: &Ids, arguments: &Perplexity) -> anyhow::Result<Vec<Window>> {
    let context = arguments.context as usize;
    let max = arguments.windows.map_or(usize::MAX, |max| max as usize);
    let whole = ids.text.chunks_exact(context).take(max);
    let windows: Vec<Window> = whole.map(|window| Window::new(window, ids.start)).collect();
    if windows.is_empty() {
        let count = ids.text.len();
        return Err(misuse(format!("the text has {count} tokens, fewer than a window of {context}")));
    }
    Ok(windows)
}

fn load(folder: &ModelFolder, arguments: &Perplexity, ids: &[u32]) -> anyhow::Result<Decoder> {
    let options = model::options(folder, &arguments.compute, arguments.dtype, (1, arguments.context))?;
    let engine = model::load(folder, &options)?;
    let vocabulary = engine.vocabulary();
    match ids.iter().find(|id| **id >= vocabulary) {
        Some(id) => Err(misuse(format!("the tokenizer gives token {id}, the model has {vocabulary}"))),
        None => Ok(engine),
    }
}

/// The base's logits of a window are in memory while the other's are computed.
fn refuse_too_many_logits(context: u32, vocabulary: u32) -> anyhow::Result<()> {
    const BYTES_MAX: u64 = 2 << 30;
    let bytes = u64::from(context / 2) * u64::from(vocabulary) * size_of::<f32>() as u64;
    match bytes > BYTES_MAX {
        true => Err(misuse(format!("`--context` {context}: the logits of a window take {bytes} bytes"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
