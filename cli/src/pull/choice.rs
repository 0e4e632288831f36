//! Which files of a repository serve: a checkpoint's, or one GGUF with all its parts.

use std::collections::BTreeSet;

use super::error::PullError;

/// Names of files that an error lists.
const NAMED_MAX: usize = 8;

/// Weights in one file, which transformers takes before an index.
pub const SINGLE: &str = "model.safetensors";

/// What names the files of weights, where there are more than one.
pub const INDEX: &str = "model.safetensors.index.json";

/// What the crate `models` opens in a folder besides weights, tokenizer and templates.
const CONFIGURATION: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "vision.onnx",
    "vision.onnx.data",
];

/// What to take.
#[derive(Debug, PartialEq, Eq)]
pub enum Choice {
    /// A checkpoint: configuration, tokenizer, templates, and the single file of weights or the index of several.
    Folder {
        /// Paths in the repository; `config.json` is the last.
        files: Vec<String>,
        /// The index, which is one of the files.
        index: Option<String>,
    },
    /// A GGUF.
    Gguf {
        /// Paths in the repository; one, or all of a split file in their order.
        parts: Vec<String>,
    },
}

/// Why there is no choice.
#[derive(Debug, PartialEq, Eq)]
pub struct NoChoice(String);

impl NoChoice {
    /// As an error about this repository.
    pub fn of(self, repository: &str) -> PullError {
        PullError::Listing { repository: repository.to_owned(), reason: self.0 }
    }
}

impl Choice {
    /// Paths in the repository.
    pub fn paths(&self) -> Vec<String> {
        match self {
            Self::Folder { files, .. } => files.clone(),
            Self::Gguf { parts } => parts.clone(),
        }
    }
}

/// The GGUF that `file` names; without one, the checkpoint, or the only GGUF there is.
pub fn choose(names: &[&str], file: Option<&str>) -> Result<Choice, NoChoice> {
    let first_parts: Vec<&str> = names.iter().copied().filter(|name| is_first_part(name)).collect();
    if let Some(file) = file {
        return parts(names, picked(&first_parts, file)?);
    }
    let has_weights = names.contains(&SINGLE) || names.contains(&INDEX);
    if names.contains(&"config.json") && has_weights {
        return Ok(checkpoint(names));
    }
    match first_parts.iter().filter(|name| !is_projector(name)).collect::<Vec<_>>().as_slice() {
        [] => Err(NoChoice(format!("it has neither config.json with `{SINGLE}` or `{INDEX}`, nor a GGUF"))),
        [only] => parts(names, only),
        _ => Err(NoChoice(format!("name one of its GGUFs behind a colon: {}", listed(&first_parts)))),
    }
}

fn checkpoint(names: &[&str]) -> Choice {
    let index = (!names.contains(&SINGLE)).then(|| INDEX.to_owned());
    let weights = index.as_deref().unwrap_or(SINGLE);
    let is_wanted = |name: &str| {
        let is_json = name.ends_with(".json");
        let is_tokenizer = name.starts_with("tokenizer") && !name.contains('/') && is_json;
        let is_template = name.starts_with("chat_template") && (is_json || name.ends_with(".jinja"));
        name == weights || CONFIGURATION.contains(&name) || is_tokenizer || is_template
    };
    let mut files: Vec<String> =
        names.iter().filter(|name| is_wanted(name)).map(|name| (*name).to_owned()).collect();
    files.sort_by_key(|name| name == "config.json");
    Choice::Folder { files, index }
}

/// The first part that `file` names: by its path, else by its quantisation, else by a part of its name from a word's beginning on.
fn picked<'a>(first_parts: &[&'a str], file: &str) -> Result<&'a str, NoChoice> {
    let wanted = file.to_ascii_lowercase();
    let wanted = wanted.strip_suffix(".gguf").unwrap_or(&wanted);
    let is_path = |name: &str| {
        let path = stem(name);
        path == wanted || whole_stem(name) == wanted || path.rsplit('/').next() == Some(wanted)
    };
    let is_quantisation = |name: &str| {
        let rest = stem(name).strip_suffix(wanted).map(str::to_owned);
        !is_projector(name) && rest.is_some_and(|rest| ends_a_word(&rest))
    };
    let has_words = |name: &str| {
        let path = stem(name);
        let found = path.match_indices(wanted).any(|(at, _)| ends_a_word(&path[..at]));
        !is_projector(name) && found
    };
    let rules: [&dyn Fn(&str) -> bool; 3] = [&is_path, &is_quantisation, &has_words];
    for rule in rules {
        match first_parts.iter().copied().filter(|name| rule(name)).collect::<Vec<_>>().as_slice() {
            [] => {}
            [only] => return Ok(only),
            several => return Err(NoChoice(format!("`{file}` is one of {}", listed(several)))),
        }
    }
    match first_parts {
        [] => Err(NoChoice("it has no GGUF: leave the colon and what follows out".to_owned())),
        _ => Err(NoChoice(format!("it has no GGUF `{file}`, but {}", listed(first_parts)))),
    }
}

