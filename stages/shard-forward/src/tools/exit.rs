//! Errors of tools and what the process exits with.

use std::io::{ErrorKind, Write as _};
use std::process::ExitCode;

/// An error of usage, or of a model that cannot be worked with: trying again changes nothing. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);

/// A [`Misuse`] of this text, on one line.
pub(super) fn misuse(message: impl Into<String>) -> anyhow::Error {
    Misuse(message.into().replace(['\n', '\r'], " ")).into()
}

/// A [`Misuse`] of an error with its causes.
pub(super) fn unusable(error: impl Into<anyhow::Error>) -> anyhow::Error {
    misuse(one_line(error))
}

/// An error with its causes, on one line.
pub(super) fn one_line(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into()).replace(['\n', '\r'], " ")
}

/// Prints `error` and says what to exit with. A reader that has closed the pipe is no error.
pub(super) fn report(error: &anyhow::Error) -> ExitCode {
    let is_closed_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_closed_pipe) {
        return ExitCode::SUCCESS;
    }
    // Nobody is left to tell when standard error is closed too.
    let _ = writeln!(std::io::stderr(), "tokenway: {error:#}");
    if error.chain().any(|cause| cause.is::<Misuse>()) { ExitCode::from(2) } else { ExitCode::FAILURE }
}
