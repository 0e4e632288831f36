//! One running process: its log lines, its end.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use schemas::InstanceId;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::ChildStdin;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::supervisor::{Phase, Process, Slot, reached};
use super::terminal::Terminal;

/// How long a process may take to drain.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How long to wait for the last lines of a process that has ended; its own children could keep the pipes open.
const LAST_LINES_DEADLINE: Duration = Duration::from_millis(500);

/// A running process.
pub struct Child {
    process: tokio::process::Child,
    /// Closes when `up` dies, however it dies: a supervised process drains then.
    _lifeline: Option<ChildStdin>,
    pumps: Vec<JoinHandle<()>>,
}

/// How a process ended.
pub enum End {
    /// It was told to.
    Stopped(ExitStatus),
    /// Of itself.
    Died(ExitStatus),
}

impl Child {
    /// Starts `process` as `instance`, in a process group of its own, so that a terminal's Ctrl-C reaches only `up`.
    pub fn spawn(
        process: &Process,
        instance: InstanceId,
        slot: &Arc<Slot>,
        terminal: &Arc<Terminal>,
    ) -> std::io::Result<Self> {
        use std::process::Stdio;
        let mut command = (process.command)(instance);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.process_group(0).kill_on_drop(true).spawn()?;
        // Taken out, because waiting for the process would close it.
        let lifeline = process.stdin.take();
        let out = process.stdout.take().map(|out| pump(out, slot, terminal));
        let err = process.stderr.take().map(|err| pump(err, slot, terminal));
        Ok(Self { process, _lifeline: lifeline, pumps: out.into_iter().chain(err).collect() })
    }

    /// Lives until the process dies or `phase` reaches `stop_at`; then drains it, or kills it.
    pub async fn live(mut self, stop_at: Phase, phase: &mut watch::Receiver<Phase>) -> std::io::Result<End> {
        let end = tokio::select! {
            status = self.process.wait() => End::Died(status?),
            () = reached(phase, stop_at) => End::Stopped(self.stop(phase).await?),
        };
        // What is not read by then is lost, and only that.
        let _ = tokio::time::timeout(LAST_LINES_DEADLINE, join_all(&mut self.pumps)).await;
        Ok(end)
    }

    async fn stop(&mut self, phase: &mut watch::Receiver<Phase>) -> std::io::Result<ExitStatus> {
        let pid = self.process.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(pid) = pid {
            // It can only have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
        tokio::select! {
            status = self.process.wait() => return status,
            () = tokio::time::sleep(DRAIN_DEADLINE) => {}
            () = reached(phase, Phase::Kill) => {}
        }
        self.process.start_kill()?;
        self.process.wait().await
    }
}

fn pump(
    pipe: impl AsyncRead + Unpin + Send + 'static,
    slot: &Arc<Slot>,
    terminal: &Arc<Terminal>,
) -> JoinHandle<()> {
    let (slot, terminal) = (slot.clone(), terminal.clone());
    tokio::spawn(async move {
        let mut lines = BufReader::new(pipe).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            slot.write(&terminal, &String::from_utf8_lossy(&line));
        }
    })
}
