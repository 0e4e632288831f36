//! `tokenway tokenize`: the tokens of a text, and the text of tokens.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use models::gguf::{Gguf, Vocabulary};
use models::{ChatTemplate, TemplateInput, Tokenizer};
use serde::Serialize;
use serde_json::{Map, json};

use crate::checkpoint::damaged;
use crate::exit::misuse;
use crate::named;
use crate::printable::{escaped_bytes, harmless};

const EXAMPLES: &str = "\
Examples:
  tokenway tokenize --model ~/models/llama \"Hello world\"
  tokenway tokenize --model ~/models/llama-q4_k_m.gguf --ids < prompt.txt
  tokenway tokenize --model ~/models/llama --chat \"What is 12 + 30?\"
  tokenway tokenize --model ~/models/llama --decode 9906,1917
  tokenway tokenize --model ~/models/llama --json \"Hello\" | jq '.ids | length'

Prints `id  piece`, a token a line; control characters and backslashes are escaped, and bytes that are no whole character read
`\\xe2`. Text of --decode is as it is, but on a terminal, where its control characters are escaped too.";

/// Show the tokens of a text, or the text of tokens
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Model folder, .gguf file, a name that `tokenway models` shows, or hf:ORG/NAME[:FILE]
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// The text; without it or with `-`, standard input as it is, its last line break included
    text: Option<String>,
    /// Print only the ids, on one line
    #[arg(long)]
    ids: bool,
    /// Add no token that starts or ends a sequence; with --decode, leave special tokens out
    #[arg(long, conflicts_with = "chat")]
    no_special: bool,
    /// Take the text for a user's message and render it with the model's chat template first
    #[arg(long)]
    chat: bool,
    /// Print the text of these ids
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with_all = ["text", "ids", "chat"])]
    decode: Option<Vec<u32>>,
    /// Print one JSON object
    #[arg(long, conflicts_with = "ids")]
    json: bool,
}

