//! How far a pull is: a bar on a terminal, else a line now and then, on standard error.

use std::cell::Cell;
use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::memory::human_bytes;

/// How often there is a line about a long file where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Bytes of all files together.
pub struct Progress {
    bar: ProgressBar,
    expected: Cell<u64>,
    /// Bytes of the files that are whole.
    whole: Cell<u64>,
    said: Cell<Instant>,
}

impl Progress {
    /// Of nothing yet.
    pub fn new(repository: &str) -> Self {
        let bar = ProgressBar::new(0);
        let template = "{prefix} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left  {msg}";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_prefix(repository.to_owned());
        Self { bar, expected: Cell::new(0), whole: Cell::new(0), said: Cell::new(Instant::now()) }
    }

    /// There is a file of so many bytes.
    pub fn expect(&self, bytes: u64) {
        self.expected.set(self.expected.get().saturating_add(bytes));
        self.bar.set_length(self.expected.get());
    }

    /// So much of a file is here.
    pub fn at(&self, file: &str, bytes: u64) {
        let all = self.whole.get().saturating_add(bytes);
        if !self.bar.is_hidden() {
            self.bar.set_message(file.to_owned());
            self.bar.set_position(all);
        } else if self.said.get().elapsed() >= LINE_EVERY {
            self.say(&format!("{} of {}, {file}", human_bytes(all), human_bytes(self.expected.get())));
        }
    }

    /// A file is whole; so much of it came now.
    pub fn whole(&self, file: &str, bytes: u64, downloaded: u64) {
        self.whole.set(self.whole.get().saturating_add(bytes));
        self.bar.set_position(self.whole.get());
        if downloaded > 0 {
            self.say(&format!("{file}: {}", human_bytes(bytes)));
        }
    }

    /// A line of its own.
    pub fn say(&self, line: &str) {
        self.said.set(Instant::now());
        self.bar.suspend(|| {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "{line}");
        });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
