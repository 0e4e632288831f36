//! Stages → door, on the control subject: a request was admitted, or has failed.

#![expect(missing_docs, reason = "rkyv's derive does not document the fields of an enum's archived variants")]

use rkyv::{Archive, Deserialize, Serialize};

use crate::{Edge, Failure, Fingerprint, InstanceId, RouteId, SessionId};

/// The instances that serve one sequence.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The pipeline that they are of.
    pub fp: Fingerprint,
    /// Fences this admission off from any other of the same answer.
    pub id: RouteId,
    /// One instance a shard, in layer order; the first one schedules and is whom doors speak to.
    pub shards: Vec<InstanceId>,
    /// Draws the tokens.
    pub sample: InstanceId,
    /// Makes the text.
    pub detokenize: InstanceId,
}

/// What a door hears about one session.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The session.
    pub session: SessionId,
    /// Which attempt of it.
    pub attempt: u32,
    /// What happened.
    pub event: Event,
}

/// What happened to an attempt.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It holds a sequence on this route.
    Admitted {
        /// Where it runs.
        route: Route,
        /// Length of the prompt in tokens.
        prompt_tokens: u32,
    },
    /// It has ended; `route` is none when it was never admitted.
    Failed {
        /// The admission it ended, so that a door ignores the end of another.
        route: Option<RouteId>,
        /// Why.
        failure: Failure,
    },
}

impl Edge for Notice {
    const KIND: u16 = 3;

    fn check(&self) -> Result<(), String> {
        match &self.event {
            Event::Admitted { route, .. } if route.shards.is_empty() => Err("a route without shards".into()),
            _ => Ok(()),
        }
    }
}
