//! `stop`: one sequence or several.

use std::fmt;

use schemas::Failure;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::limits::{STOP_BYTES_MAX, STOPS_MAX, check_count};
use super::schema::any_of;

/// Texts that end an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StopSequences {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

any_of!(StopSequences, "stop", [String, Vec<String>]);

impl StopSequences {
    /// The sequences, when there are not too many and none is empty or too long.
    pub fn check(&self) -> Result<Vec<String>, Failure> {
        let sequences = match self {
            Self::One(sequence) => std::slice::from_ref(sequence),
            Self::Many(sequences) => sequences,
        };
        check_count("stop", "sequences", sequences.len(), STOPS_MAX)?;
        match sequences.iter().find(|sequence| sequence.is_empty() || sequence.len() > STOP_BYTES_MAX) {
            Some(wrong) => {
                let message = format!(
                    "`stop` holds a sequence of {} bytes, must be 1 to {STOP_BYTES_MAX}",
                    wrong.len()
                );
                Err(Failure::invalid("stop", message))
            }
            None => Ok(sequences.to_vec()),
        }
    }
}

impl<'de> Deserialize<'de> for StopSequences {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StopVisitor)
    }
}

struct StopVisitor;

impl<'de> Visitor<'de> for StopVisitor {
    type Value = StopSequences;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_str<E>(self, text: &str) -> Result<StopSequences, E> {
        Ok(StopSequences::One(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StopSequences, A::Error> {
        let mut sequences = Vec::new();
        while let Some(sequence) = seq.next_element()? {
            sequences.push(sequence);
        }
        Ok(StopSequences::Many(sequences))
    }
}
