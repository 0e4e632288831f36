//! Keeps processes running, and stops them in order.

use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use schemas::{InstanceId, Role};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::backoff::Backoff;
use super::child::{Child, End};
use super::terminal::{Tail, Terminal};
use crate::bus::View;
use crate::exit::misuse;
use crate::signals::Signals;

/// What a process exits with when starting it again changes nothing.
const BAD_CONFIGURATION: i32 = 2;

/// Lines shown of a process whose configuration is bad.
const REASON_LINES: usize = 5;

const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What is being stopped: everything up to here, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nothing.
    Serving,
    /// The gateway takes no more requests and finishes those it has.
    Doors,
    /// Then the stages have nothing left to do.
    Stages,
    /// The bus goes last.
    Broker,
    /// Whatever still runs, without waiting.
    Kill,
}

/// What to run.
pub struct Process {
    /// Name in logs.
    pub label: String,
    /// What it does on the bus; none for the broker.
    pub role: Option<Role>,
    /// When it is stopped.
    pub stop_at: Phase,
    /// Makes the command line of one life.
    pub command: Box<dyn Fn(InstanceId) -> Command + Send + Sync>,
    /// Whether a log line is worth showing.
    pub shows: fn(&str) -> bool,
}

/// A process that is kept running, through all its lives.
pub struct Slot {
    /// Name in logs.
    pub label: String,
    /// What it does on the bus; none for the broker.
    pub role: Option<Role>,
    /// Its last lines.
    pub tail: Tail,
    index: usize,
    stop_at: Phase,
    shows: fn(&str) -> bool,
    instance: Mutex<Option<InstanceId>>,
}

/// Owns every process that `up` starts.
pub struct Supervisor {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    slots: Vec<Arc<Slot>>,
    tasks: Vec<(Phase, JoinHandle<()>)>,
}

struct Shared {
    terminal: Arc<Terminal>,
    view: OnceLock<Arc<View>>,
    fatal: mpsc::Sender<anyhow::Error>,
}

impl Slot {
    /// The instance that lives now; none between lives and after the last.
    pub fn instance(&self) -> Option<InstanceId> {
        *self.lock()
    }

    /// Takes in a line that the process wrote.
    pub fn write(&self, terminal: &Terminal, line: &str) {
        self.tail.push(line);
        if (self.shows)(line) {
            terminal.log(&self.label, self.index, line);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<InstanceId>> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    /// A supervisor of nothing, and the errors after which nothing can go on.
    pub fn new(terminal: Arc<Terminal>) -> (Self, mpsc::Receiver<anyhow::Error>) {
        let (fatal, errors) = mpsc::channel(1);
        let shared = Arc::new(Shared { terminal, view: OnceLock::new(), fatal });
        let phase = watch::Sender::new(Phase::Serving);
        (Self { shared, phase, slots: Vec::new(), tasks: Vec::new() }, errors)
    }

    /// From now on deaths are announced on the bus. The first call counts.
    pub fn announce_through(&self, view: Arc<View>) {
        self.shared.view.get_or_init(|| view);
    }

    /// Keeps `process` running until the shutdown.
    pub fn start(&mut self, process: Process) -> Arc<Slot> {
        self.shared.terminal.make_room(&process.label);
        let slot = Arc::new(Slot {
            label: process.label.clone(),
            role: process.role,
            tail: Tail::default(),
            index: self.slots.len(),
            stop_at: process.stop_at,
            shows: process.shows,
            instance: Mutex::new(None),
        });
        let task = keep_alive(process, slot.clone(), self.shared.clone(), self.phase.subscribe());
        self.tasks.push((slot.stop_at, tokio::spawn(task)));
        self.slots.push(slot.clone());
        slot
    }

    /// All processes, in the order in which they were started.
    pub fn slots(&self) -> &[Arc<Slot>] {
        &self.slots
    }

    /// Where logs go.
    pub fn terminal(&self) -> &Arc<Terminal> {
        &self.shared.terminal
    }

    /// Stops everything: doors, stages, broker, each after the one before has ended. Another signal kills what is left.
    pub async fn shut_down(mut self, signals: &mut Signals) {
        for stage in [Phase::Doors, Phase::Stages, Phase::Broker] {
            self.advance(stage);
            let tasks: Vec<_> =
                self.tasks.extract_if(.., |(stop_at, _)| *stop_at == stage).map(|(_, task)| task).collect();
            let mut ended = std::pin::pin!(join_all(tasks));
            let mut progress = tokio::time::interval(PROGRESS_EVERY);
            loop {
                tokio::select! {
                    _ = &mut ended => break,
                    () = signals.next() => self.advance(Phase::Kill),
                    _ = progress.tick() => self.show_remaining(stage),
                }
            }
        }
        self.shared.terminal.waited();
    }

    fn advance(&self, to: Phase) {
        self.phase.send_modify(|phase| *phase = to.max(*phase));
    }

    fn show_remaining(&self, stage: Phase) {
        let remaining = self.slots.iter().filter(|slot| slot.stop_at == stage && slot.instance().is_some());
        let labels: Vec<_> = remaining.map(|slot| slot.label.as_str()).collect();
        if !labels.is_empty() {
            self.shared.terminal.wait_for(&format!("stopping {} (Ctrl-C kills)", labels.join(", ")));
        }
    }
}

/// Waits until `phase` is at `wanted` or later.
pub async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    // The sender is dropped only with the supervisor, after the last process.
    let _ = phase.wait_for(|phase| *phase >= wanted).await;
}

async fn keep_alive(
    process: Process,
    slot: Arc<Slot>,
    shared: Arc<Shared>,
    mut phase: watch::Receiver<Phase>,
) {
    let mut backoff = Backoff::default();
    while *phase.borrow() < process.stop_at {
        // Fresh in every life: a restarted process is another instance.
        let instance = InstanceId(rand::random());
        *slot.lock() = Some(instance);
        let started = Instant::now();
        let end = match Child::spawn(&process, instance, &slot, &shared.terminal) {
            Ok(child) => child.live(process.stop_at, &mut phase).await,
            Err(error) => Err(error),
        };
        *slot.lock() = None;
        let is_clean = matches!(&end, Ok(End::Stopped(status) | End::Died(status)) if status.success());
        if let (false, Some(role), Some(view)) = (is_clean, process.role, shared.view.get()) {
            view.announce_gone(instance, role).await;
        }
        let Some(how) = how_it_died(end, &slot, &shared) else { return };
        let wait = backoff.after(started.elapsed());
        shared.terminal.say(&format!("{} {how}; starts again in {:.1} s", slot.label, wait.as_secs_f64()));
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = reached(&mut phase, process.stop_at) => {}
        }
    }
}

/// How a process died that is to be started again; none when it is not.
fn how_it_died(end: std::io::Result<End>, slot: &Slot, shared: &Shared) -> Option<String> {
    match end {
        Ok(End::Stopped(status)) => {
            if !status.success() {
                shared.terminal.say(&format!("{} did not drain: {status}", slot.label));
            }
            None
        }
        Ok(End::Died(status)) if is_bad_configuration(status) => {
            let reason = slot.tail.last(REASON_LINES);
            // When the channel is full, another process has said the same before.
            let _ = shared
                .fatal
                .try_send(misuse(format!("`{}` cannot start as configured:{reason}", slot.label)));
            None
        }
        Ok(End::Died(status)) => Some(format!("died ({status})")),
        Err(error) => Some(format!("did not start ({error})")),
    }
}

fn is_bad_configuration(status: ExitStatus) -> bool {
    status.code() == Some(BAD_CONFIGURATION)
}
