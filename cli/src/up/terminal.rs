//! What `up` shows: the logs of its processes, each line with the name of its process, and one line of progress.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Log lines kept while an answer is being written.
const HELD_LINES_MAX: usize = 1000;

/// Lines of each process kept for an error message.
const TAIL_LINES: usize = 20;

const COLOURS: [u8; 6] = [36, 33, 35, 32, 34, 31];
const SPINNER_TICK: Duration = Duration::from_millis(100);

/// Standard output for what was asked for, standard error for logs and progress.
pub struct Terminal {
    verbatim: bool,
    colour: bool,
    progress: ProgressBar,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    label_width: usize,
    held: Option<VecDeque<String>>,
    shown: String,
}

/// The last lines that a process wrote.
#[derive(Default)]
pub struct Tail(Mutex<VecDeque<String>>);

impl Terminal {
    /// The process's own terminal; `verbatim` leaves log lines as they are.
    pub fn new(verbatim: bool) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let progress =
            if is_terminal && !verbatim { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            progress.set_style(style);
        }
        Self { verbatim, colour: is_terminal && !no_colour, progress, state: Mutex::default() }
    }

    /// Makes the column of labels wide enough for `label`.
    pub fn make_room(&self, label: &str) {
        let mut state = self.lock();
        state.label_width = state.label_width.max(label.len());
    }

    /// A line that a process wrote. `index` chooses its colour.
    pub fn log(&self, label: &str, index: usize, line: &str) {
        let width = self.lock().label_width;
        let line = match (self.verbatim, self.colour) {
            (true, _) => line.to_owned(),
            (false, false) => format!("{label:<width$} | {line}"),
            (false, true) => {
                format!("\x1b[{}m{label:<width$} |\x1b[0m {line}", COLOURS[index % COLOURS.len()])
            }
        };
        self.write(line);
    }

    /// A line of `up` itself.
    pub fn say(&self, line: &str) {
        self.write(format!("tokenway: {line}"));
    }

    /// What is being waited for now; a new line on each change where there is no terminal.
    pub fn wait_for(&self, text: &str) {
        let changed = std::mem::replace(&mut self.lock().shown, text.to_owned()) != text;
        if !self.progress.is_hidden() {
            self.progress.set_message(text.to_owned());
            self.progress.enable_steady_tick(SPINNER_TICK);
        } else if changed {
            self.say(text);
        }
    }

    /// Takes the line of progress away.
    pub fn waited(&self) {
        self.lock().shown.clear();
        self.progress.disable_steady_tick();
        self.progress.finish_and_clear();
        self.progress.reset();
    }

    /// Writes to standard output at once.
    pub fn print(&self, text: &str) {
        let mut out = io::stdout();
        // A closed output is no reason to stop serving.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Keeps log lines back, so that they do not fall into an answer.
    pub fn hold(&self) {
        self.lock().held.get_or_insert_default();
    }

    /// Writes what was kept back.
    pub fn release(&self) {
        // Not in the loop's head, where the lock would last as long as the loop.
        let held = self.lock().held.take().unwrap_or_default();
        for line in held {
            self.write(line);
        }
    }

    fn write(&self, line: String) {
        let mut state = self.lock();
        if let Some(held) = &mut state.held {
            if held.len() == HELD_LINES_MAX {
                held.pop_front();
            }
            held.push_back(line);
            return;
        }
        drop(state);
        self.progress.suspend(|| {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "{line}");
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    /// Takes a line in, the oldest one out.
    pub fn push(&self, line: &str) {
        let mut lines = self.lock();
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line.to_owned());
    }

    /// The last `count` lines, indented, each on a line of its own after a line break.
    pub fn last(&self, count: usize) -> String {
        let lines = self.lock();
        lines.iter().skip(lines.len().saturating_sub(count)).map(|line| format!("\n    {line}")).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_kept_back_are_written_in_the_end() {
        let terminal = Terminal::new(true);
        terminal.hold();
        terminal.say("kept back");
        terminal.release();
        terminal.say("at once");
        assert!(terminal.lock().held.is_none());
    }

    #[test]
    fn a_tail_keeps_the_last_lines() {
        let tail = Tail::default();
        (0..50).for_each(|line| tail.push(&line.to_string()));
        assert_eq!(tail.last(2), "\n    48\n    49");
        assert_eq!(tail.last(1000).lines().count(), TAIL_LINES + 1);
    }
}
