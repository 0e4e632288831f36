//! Long work that writes a file, and a request to stop.

use std::path::Path;

use anyhow::Context as _;
use models::gguf::GgufWriter;

use crate::signals::Signals;

/// Runs `work`, which writes a GGUF at `destination`, on a thread of its own. At Ctrl-C, SIGTERM or a closed terminal what was
/// written goes away, and the command ends without waiting for the rest.
pub async fn writing<T: Send + 'static>(
    destination: &Path,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let mut signals = Signals::listen().context("signals")?;
    let work = tokio::task::spawn_blocking(work);
    tokio::select! {
        done = work => done.context("the thread that writes")?,
        () = signals.next() => {
            // Of a file that is gone nothing can take the name of the destination any more. There may be none yet.
            if let Some(part) = GgufWriter::part_path(destination) {
                let _ = std::fs::remove_file(part);
            }
            Err(anyhow::anyhow!("interrupted, `{}` is not written", destination.display()))
        }
    }
}
