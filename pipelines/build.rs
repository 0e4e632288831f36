//! Puts the commit into `--version`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=TOKENWAY_COMMIT");
    let given = std::env::var("TOKENWAY_COMMIT").ok();
    // The log changes with every commit, `HEAD` itself only with the branch. A file that is not there would always count as
    // changed. Whoever gives a name spares the build after each commit.
    let watched = ["../.git/HEAD", "../.git/logs/HEAD"].into_iter().filter(|file| Path::new(file).exists());
    for file in watched.filter(|_| given.is_none()) {
        println!("cargo:rerun-if-changed={file}");
    }
    let from_git = || {
        let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
        let commit = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !commit.is_empty()).then_some(commit)
    };
    let commit = given.or_else(from_git);
    println!("cargo:rustc-env=TOKENWAY_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}
