//! How far a tool is, on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error, of which there is none where that is no terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of so many steps.
    pub(super) fn new(steps: u64) -> Self {
        let bar = ProgressBar::new(steps);
        let style = ProgressStyle::with_template("{wide_bar} {pos} of {len}, {eta} left  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// What is done now.
    pub(super) fn now(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }

    /// One step more is done.
    pub(super) fn step(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
