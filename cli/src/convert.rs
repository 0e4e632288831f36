//! `tokenway convert`: brings a model's files into the form that is served.

mod elements;
pub mod gguf;
mod store;
mod vision;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::builder::PossibleValuesParser;
use models::gguf::convert::FILE_TYPES;

use crate::named;

const EXAMPLES: &str = "\
Examples:
  tokenway convert ~/models/llama llama-q4_k.gguf --type q4_k  writes a model folder as GGUF
  tokenway convert llama-f16.gguf llama-q8_0.gguf --type q8_0  writes a GGUF in other types
  tokenway convert --vision ~/models/llava-1.5-7b-hf           writes vision.onnx beside the weights
  tokenway convert --vision ~/models/SmolVLM --output /tmp/vision.onnx

A GGUF has the language model, its tokenizer and its chat template. Of the quantised types, rows that are no whole blocks are stored
in smaller ones, and embedding and head in q6_k or q8_0, as llama.cpp does.

--vision knows the layouts llava (CLIP or SigLIP towers), idefics3, smolvlm and qwen2_5_vl. It needs Python with torch and transformers:
scripts/python-env makes one, --python names another.";

/// Bring a model's files into the form that is served
#[derive(Args)]
#[command(after_help = EXAMPLES, override_usage = "tokenway convert SRC DST.gguf --type TYPE\n       tokenway convert --vision MODEL_DIR")]
pub struct Arguments {
    /// What to write as GGUF: a model folder, a GGUF, a name that `tokenway models` shows, or hf:ORG/NAME[:FILE]
    #[arg(value_name = "SRC", requires = "destination", conflicts_with = "vision")]
    source: Option<PathBuf>,
    /// The GGUF file to write
    #[arg(value_name = "DST.gguf", requires = "file_type")]
    destination: Option<PathBuf>,
    /// What most matrices are stored in
    #[arg(
        long = "type",
        value_name = "TYPE",
        requires = "source",
        value_parser = PossibleValuesParser::new(FILE_TYPES.map(|file_type| file_type.name)),
    )]
    file_type: Option<String>,
    /// How the tokenizer cuts text into words (tokenizer.ggml.pre), where that cannot be told from tokenizer.json
    #[arg(long, value_name = "NAME", requires = "source")]
    pre: Option<String>,
    /// Say what was written as JSON
    #[arg(long, requires = "source")]
    json: bool,
    /// Export the vision encoder and projector of this model folder to ONNX
    #[arg(long, value_name = "MODEL_DIR", required_unless_present = "source")]
    vision: Option<PathBuf>,
    /// Where to write the vision encoder [default: vision.onnx in the model folder]
    #[arg(long, value_name = "FILE", conflicts_with = "source")]
    output: Option<PathBuf>,
    /// Python with torch, transformers, onnx, onnxscript and onnxruntime [default: .deps/python of the repository]
    #[arg(long, value_name = "PROGRAM", env = "TOKENWAY_PYTHON")]
    python: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { source, destination, file_type, pre, json, vision, output, python } = arguments;
    match (source, destination, file_type, vision) {
        (Some(source), Some(destination), Some(file_type), _) => {
            let source = named::resolve(&source).await?.path;
            let job = gguf::Job { source, destination, file_type, pre, json };
            gguf::run(job).await
        }
        (.., Some(vision)) => {
            let vision = named::resolve(&vision).await?.path;
            vision::run(&vision, output.as_deref(), python).await
        }
        _ => Err(crate::exit::misuse("neither a source, a destination and a type are given, nor `--vision`")),
    }
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
    fn a_gguf_wants_source_destination_and_type_and_the_vision_encoder_none_of_them() {
        let fine = [
            "folder model.gguf --type q4_k",
            "model.gguf other.gguf --type f16 --json",
            "folder model.gguf --type bf16 --pre llama-bpe",
            "--vision folder",
            "--vision folder --output vision.onnx --python python3",
        ];
        let wrong = [
            "",
            "folder",
            "folder model.gguf",
            "folder --type q4_k",
            "folder model.gguf --type q4_2",
            "folder model.gguf --type q4_k --vision folder",
            "folder model.gguf --type q4_k --output vision.onnx",
            "--vision folder --type q4_k",
            "--vision folder --json",
            "--output vision.onnx",
            "--type q4_k",
        ];
        let parses =
            |line: &str| Line::try_parse_from(["convert"].into_iter().chain(line.split_whitespace())).is_ok();
        assert!(fine.iter().all(|line| parses(line)), "{:?}", fine.map(parses));
        assert!(!wrong.iter().any(|line| parses(line)), "{:?}", wrong.map(parses));
    }
}
