//! The declared matrix: which fault strikes which process.

use std::fmt;

/// What happens to a process, to its link with the broker, or to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// SIGKILL; another one is started at once.
    Kill,
    /// SIGTERM; it drains and exits, then another one is started.
    Term,
    /// SIGSTOP for ten seconds, then SIGCONT.
    Stop,
    /// Every read on its link is late, for some seconds.
    Slow,
    /// Its link carries nothing for five seconds; its connections stay open.
    Cut,
    /// Every packet between its network namespace and all others is dropped for five seconds.
    Drop,
    /// Its connections are closed under it, several times.
    Reset,
    /// The broker's memory for streams is full for some seconds.
    Full,
}

/// Every process that a pipeline with images consists of.
const PROCESSES: [&str; 7] =
    ["gateway", "tokenize", "vision-encode", "shard-forward.0", "shard-forward.1", "sample", "detokenize"];

/// The broker, as a target.
pub const BROKER: &str = "nats-server";
/// One of three servers that the broker is, as a target.
pub const BROKER_OF_THREE: &str = "nats-server-of-three";

/// One fault of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Cell {
    /// The process's role, or [`BROKER`].
    pub target: &'static str,
    /// What strikes it.
    pub fault: Fault,
}

/// All cells.
pub fn matrix() -> Vec<Cell> {
    let of_processes =
        [Fault::Kill, Fault::Term, Fault::Stop, Fault::Slow, Fault::Cut, Fault::Drop, Fault::Reset];
    let of_broker = [Fault::Kill, Fault::Cut, Fault::Reset, Fault::Full];
    let processes = of_processes
        .into_iter()
        .flat_map(|fault| PROCESSES.into_iter().map(move |target| Cell { target, fault }));
    let broker = of_broker.into_iter().map(|fault| Cell { target: BROKER, fault });
    processes.chain(broker).chain([Cell { target: BROKER_OF_THREE, fault: Fault::Kill }]).collect()
}

impl Cell {
    /// How many servers the broker is.
    pub fn brokers(&self) -> usize {
        if self.target == BROKER_OF_THREE { 3 } else { 1 }
    }

    /// Whether both can strike the same cluster.
    pub fn shares_cluster_with(&self, other: &Self) -> bool {
        self.fault == other.fault && self.brokers() == other.brokers()
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.fault, self.target)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Kill => "kill",
            Fault::Term => "term",
            Fault::Stop => "stop",
            Fault::Slow => "slow",
            Fault::Cut => "cut",
            Fault::Drop => "drop",
            Fault::Reset => "reset",
            Fault::Full => "full",
        })
    }
}