/// One token of the text.
#[derive(Debug, PartialEq, Serialize)]
struct Token {
    id: u32,
    /// As it stands in the vocabulary.
    token: Option<String>,
    /// What it stands for, escaped.
    piece: String,
    /// Whether decoding can leave it out.
    special: bool,
}

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let model = named::resolve(&arguments.model).await?.path;
    let source = Source::open(&model)?;
    let tokenizer = source.tokenizer()?;
    let mut out = std::io::stdout();
    if let Some(ids) = &arguments.decode {
        let text = decode(&tokenizer, ids, arguments.no_special)?;
        let line = match arguments.json {
            true => json!({ "ids": ids, "text": text }).to_string(),
            // A file's tokens may be commands to a terminal; a program that reads them gets them as they are.
            false if out.is_terminal() => harmless(&text),
            false => text,
        };
        writeln!(out, "{line}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = text(arguments.text)?;
    if arguments.chat {
        text = source.render(&text)?;
    }
    // A rendered prompt has its special tokens already.
    let ids = tokenizer.encode(&text, !arguments.chat && !arguments.no_special)?;
    if arguments.ids {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        writeln!(out, "{}", ids.join(" "))?;
        return Ok(ExitCode::SUCCESS);
    }
    let tokens: Vec<Token> = ids.iter().map(|id| Token::new(&tokenizer, *id)).collect();
    if arguments.json {
        writeln!(out, "{}", json!({ "text": text, "ids": ids, "tokens": tokens }))?;
    } else {
        let lines = tokens.iter().map(|token| format!("{}  {}\n", token.id, token.piece));
        out.write_all(lines.collect::<String>().as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(argument: Option<String>) -> anyhow::Result<String> {
    match argument.filter(|text| text != "-") {
        Some(text) => Ok(text),
        None => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|error| misuse(format!("standard input: {error}")))?;
            Ok(text)
        }
    }
}

/// Ids that there are no tokens for are refused: decoding would leave them out.
fn decode(tokenizer: &Tokenizer, ids: &[u32], no_special: bool) -> anyhow::Result<String> {
    if let Some(unknown) = ids.iter().find(|id| tokenizer.token(**id).is_none()) {
        let count = tokenizer.vocab_size();
        return Err(misuse(format!("there is no token {unknown} in the vocabulary of {count}")));
    }
    Ok(tokenizer.decode(ids, no_special)?)
}

impl Token {
    fn new(tokenizer: &Tokenizer, id: u32) -> Self {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        let special = tokenizer.is_special(id);
        Self { id, token: tokenizer.token(id), piece: escaped_bytes(&bytes), special }
    }
}

/// Where tokenizer and template come from.
enum Source<'a> {
    Folder(&'a Path),
    Gguf { gguf: Box<Gguf>, vocabulary: Box<Vocabulary> },
}

impl<'a> Source<'a> {
    fn open(path: &'a Path) -> anyhow::Result<Self> {
        if path.is_dir() {
            return Ok(Self::Folder(path));
        }
        let gguf = Gguf::open(path).map_err(damaged)?;
        let vocabulary = Box::new(Vocabulary::read(&gguf).map_err(damaged)?);
        Ok(Self::Gguf { gguf: Box::new(gguf), vocabulary })
    }

    fn tokenizer(&self) -> anyhow::Result<Tokenizer> {
        match self {
            Self::Folder(folder) => Tokenizer::from_file(&folder.join("tokenizer.json")).map_err(damaged),
            Self::Gguf { vocabulary, .. } => vocabulary.tokenizer().map_err(damaged),
        }
    }

    /// The prompt of a conversation of one message.
    fn render(&self, message: &str) -> anyhow::Result<String> {
        let Some(template) = self.template()? else {
            return Err(misuse("the model has no chat template: leave `--chat` out"));
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let input = TemplateInput {
            messages: &json!([{ "role": "user", "content": message }]),
            tools: None,
            add_generation_prompt: true,
            extra: &Map::new(),
            now_unix: i64::try_from(now).unwrap_or(0),
        };
        template.render(&input).map_err(damaged)
    }

    fn template(&self) -> anyhow::Result<Option<ChatTemplate>> {
        match self {
            Self::Folder(folder) => ChatTemplate::from_folder(folder).map_err(damaged),
            Self::Gguf { gguf, vocabulary } => {
                let template = gguf.metadata().string("tokenizer.chat_template").map_err(damaged)?;
                let compile = |template| ChatTemplate::new(template, vocabulary.special_tokens());
                template.map(compile).transpose().map_err(damaged)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use models::gguf::{Array, GgufWriter, Value};

    use super::*;

    const DEMO: &str = "../models/demo";

    /// A GGUF of four byte-level tokens and a template.
    fn gguf(path: &Path, template: Option<&str>) {
        let strings = |texts: &[&str]| {
            Value::Array(Array::String(texts.iter().map(|text| (*text).to_owned()).collect()))
        };
        let mut writer = GgufWriter::new();
        writer
            .key("tokenizer.ggml.model", Value::String("gpt2".to_owned()))
            .key("tokenizer.ggml.pre", Value::String("gpt-2".to_owned()))
            .key("tokenizer.ggml.tokens", strings(&["a", "b", "ab", "Ċ", "<end>"]))
            .key("tokenizer.ggml.token_type", Value::Array(Array::I32(vec![1, 1, 1, 1, 3])))
            .key("tokenizer.ggml.merges", strings(&["a b"]))
            .key("tokenizer.ggml.eos_token_id", Value::U32(4));
        if let Some(template) = template {
            writer.key("tokenizer.chat_template", Value::String(template.to_owned()));
        }
        writer.create(path).unwrap().finish().unwrap();
    }

    #[test]
    fn a_gguf_and_a_folder_have_tokens_that_read_as_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        gguf(&path, None);
        for (model, text) in [(path.as_path(), "ab\nb"), (Path::new(DEMO), "What is 12 + 30?")] {
            let tokenizer = Source::open(model).unwrap().tokenizer().unwrap();
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(decode(&tokenizer, &ids, true).unwrap(), text);
        }
        let tokenizer = Source::open(&path).unwrap().tokenizer().unwrap();
        let token = Token { id: 3, token: Some("Ċ".to_owned()), piece: "\\n".to_owned(), special: false };
        assert_eq!(Token::new(&tokenizer, 3), token);
        assert!(Token::new(&tokenizer, 4).special);
    }

    #[test]
    fn a_message_goes_through_the_template_of_the_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        gguf(&path, Some("{{ messages[0].content }}{{ eos_token }}{{ add_generation_prompt }}"));
        assert_eq!(Source::open(&path).unwrap().render("ab").unwrap(), "ab<end>True");
        assert!(Source::open(Path::new(DEMO)).unwrap().render("Hello").unwrap().contains("Hello"));
        gguf(&path, None);
        assert!(Source::open(&path).unwrap().render("ab").unwrap_err().is::<crate::exit::Misuse>());
    }

    #[test]
    fn an_unknown_id_or_a_model_without_a_tokenizer_is_misuse() {
        let tokenizer = Source::open(Path::new(DEMO)).unwrap().tokenizer().unwrap();
        let error = decode(&tokenizer, &[1, u32::MAX], false).unwrap_err();
        assert!(error.is::<crate::exit::Misuse>() && error.to_string().contains("4294967295"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let error = Source::open(folder.path()).unwrap().tokenizer().unwrap_err();
        assert!(error.is::<crate::exit::Misuse>() && error.to_string().contains("tokenizer.json"), "{error}");
        let error = Source::open(&folder.path().join("absent.gguf")).err().unwrap();
        assert!(error.is::<crate::exit::Misuse>() && error.to_string().contains("absent.gguf"), "{error}");
    }
}
