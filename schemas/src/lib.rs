//! Every byte that crosses the bus: one file an edge, in the order a request meets them.
//!
//! No I/O, no async runtime. [`wire`] is the only caller of rkyv.

pub mod ids;
pub mod subject;
pub mod tensor;
pub mod wire;

pub mod request;

pub mod prompt;

pub mod admission;
pub mod control;
pub mod failure;

pub mod hidden;

pub mod extras;
pub mod logits;
pub mod token;

pub mod chunk;

pub mod journal;

pub mod quarantine;

pub mod presence;

pub use failure::{Failure, FailureKind};
pub use ids::{Fingerprint, InstanceId, Role, RouteId, SequenceId, SessionId, StreamId};
pub use subject::Subject;
pub use tensor::{DType, ShapeError, Tensor};
pub use wire::{Edge, WireError};
