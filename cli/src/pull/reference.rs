//! What to pull: a repository, and perhaps one of its files.

use std::str::FromStr;

use super::error::PullError;
use super::listing::is_inside;

/// Longest name of a repository. Source: `validate_repo_id` of huggingface_hub.
const NAME_BYTES_MAX: usize = 96;

/// `ORG/NAME` or `ORG/NAME:FILE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    repository: String,
    file: Option<String>,
}

impl Reference {
    /// `ORG/NAME`: two parts of letters, digits, `-`, `_` and `.`, so one folder name in the cache and nothing else.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Path of a GGUF in the repository, or a part of its name.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }
}

/// With `hf:` before it or without.
impl FromStr for Reference {
    type Err = PullError;

    fn from_str(text: &str) -> Result<Self, PullError> {
        let refused = || PullError::Reference(text.to_owned());
        let name = text.strip_prefix("hf:").unwrap_or(text);
        let (repository, file) = match name.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (name, None),
        };
        let (organisation, name) = repository.split_once('/').ok_or_else(refused)?;
        let fits = is_name(organisation) && is_name(name) && repository.len() <= NAME_BYTES_MAX;
        if !fits || !file.is_none_or(is_inside) {
            return Err(refused());
        }
        Ok(Self { repository: repository.to_owned(), file: file.map(str::to_owned) })
    }
}

fn is_name(text: &str) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = text.as_bytes();
    is_edge(bytes.first())
        && bytes.last().is_some_and(|byte| !b"-.".contains(byte))
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        && !text.contains("--")
        && !text.contains("..")
}

/// A branch, tag or commit as an argument. It becomes the name of a file in the cache.
pub fn revision(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./+@".contains(&byte));
    if is_plain && is_inside(text) { Ok(text.to_owned()) } else { Err("no branch, tag or commit".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_two_parts_and_a_file_follows_a_colon() {
        let parse = |text: &str| text.parse::<Reference>().map(|it| (it.repository, it.file)).ok();
        let is = |repository: &str, file: Option<&str>| Some((repository.into(), file.map(str::to_owned)));
        assert_eq!(parse("org/x"), is("org/x", None));
        assert_eq!(parse("hf:org/x-1.5_b"), is("org/x-1.5_b", None));
        assert_eq!(parse("org/x:q4/a.gguf"), is("org/x", Some("q4/a.gguf")));
        for wrong in
            ["", "x", "a/b/c", "../x", "a/..", "a/.b", "a/b--c", "a/b:", "a/b:/c", "a/b:../c", "a/b\n"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(parse(&format!("a/{}", "b".repeat(NAME_BYTES_MAX))), None);
    }

    #[test]
    fn a_revision_stays_in_its_folder() {
        assert!(["main", "refs/pr/3", "v1.0"].into_iter().all(|text| revision(text).is_ok()));
        assert!(
            ["", "../main", "/main", "a b", "a?b", "a//b"].into_iter().all(|text| revision(text).is_err())
        );
    }
}
