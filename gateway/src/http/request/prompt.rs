//! `prompt`: text or token ids, one or several.

use std::fmt;

use schemas::Failure;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::schema::any_of;

/// The prompts of one completions request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Prompt {
    /// A string.
    Text(String),
    /// An array of strings.
    Texts(Vec<String>),
    /// An array of token ids.
    Ids(Vec<u32>),
    /// An array of arrays of token ids.
    IdLists(Vec<Vec<u32>>),
}

any_of!(Prompt, "prompt", [String, Vec<String>, Vec<u32>, Vec<Vec<u32>>]);

impl Prompt {
    /// How many prompts these are.
    pub fn count(&self) -> usize {
        match self {
            Self::Text(_) | Self::Ids(_) => 1,
            Self::Texts(texts) => texts.len(),
            Self::IdLists(lists) => lists.len(),
        }
    }

    /// The prompts as text, none when they are token ids.
    pub fn texts(&self) -> Option<&[String]> {
        match self {
            Self::Text(text) => Some(std::slice::from_ref(text)),
            Self::Texts(texts) => Some(texts),
            Self::Ids(_) | Self::IdLists(_) => None,
        }
    }

    /// Fails when a list of token ids is empty.
    pub fn check(&self) -> Result<(), Failure> {
        match self {
            Self::IdLists(lists) if lists.iter().any(Vec::is_empty) => {
                Err(Failure::invalid("prompt", "`prompt` holds an empty list of token ids"))
            }
            _ => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PromptVisitor)
    }
}

struct PromptVisitor;

impl<'de> Visitor<'de> for PromptVisitor {
    type Value = Prompt;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of strings, an array of token ids or an array of such arrays")
    }

    fn visit_str<E>(self, text: &str) -> Result<Prompt, E> {
        Ok(Prompt::Text(text.to_owned()))
    }

    // The first element decides what the others must be.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
        match seq.next_element()? {
            None => Err(A::Error::custom("must not be empty")),
            Some(Element::Text(first)) => Ok(Prompt::Texts(collect(first, seq)?)),
            Some(Element::Id(first)) => Ok(Prompt::Ids(collect(first, seq)?)),
            Some(Element::Ids(first)) => Ok(Prompt::IdLists(collect(first, seq)?)),
        }
    }
}

fn collect<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(first: T, mut seq: A) -> Result<Vec<T>, A::Error> {
    let mut all = vec![first];
    while let Some(next) = seq.next_element()? {
        all.push(next);
    }
    Ok(all)
}

enum Element {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a token id or an array of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Element, E> {
        Ok(Element::Text(text.to_owned()))
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<Element, E> {
        u32::try_from(id)
            .map(Element::Id)
            .map_err(|_| E::custom(format!("token id {id} is over {}", u32::MAX)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = seq.next_element()? {
            ids.push(id);
        }
        Ok(Element::Ids(ids))
    }
}