/// All parts of the file whose first one this is.
fn parts(names: &[&str], first: &str) -> Result<Choice, NoChoice> {
    let Some((stem, _, count)) = split(first) else {
        return Ok(Choice::Gguf { parts: vec![first.to_owned()] });
    };
    let here =
        names.iter().filter_map(|name| split(name)).filter(|(other, _, of)| (*other, *of) == (stem, count));
    let here: BTreeSet<u32> = here.map(|(_, part, _)| part).collect();
    if !here.into_iter().eq(1..=count) {
        return Err(NoChoice(format!("not all {count} parts of `{first}` are there")));
    }
    let parts = (1..=count).map(|part| format!("{stem}-{part:05}-of-{count:05}.gguf")).collect();
    Ok(Choice::Gguf { parts })
}

/// What stands before `-00001-of-00003.gguf`, the part and how many there are; none of a whole file.
fn split(name: &str) -> Option<(&str, u32, u32)> {
    let (before, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, part) = before.rsplit_once('-')?;
    let is_number = |digits: &str| digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = |digits: &str| is_number(digits).then(|| digits.parse::<u32>().ok())?;
    Some((stem, number(part)?, number(count)?))
}

fn is_first_part(name: &str) -> bool {
    name.ends_with(".gguf") && split(name).is_none_or(|(_, part, _)| part == 1)
}

/// The vision side of a model, which is none alone.
fn is_projector(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|name| name.starts_with("mmproj"))
}

/// The path in lower case without extension and number of parts.
fn stem(name: &str) -> String {
    let stem = split(name).map_or_else(|| name.strip_suffix(".gguf").unwrap_or(name), |(stem, ..)| stem);
    stem.to_ascii_lowercase()
}

/// As [`stem`], with the number of parts.
fn whole_stem(name: &str) -> String {
    name.strip_suffix(".gguf").unwrap_or(name).to_ascii_lowercase()
}

fn ends_a_word(text: &str) -> bool {
    !text.chars().next_back().is_some_and(char::is_alphanumeric)
}

fn listed(names: &[&str]) -> String {
    let shown: Vec<&str> = names.iter().copied().take(NAMED_MAX).collect();
    let more = if names.len() > NAMED_MAX { ", …" } else { "" };
    crate::printable::escaped(&(shown.join(", ") + more))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKPOINT: [&str; 11] = [
        ".gitattributes",
        "README.md",
        "chat_template.jinja",
        "config.json",
        "consolidated.safetensors",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "original/tokenizer.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];

    const GGUFS: [&str; 7] = [
        "mmproj-m-f16.gguf",
        "m-Q4_K_M.gguf",
        "m-Q4_K_S.gguf",
        "m-bf16.gguf",
        "m-F16/m-F16-00001-of-00002.gguf",
        "m-F16/m-F16-00002-of-00002.gguf",
        "m-Q8_0-00001-of-00002.gguf",
    ];

    fn gguf(file: &str) -> Result<Vec<String>, NoChoice> {
        choose(&GGUFS, Some(file)).map(|choice| choice.paths())
    }

    #[test]
    fn of_a_checkpoint_what_is_read_is_taken_and_its_configuration_last() {
        let Choice::Folder { files, index } = choose(&CHECKPOINT, None).unwrap() else { panic!("a folder") };
        assert_eq!(
            files,
            [
                "chat_template.jinja",
                "model.safetensors.index.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "config.json"
            ]
        );
        assert_eq!(index.as_deref(), Some(INDEX));
        let names = ["config.json", "model.safetensors", INDEX];
        let Choice::Folder { files, index } = choose(&names, None).unwrap() else { panic!("a folder") };
        assert_eq!((files.len(), index), (2, None));
    }

    #[test]
    fn a_gguf_is_picked_by_path_quantisation_or_words_with_all_its_parts() {
        let one = |name: &str| Ok(vec![name.to_owned()]);
        assert_eq!(gguf("m-Q4_K_M.gguf"), one("m-Q4_K_M.gguf"));
        assert_eq!(gguf("q4_k_m"), one("m-Q4_K_M.gguf"));
        assert_eq!(gguf("bf16"), one("m-bf16.gguf"));
        assert_eq!(gguf("k_s"), one("m-Q4_K_S.gguf"));
        assert_eq!(gguf("mmproj-m-f16"), one("mmproj-m-f16.gguf"));
        let both = ["m-F16/m-F16-00001-of-00002.gguf", "m-F16/m-F16-00002-of-00002.gguf"];
        assert_eq!(gguf("f16").unwrap(), both);
        assert_eq!(gguf(both[0]).unwrap(), both);
    }

    #[test]
    fn what_is_absent_ambiguous_or_in_part_is_refused_with_names() {
        let reason = |file| gguf(file).unwrap_err().0;
        assert!(reason("q4_k").contains("m-Q4_K_M.gguf, m-Q4_K_S.gguf"));
        assert!(reason("q2_k").contains("m-bf16.gguf"));
        assert!(reason("q8_0").contains("parts"));
        assert!(choose(&GGUFS, None).is_err());
        assert!(choose(&["pytorch_model.bin", "config.json"], None).is_err());
        assert!(choose(&["m-00001-of-99999.gguf"], None).is_err());
        assert!(choose(&CHECKPOINT, Some("q4_k")).is_err());
        assert_eq!(choose(&["m.gguf", "config.json"], None).unwrap().paths(), ["m.gguf"]);
    }
}
