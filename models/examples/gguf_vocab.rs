//! Compares the token ids of a GGUF vocabulary with those expected.
//!
//! `gguf_vocab MODEL.gguf TEXTS.inp IDS.out`: a GGUF file, and a pair of files as llama.cpp has them beside its
//! `models/ggml-vocab-*.gguf`: texts with a line `__ggml_vocab_test__` after each, and a line of ids for each. Ends with status 1
//! when any differ.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use models::gguf::{Gguf, Vocabulary};

const SEPARATOR: &str = "\n__ggml_vocab_test__\n";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [file, texts, expected] = arguments.as_slice() else {
        return Err("usage: gguf_vocab MODEL.gguf TEXTS.inp IDS.out".into());
    };
    let start = Instant::now();
    let vocabulary = Vocabulary::read(&Gguf::open(Path::new(file))?)?;
    let read = start.elapsed();
    let tokenizer = vocabulary.tokenizer()?;
    let loaded = start.elapsed();
    let (texts, expected) = (std::fs::read_to_string(texts)?, std::fs::read_to_string(expected)?);
    let texts: Vec<&str> = texts.split(SEPARATOR).collect();
    let lines: Vec<&str> = expected.lines().collect();
    let mut different = 0;
    for (text, line) in texts.iter().zip(&lines) {
        let ids = tokenizer.encode(text, false)?;
        let wanted = line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        if ids != wanted {
            different += 1;
            println!("{text:?}\n  expected {wanted:?}\n  got      {ids:?}");
        }
    }
    // After the last separator there may be an empty text that has no ids.
    let compared = texts.len().min(lines.len());
    println!(
        "{file}: {} of {compared} texts agree, read in {read:.1?}, loaded in {loaded:.1?}",
        compared - different
    );
    Ok(if different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
