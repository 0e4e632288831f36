//! How far the writing of a file is, on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar of bytes on standard error, of which there is none where that is no terminal.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// `bytes`: how many there will be.
    pub fn new(bytes: u64) -> Self {
        let bar = ProgressBar::new(bytes);
        let template = "{wide_bar} {bytes} of {total_bytes}, {eta} left";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { bar }
    }

    /// So many more bytes are written.
    pub fn add(&self, bytes: usize) {
        self.bar.inc(bytes as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
