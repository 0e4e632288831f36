//! Names of things on the bus. All are numbers, so a subject built from one is always valid.

use std::fmt;
use std::str::FromStr;

use rkyv::{Archive, Deserialize, Serialize};

/// One opening of a request by a door: fresh for every opening, unlike the request's own key.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u128);

/// One streamed response, whichever door writes it. Not guessable: it is random.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u128);

/// One admission by shard-forward.0. Whatever carries another route id is ignored by the session.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u64);

/// One KV cache, numbered by the shard-forward.0 instance that opened it; unique within that instance.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// One process on the bus. Fresh at every start, so it is the boot id too: a restarted process is another instance.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

/// Hash of config, weights, tokenizer, template, dtype, layer plan and wire version: part of every work subject,
/// so that shards of different models, versions or wire formats never meet.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

/// What an instance does.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A door: REST in, SSE out.
    Gateway,
    /// Chat template and tokenizer.
    Tokenize,
    /// Images to embeddings.
    VisionEncode,
    /// A contiguous run of decoder layers, by position in the layer plan; 0 also schedules.
    ShardForward(u16),
    /// Logits to token ids.
    Sample,
    /// Token ids to text.
    Detokenize,
}

impl Role {
    /// The folder, package, binary and metric label of this role: `shard-forward` for every shard.
    pub fn binary(self) -> &'static str {
        match self {
            Role::Gateway => "gateway",
            Role::Tokenize => "tokenize",
            Role::VisionEncode => "vision-encode",
            Role::ShardForward(_) => "shard-forward",
            Role::Sample => "sample",
            Role::Detokenize => "detokenize",
        }
    }

    /// Whether shard-forward.0 admits work for it, from the room that its instances grant.
    pub fn is_downstream(self) -> bool {
        match self {
            Role::ShardForward(shard) => shard > 0,
            Role::Sample | Role::Detokenize => true,
            Role::Gateway | Role::Tokenize | Role::VisionEncode => false,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::ShardForward(shard) => write!(f, "shard-forward.{shard}"),
            other => f.write_str(other.binary()),
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is not the hexadecimal form of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a hexadecimal id")]
pub struct NotAnId(String);

impl FromStr for InstanceId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        u64::from_str_radix(text, 16).map(Self).map_err(|_| NotAnId(text.to_owned()))
    }
}

impl FromStr for StreamId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NotAnId(text.to_owned()))
    }
}

impl FromStr for Fingerprint {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        u128::from_str_radix(text, 16).map(Self).map_err(|_| NotAnId(text.to_owned()))
    }
}
