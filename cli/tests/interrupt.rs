//! Signals while a file is written: nothing of it is left.

// Helpers of tests unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Elements of the one tensor: 1 GiB, of which the file system holds nothing.
const ELEMENTS: u64 = 1 << 28;

/// How long each wait may take.
const WITHIN: Duration = Duration::from_secs(60);

/// A GGUF of zeros that takes seconds to write, and that has one byte too many.
fn large(path: &Path) {
    let mut header = b"GGUF".to_vec();
    header.extend(3_u32.to_le_bytes());
    header.extend([1_u64, 1].map(u64::to_le_bytes).concat());
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    };
    text(&mut header, "general.architecture");
    header.extend(8_u32.to_le_bytes());
    text(&mut header, "other");
    text(&mut header, "w");
    header.extend(2_u32.to_le_bytes());
    header.extend([1024, ELEMENTS / 1024].map(u64::to_le_bytes).concat());
    header.extend(0_u32.to_le_bytes());
    header.extend(0_u64.to_le_bytes());
    header.resize(header.len().next_multiple_of(32), 0);
    let mut file = File::create(path).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(header.len() as u64 + 4 * ELEMENTS + 1).unwrap();
}

fn names(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect()
}

fn start(arguments: &[&str], folder: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenway"));
    command.args(arguments).current_dir(folder).stderr(Stdio::null()).stdout(Stdio::null());
    command.spawn().unwrap()
}

fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < WITHIN, "it goes on");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Starts the command, sends it the signal once it writes, and looks at what is left.
fn interrupted(arguments: &[&str], signal: Signal) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.gguf");
    large(&source);
    let mut child = start(arguments, folder.path());
    let is_part = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "part");
    let begin = Instant::now();
    while !names(folder.path()).iter().any(is_part) {
        assert!(begin.elapsed() < WITHIN && child.try_wait().unwrap().is_none(), "nothing is written");
        thread::sleep(Duration::from_millis(1));
    }
    kill_process(Pid::from_child(&child), signal).unwrap();
    assert_eq!(wait(&mut child).code(), Some(1), "{arguments:?}");
    assert_eq!(names(folder.path()), [source], "{arguments:?}");
}

#[test]
fn a_conversion_that_is_interrupted_leaves_nothing() {
    let arguments = ["convert", "source.gguf", "out.gguf", "--type", "q4_k"];
    interrupted(&arguments, Signal::INT);
    interrupted(&arguments, Signal::TERM);
}

#[test]
fn a_repair_that_is_interrupted_leaves_nothing() {
    let arguments = ["repair", "source.gguf", "out.gguf"];
    interrupted(&arguments, Signal::INT);
    interrupted(&arguments, Signal::TERM);
}
