//! Typed reading of a configuration file, so that every error names the file, the field and the value.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// Why a configuration file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not a JSON object.
    #[error("`{file}` is not a JSON object")]
    Json {
        /// Name of the file.
        file: &'static str,
        /// Where the JSON is wrong.
        source: serde_json::Error,
    },
    /// A file that this model needs is absent.
    #[error("there is no `{file}`, which says how {needed_by} are prepared")]
    NoFile {
        /// Name of the file.
        file: &'static str,
        /// What it is for.
        needed_by: &'static str,
    },
    /// A file could not be read.
    #[error("`{file}`")]
    Io {
        /// Name of the file.
        file: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A field that has no default is absent or null.
    #[error("`{field}` is missing in `{file}`")]
    Missing {
        /// Name of the file.
        file: &'static str,
        /// Path of the field.
        field: String,
    },
    /// A field has a value that no model of this architecture can have.
    #[error("`{field}` is `{value}` in `{file}`, expected {expected}")]
    Invalid {
        /// Name of the file.
        file: &'static str,
        /// Path of the field.
        field: String,
        /// The value as JSON.
        value: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A field asks for a feature that tokenway does not compute.
    #[error("`{field}` is `{value}` in `{file}`, which is not supported")]
    Unsupported {
        /// Name of the file.
        file: &'static str,
        /// Path of the field.
        field: String,
        /// The value as JSON.
        value: String,
    },
}

impl ConfigError {
    /// The path of the field, where it is one that is wrong.
    pub(crate) fn field(&self) -> Option<&str> {
        match self {
            Self::Missing { field, .. } | Self::Invalid { field, .. } | Self::Unsupported { field, .. } => {
                Some(field)
            }
            Self::Json { .. } | Self::NoFile { .. } | Self::Io { .. } => None,
        }
    }
}

/// A JSON object of a configuration file. A field that is null counts as absent, as in transformers.
pub(crate) struct ConfigFields {
    file: &'static str,
    /// Path of this object in the file, with its final dot: empty or such as `rope_scaling.`.
    prefix: String,
    object: Map<String, Value>,
}

impl ConfigFields {
    pub(crate) fn parse(file: &'static str, json: &[u8]) -> Result<Self, ConfigError> {
        let object = serde_json::from_slice(json).map_err(|source| ConfigError::Json { file, source })?;
        Ok(Self { file, prefix: String::new(), object })
    }

    /// The content of `file` in `folder`; none when there is no such file.
    pub(crate) fn read_if_there(
        folder: &std::path::Path,
        file: &'static str,
    ) -> Result<Option<Self>, ConfigError> {
        match std::fs::read(folder.join(file)) {
            Ok(json) => Self::parse(file, &json).map(Some),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::Io { file, source }),
        }
    }

    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.object.get(field).filter(|value| !value.is_null())
    }

    /// Whether the field is there, if only as null.
    pub(crate) fn names(&self, field: &str) -> bool {
        self.object.contains_key(field)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.object.is_empty()
    }

    /// The object under `field`.
    pub(crate) fn object(&self, field: &str) -> Result<Option<Self>, ConfigError> {
        self.read(field, "an object", |value| {
            let prefix = format!("{}{field}.", self.prefix);
            Some(Self { file: self.file, prefix, object: value.as_object()?.clone() })
        })
    }

    /// A whole number in `range`.
    pub(crate) fn whole(
        &self,
        field: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ConfigError> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.read(field, &expected, |value| {
            let number = usize::try_from(value.as_u64()?).ok()?;
            range.contains(&number).then_some(number)
        })
    }

    /// A finite number greater than zero.
    pub(crate) fn positive(&self, field: &str) -> Result<Option<f64>, ConfigError> {
        self.read(field, "a number above 0", |value| value.as_f64().filter(|number| *number > 0.0))
    }

    /// A finite number, zero included.
    pub(crate) fn not_negative(&self, field: &str) -> Result<Option<f64>, ConfigError> {
        self.read(field, "a number of 0 or more", |value| value.as_f64().filter(|number| *number >= 0.0))
    }

    /// As many finite numbers greater than zero as `count`.
    pub(crate) fn positives(&self, field: &str, count: usize) -> Result<Option<Vec<f64>>, ConfigError> {
        self.read(field, &format!("{count} numbers above 0"), |value| {
            let numbers =
                value.as_array()?.iter().map(|number| number.as_f64().filter(|number| *number > 0.0));
            numbers.collect::<Option<Vec<f64>>>().filter(|numbers| numbers.len() == count)
        })
    }

    /// Three whole numbers that add up to `sum`.
    pub(crate) fn three_parts(&self, field: &str, sum: usize) -> Result<Option<[usize; 3]>, ConfigError> {
        self.read(field, &format!("three whole numbers that add up to {sum}"), |value| {
            let parts: Option<Vec<usize>> =
                value.as_array()?.iter().map(|part| usize::try_from(part.as_u64()?).ok()).collect();
            let parts: [usize; 3] = parts?.try_into().ok()?;
            let total = parts.iter().try_fold(0_usize, |total, part| total.checked_add(*part));
            (total == Some(sum)).then_some(parts)
        })
    }

    /// Three finite numbers.
    pub(crate) fn three(&self, field: &str) -> Result<Option<[f32; 3]>, ConfigError> {
        self.read(field, "three numbers", |value| {
            let numbers: Vec<f32> = value
                .as_array()?
                .iter()
                .map(|number| number.as_f64().map(|number| number as f32))
                .collect::<Option<_>>()?;
            numbers.try_into().ok()
        })
    }

    pub(crate) fn bool(&self, field: &str) -> Result<Option<bool>, ConfigError> {
        self.read(field, "true or false", Value::as_bool)
    }

    pub(crate) fn string(&self, field: &str) -> Result<Option<&str>, ConfigError> {
        self.read(field, "a string", Value::as_str)
    }

    pub(crate) fn token_id(&self, field: &str) -> Result<Option<u32>, ConfigError> {
        self.read(field, "a token id", as_token_id)
    }

    /// One token id or a list of them; empty when absent.
    pub(crate) fn token_ids(&self, field: &str) -> Result<Vec<u32>, ConfigError> {
        let ids = self.read(field, "a token id or a list of token ids", |value| match value.as_array() {
            Some(ids) => ids.iter().map(as_token_id).collect(),
            None => Some(vec![as_token_id(value)?]),
        })?;
        Ok(ids.unwrap_or_default())
    }

    pub(crate) fn missing(&self, field: &str) -> ConfigError {
        ConfigError::Missing { file: self.file, field: self.path(field) }
    }

    pub(crate) fn invalid(&self, field: &str, value: &Value, expected: &str) -> ConfigError {
        let (value, expected) = (value.to_string(), expected.to_owned());
        ConfigError::Invalid { file: self.file, field: self.path(field), value, expected }
    }

    pub(crate) fn unsupported(&self, field: &str, value: &Value) -> ConfigError {
        ConfigError::Unsupported { file: self.file, field: self.path(field), value: value.to_string() }
    }

    /// Refuses the file unless `field` is absent or one of `accepted`.
    pub(crate) fn only(&self, field: &str, accepted: &[Value]) -> Result<(), ConfigError> {
        match self.get(field) {
            Some(value) if !accepted.contains(value) => Err(self.unsupported(field, value)),
            _ => Ok(()),
        }
    }

    /// Fields whose value is an object.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.object
            .iter()
            .filter(|(_, value)| value.is_object())
            .map(|(field, value)| (field.as_str(), value))
    }

    fn read<'a, T>(
        &'a self,
        field: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.invalid(field, value, expected))
    }

    fn path(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }
}

fn as_token_id(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}
