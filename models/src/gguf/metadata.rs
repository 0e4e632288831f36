//! The keys and values of a GGUF.

use std::path::{Path, PathBuf};

use super::error::GgufError;
use super::value::{Array, Value};

/// Keys and values in the order of the file, each key once. Getters give none for a key that is not there, and an error that
/// names file and key for a value of another type.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    file: PathBuf,
    entries: Vec<(String, Value)>,
    /// Places of the entries, by rising key.
    by_key: Vec<usize>,
}

impl Metadata {
    pub(super) fn new(file: &Path, entries: Vec<(String, Value)>) -> Result<Self, GgufError> {
        let mut by_key: Vec<usize> = (0..entries.len()).collect();
        by_key.sort_unstable_by(|a, b| entries[*a].0.cmp(&entries[*b].0));
        if let Some(pair) = by_key.windows(2).find(|pair| entries[pair[0]].0 == entries[pair[1]].0) {
            let key = entries[pair[0]].0.clone();
            return Err(GgufError::DuplicateKey { file: file.to_owned(), key });
        }
        Ok(Self { file: file.to_owned(), entries, by_key })
    }

    /// The file; of a split one, its first part.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All of it, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let found = self.by_key.binary_search_by(|entry| self.entries[*entry].0.as_str().cmp(key)).ok()?;
        Some(&self.entries[self.by_key[found]].1)
    }

    /// A text.
    pub fn string(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.read(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A truth value.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.read(key, "a boolean", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// A whole number of 0 or more, of whatever width.
    pub fn whole(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.read(key, "a whole number of 0 or more", |value| u64::try_from(value.as_integer()?).ok())
    }

    /// A whole number of 32 unsigned bits, such as a token id.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.read(key, "a whole number of 32 bits", |value| u32::try_from(value.as_integer()?).ok())
    }

    /// A finite number, as in [`Value::as_number`].
    pub fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.read(key, "a finite number", Value::as_number)
    }

    /// Texts.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.read(key, "an array of strings", |value| match value {
            Value::Array(Array::String(strings)) => Some(strings.as_slice()),
            _ => None,
        })
    }

    /// Numbers of 32 bits, finite or not.
    pub fn floats(&self, key: &str) -> Result<Option<&[f32]>, GgufError> {
        self.read(key, "an array of 32-bit floats", |value| match value {
            Value::Array(Array::F32(floats)) => Some(floats.as_slice()),
            _ => None,
        })
    }

    /// Whole numbers, of whatever width.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, GgufError> {
        self.read(key, "an array of whole numbers", |value| match value {
            Value::Array(array) => array.as_integers(),
            _ => None,
        })
    }

    /// What a getter gives, which must be there: `metadata.required(key, metadata.string(key))`.
    pub fn required<T>(&self, key: &str, read: Result<Option<T>, GgufError>) -> Result<T, GgufError> {
        read?.ok_or_else(|| GgufError::MissingKey { file: self.file.clone(), key: key.to_owned() })
    }

    /// That the value of `key` cannot be used; `expected` says what could.
    pub fn refused(&self, key: &str, expected: &str) -> GgufError {
        let found = self.get(key).map_or_else(|| "missing".to_owned(), Value::describe);
        let (file, key) = (self.file.clone(), key.to_owned());
        GgufError::Value { file, key, found, expected: expected.to_owned() }
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.refused(key, expected))
    }
}
