//! Whether tokenizer, special tokens and chat template fit the model.

use anyhow::{Context as _, bail, ensure};
use models::gguf::{Gguf, Vocabulary};
use models::{ModelFolder, TemplateInput, Tokenizer};
use serde_json::{Map, json};

use super::Finding;

/// Scripts, digits, code, white space and characters beyond 16 bits.
const TEXTS: [&str; 6] = [
    "The quick brown fox jumps over the lazy dog.",
    "Grüße, Ελλάδα, 日本語, العربية, हिन्दी",
    "fn main() {\n    let x = vec![1, 23, 456];\n}\n",
    "12 + 30 = 42; 3.14159, 1,000,000",
    "a  b   c\n\n\td",
    "🙂👩‍👩‍👧 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
];

/// What the conversation says, to be found in what its template renders.
const MESSAGE: &str = "What is 12 + 30?";

/// Loads it and takes texts to ids and back.
pub(super) fn tokenizer(folder: &ModelFolder) -> anyhow::Result<(Tokenizer, String)> {
    let tokenizer = folder.load_tokenizer()?;
    let mut changed = 0;
    for text in TEXTS {
        let ids = tokenizer.encode(text, false)?;
        let back = tokenizer.decode(&ids, false)?;
        // Some put a space before a text and leave it there.
        if back == text || back.strip_prefix(' ') == Some(text) {
            continue;
        }
        let again = tokenizer.encode(&back, false)?;
        ensure!(again == ids, "the text {text:?} comes back as {back:?}, which has other tokens");
        changed += 1;
    }
    let detail = format!("{} tokens; {} texts come back", tokenizer.vocab_size(), TEXTS.len());
    let normalised = match changed {
        0 => String::new(),
        _ => format!(", {changed} of them in another form of the same tokens"),
    };
    Ok((tokenizer, detail + &normalised))
}

/// Whether every token that there is, and that ends an answer, is one of the model's.
pub(super) fn special_tokens(folder: &ModelFolder, tokenizer: &Tokenizer) -> anyhow::Result<Finding> {
    /// How far behind the model's last token others are looked for.
    const BEHIND: u32 = 65_536;
    let vocabulary = u32::try_from(folder.config().vocab_size).context("the vocabulary")?;
    let behind = vocabulary..vocabulary.saturating_add(BEHIND);
    if let Some((id, token)) = behind.into_iter().find_map(|id| Some((id, tokenizer.token(id)?))) {
        bail!("the tokenizer's token {id}, {token:?}, is outside the model's vocabulary of {vocabulary}");
    }
    let mut named: Vec<(&str, u32)> = folder.eos_ids().into_iter().map(|id| ("eos", id)).collect();
    if !folder.path().is_dir() {
        let vocabulary = Vocabulary::read(&Gguf::open(folder.path())?)?;
        let ids = [("bos", vocabulary.bos()), ("eos", vocabulary.eos()), ("eot", vocabulary.eot())];
        named.extend(ids.into_iter().filter_map(|(name, id)| Some((name, id?))));
    }
    for (name, id) in &named {
        ensure!(*id < vocabulary, "the {name} token {id} is outside the model's vocabulary of {vocabulary}");
        ensure!(tokenizer.token(*id).is_some(), "the {name} token {id} is not in the tokenizer");
    }
    let special = (0..vocabulary).filter(|id| tokenizer.is_special(*id)).count();
    let ends = folder.eos_ids();
    Ok(Finding::Passed(format!("{special} within the vocabulary of {vocabulary}; {ends:?} end an answer")))
}

/// Whether it renders a question and a whole conversation, into tokens of the model.
pub(super) fn chat_template(folder: &ModelFolder, tokenizer: &Tokenizer) -> anyhow::Result<Finding> {
    let Some(template) = folder.load_chat_template()? else {
        return Ok(Finding::Skipped("the model has none".to_owned()));
    };
    let user = json!({ "role": "user", "content": MESSAGE });
    let assistant = json!({ "role": "assistant", "content": "42" });
    let mut lengths = Vec::new();
    for messages in [json!([user]), json!([user, assistant, user])] {
        let input = TemplateInput {
            messages: &messages,
            tools: None,
            add_generation_prompt: true,
            extra: &Map::new(),
            now_unix: 0,
        };
        let prompt = template.render(&input)?;
        ensure!(prompt.contains(MESSAGE), "it leaves the user's message out: {prompt:?}");
        let ids = tokenizer.encode(&prompt, false)?;
        let outside = ids.iter().find(|id| **id as usize >= folder.config().vocab_size);
        ensure!(outside.is_none(), "it renders token {outside:?}, which the model does not have");
        lengths.push(ids.len());
    }
    Ok(Finding::Passed(format!("a question takes {} tokens, a conversation {}", lengths[0], lengths[1])))
}
