//! Why one request ended without its answer. Travels to the door and becomes an HTTP status there.

use rkyv::{Archive, Deserialize, Serialize};

/// The kinds of failure that a client can act on.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The request breaks a rule; the same request will fail again.
    Invalid,
    /// What it names does not exist.
    NotFound,
    /// It is larger than a limit.
    TooLarge,
    /// Its time ran out.
    DeadlineExceeded,
    /// Its client left.
    Cancelled,
    /// A queue is full; later it may pass.
    Overloaded,
    /// A part that it needs is not there, or went away.
    Unavailable,
    /// A fault of ours.
    Internal,
}

/// The end of one request.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What a client can do about it.
    pub kind: FailureKind,
    /// One sentence for a person, naming the object and the limit.
    pub message: String,
    /// The request field at fault.
    pub param: Option<String>,
    /// A word for programs, e.g. `context_length_exceeded`.
    pub code: Option<String>,
    /// Seconds after which the same request may pass, where that is known.
    pub retry_after: Option<u32>,
}

/// The [`Failure::code`] of an attempt whose instance has gone.
const INSTANCE_LOST: &str = "instance_lost";
/// The [`Failure::code`] of an attempt during which the bus was away.
const BUS_AWAY: &str = "bus_away";
/// The [`Failure::code`] of a request that ends whoever serves it.
const POISON: &str = "poison";

impl Failure {
    /// A failure of `kind` that no single field caused.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// The request's field `param` breaks a rule.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Invalid,
            message: message.into(),
            param: Some(param.into()),
            code: None,
            retry_after: None,
        }
    }

    /// `what` has gone while it served the request: another attempt may pass, unless it is the request that ends it.
    pub fn instance_lost(what: impl std::fmt::Display) -> Self {
        let message = format!("`{what}` went away while it served the request");
        Self::new(FailureKind::Unavailable, message).with_code(INSTANCE_LOST)
    }

    /// Whether this is [`Failure::instance_lost`].
    pub fn is_instance_lost(&self) -> bool {
        self.code.as_deref() == Some(INSTANCE_LOST)
    }

    /// The bus was away, and what was on its way is lost: nothing is wrong with the request or its route.
    pub fn bus_away() -> Self {
        Self::new(FailureKind::Unavailable, "the message bus was away").with_code(BUS_AWAY)
    }

    /// Whether this is [`Failure::bus_away`].
    pub fn is_bus_away(&self) -> bool {
        self.code.as_deref() == Some(BUS_AWAY)
    }

    /// The request ends whoever serves it.
    pub fn poison() -> Self {
        let message =
            "the request ended the processes that served it, the last one while it served nothing else";
        Self::new(FailureKind::Internal, message).with_code(POISON)
    }

    /// Whether this is [`Failure::poison`].
    pub fn is_poison(&self) -> bool {
        self.code.as_deref() == Some(POISON)
    }

    /// The same failure with the time after which the request may pass, in seconds.
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The same failure with a word for programs.
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}
