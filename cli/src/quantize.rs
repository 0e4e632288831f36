//! `tokenway quantize`: converts a model, and says what that costs it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};

use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;
use models::gguf::convert::FILE_TYPES;
use pipelines::tools::{Compute, Element, Perplexity, Tool};
use serde_json::{Value, json};

use crate::compute;
use crate::convert::gguf::{Job, convert, line};
use crate::exit::misuse;
use crate::interrupt;
use crate::named;

const EXAMPLES: &str = "\
Examples:
  tokenway quantize ~/models/llama llama-q4_k.gguf --type q4_k --text wiki.test.raw
  tokenway quantize llama-f16.gguf llama-q8_0.gguf --type q8_0 --text wiki.test.raw --windows 20 --json

Writes what `tokenway convert` writes, then says what `tokenway perplexity DST.gguf --base SRC` says: the perplexities of both on the
text, and how far the result's predictions are from the source's. To measure without converting, use `tokenway perplexity`.";

/// Convert a model to a smaller type and measure what it loses
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// What to convert: a model folder, a GGUF, a name that `tokenway models` shows, or hf:ORG/NAME[:FILE]
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The GGUF file to write
    #[arg(value_name = "DST.gguf")]
    destination: PathBuf,
    /// What most matrices are stored in
    #[arg(
        long = "type",
        value_name = "TYPE",
        value_parser = PossibleValuesParser::new(FILE_TYPES.map(|file_type| file_type.name)),
    )]
    file_type: String,
    /// Text to predict, in UTF-8, of at most 64 MiB
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// How the tokenizer cuts text into words (tokenizer.ggml.pre), where that cannot be told from tokenizer.json
    #[arg(long, value_name = "NAME")]
    pre: Option<String>,
    /// Tokens of a window
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    context: u32,
    /// Take no more than this many windows, from the start of the text [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    windows: Option<u32>,
    /// Threads of the CPU [default: as many as pay for layers of the model's size]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(mut arguments: Arguments) -> anyhow::Result<ExitCode> {
    // Before the conversion, which can take long.
    let program = compute::program()?;
    std::fs::metadata(&arguments.text)
        .map_err(|error| misuse(format!("`{}`: {error}", arguments.text.display())))?;
    arguments.source = named::resolve(&arguments.source).await?.path;
    let Arguments { source, destination, file_type, pre, json, .. } = &arguments;
    let job = Job {
        source: source.clone(),
        destination: destination.clone(),
        file_type: file_type.clone(),
        pre: pre.clone(),
        json: *json,
    };
    let written = interrupt::writing(destination, move || convert(&job)).await?;
    let mut measure = compute::command(&program, &perplexity(&arguments))?;
    if !json {
        writeln!(std::io::stdout(), "{}", line(&written))?;
        return Ok(code(measure.status().context("shard-forward")?));
    }
    let output = measure.stderr(Stdio::inherit()).output().context("shard-forward")?;
    if !output.status.success() {
        return Ok(code(output.status));
    }
    let measured: Value = serde_json::from_slice(&output.stdout).context("what shard-forward measured")?;
    writeln!(std::io::stdout(), "{}", json!({ "written": written, "measured": measured }))?;
    Ok(ExitCode::SUCCESS)
}

/// The measurement.
fn perplexity(arguments: &Arguments) -> Tool {
    Tool::Perplexity(Perplexity {
        model: arguments.destination.clone(),
        text: arguments.text.clone(),
        base: Some(arguments.source.clone()),
        context: arguments.context,
        windows: arguments.windows,
        dtype: Element::F32,
        compute: Compute { threads: arguments.threads, device: "cpu".into() },
        json: arguments.json,
    })
}

/// As of the process that measured; 1 where it was killed.
fn code(status: ExitStatus) -> ExitCode {
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn what_is_measured_is_what_was_converted() {
        let words = "quantize -s --type q4_k --text=-t -- src dst.gguf";
        assert!(Line::try_parse_from(words.split(' ')).is_err(), "there is no `-s`");
        let words = "quantize --type q4_k --text=-t --windows 3 --threads 2 --json -- -src -dst.gguf";
        let arguments = Line::try_parse_from(words.split(' ')).unwrap().arguments;
        let Tool::Perplexity(it) = perplexity(&arguments) else { panic!("another tool") };
        assert_eq!((it.model, it.base), ("-dst.gguf".into(), Some("-src".into())));
        assert_eq!((it.text, it.windows, it.context), ("-t".into(), Some(3), 512));
        assert_eq!((it.compute.threads, it.json), (Some(2), true));
    }

    #[test]
    fn an_unknown_type_or_no_text_is_wrong_usage() {
        for words in [
            "quantize a b --type q4_2 --text t",
            "quantize a b --type q4_k",
            "quantize a --type q4_k --text t",
        ] {
            assert!(Line::try_parse_from(words.split(' ')).is_err(), "{words}");
        }
    }
}
