//! Errors and what the process exits with.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use crate::printable::harmless;

/// An error of usage or configuration: trying again changes nothing. Exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misuse(pub String);

/// A [`Misuse`] as the error of a command.
pub fn misuse(message: impl Into<String>) -> anyhow::Error {
    Misuse(message.into()).into()
}

/// Prints `error` and says what to exit with. A reader that has closed the pipe is no error.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let is_closed_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_closed_pipe) {
        return ExitCode::SUCCESS;
    }
    // Nobody is left to tell when standard error is closed too.
    // What a file says of itself may be in it.
    let _ = writeln!(std::io::stderr(), "tokenway: {}", harmless(&format!("{error:#}")));
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Misuse>()) { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn misuse_is_exit_code_2_under_any_context() {
        let error: anyhow::Error = misuse("port taken");
        assert_eq!(code(&error), 2);
        assert_eq!(code(&Err::<(), _>(error).context("up").unwrap_err()), 2);
        assert_eq!(code(&anyhow::anyhow!("other")), 1);
    }
}
