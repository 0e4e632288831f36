//! What shard-forward.0 decides travels inside steps, so that it cannot overtake data; what others ask of it comes as feedback.

use rkyv::{Archive, Deserialize, Serialize};

use crate::prompt::Grid;
use crate::request::{Context, Generation};
use crate::{Edge, InstanceId, RouteId, SequenceId};

/// Sender, number and decisions of one step.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Head {
    /// The shard-forward.0 instance that made the step.
    pub origin: InstanceId,
    /// Counts that instance's steps from 1; a receiver sees them in order and may see one twice.
    pub step: u64,
    /// Decisions to carry out before the step's rows, in order.
    pub control: Vec<Control>,
}

/// A decision about a sequence.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub enum Control {
    /// Rows of this sequence will follow.
    Open(Box<Open>),
    /// No row of this sequence will follow: free all of it.
    Release(SequenceId),
    /// Every sequence of this origin numbered below this one has ended: earlier releases may have been lost. Sent to each
    /// instance itself, which does not pass it on.
    ReleaseBelow(SequenceId),
}

/// What later stages need to know of a sequence before its first row.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Open {
    /// The sequence.
    pub sequence: SequenceId,
    /// The session it serves.
    pub context: Context,
    /// The admission it belongs to.
    pub route: RouteId,
    /// Its instance of each shard, in layer order.
    pub shards: Vec<InstanceId>,
    /// Who draws its tokens.
    pub sample: InstanceId,
    /// Who makes its text.
    pub detokenize: InstanceId,
    /// Positions below this are the prompt; the ones from here on are the answer.
    pub prompt_tokens: u32,
    /// How many tokens of the answer are forced and were delivered before.
    pub forced_tokens: u32,
    /// Longest answer in tokens.
    pub max_tokens: u32,
    /// The answer's other settings.
    pub generation: Generation,
    /// Token ids with which the model ends a sequence.
    pub eos: Vec<u32>,
    /// The prompt's images as positions count them; none for a model whose positions count tokens.
    pub grids: Vec<Grid>,
}

impl Head {
    /// Checks what the layout cannot express.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.control.iter().try_for_each(|control| match control {
            Control::Open(open) => Grid::check_all(&open.grids, open.prompt_tokens),
            Control::Release(_) | Control::ReleaseBelow(_) => Ok(()),
        })
    }
}

impl Open {
    /// Token ids that end the answer when drawn.
    pub fn ends_on(&self, id: u32) -> bool {
        let stop = &self.generation.stop;
        stop.token_ids.contains(&id) || (!stop.ignore_eos && self.eos.contains(&id))
    }
}

/// What doors and detokenize tell shard-forward.0.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// One entry a sequence.
    pub entries: Vec<(RouteId, Say)>,
}

/// What is said of a route.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// The client has taken the answer up to this many tokens.
    Delivered(u32),
    /// The answer ended in its text (a stop sequence).
    Stopped,
    /// Nobody wants the rest.
    Cancel,
}

impl Edge for Feedback {
    const KIND: u16 = 4;
}
