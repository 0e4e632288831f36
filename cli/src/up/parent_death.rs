//! A process that hears of its parent's death, however the parent died.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Lets the kernel send `signal` to the process when the thread that spawns it has ended.
///
/// It is the thread that counts, not the process: spawn from the main thread.
pub fn signal_with_parent(command: &mut Command, signal: Signal) {
    let parent = getpid();
    let in_child = move || {
        set_parent_process_death_signal(Some(signal))?;
        // The parent may have died before the line above; then no signal will come.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
    };
    // SAFETY: the closure runs between fork and exec. It makes two system calls that are async-signal-safe, allocates
    // nothing, takes no lock and touches no memory that another thread could have left in pieces.
    unsafe { command.pre_exec(in_child) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_process_ends_with_the_thread_that_started_it() {
        let spawn = || {
            let mut command = Command::new("sleep");
            command.arg("60");
            signal_with_parent(&mut command, Signal::TERM);
            command.spawn().unwrap()
        };
        let mut child = std::thread::spawn(spawn).join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::TERM.as_raw()));
    }
}
