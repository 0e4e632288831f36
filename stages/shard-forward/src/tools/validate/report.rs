//! What `tokenway validate` found.

use std::fmt;
use std::path::PathBuf;

use pipelines::tools::Element;
use serde::Serialize;

use crate::tools::table::table;

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The model is as it should be.
    Passed,
    /// It is not.
    Failed,
    /// There is nothing to check, or a check that it builds on has failed.
    Skipped,
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What became of it.
    pub outcome: Outcome,
    /// What was looked at, or why it failed or was left out; one line.
    pub detail: String,
}

/// All of them.
#[derive(Debug, Serialize)]
pub struct ValidateReport {
    /// Folder or file.
    pub model: PathBuf,
    /// What was computed in.
    pub dtype: Element,
    /// In the order in which they were made.
    pub checks: Vec<Check>,
}

impl ValidateReport {
    /// Whether none has failed.
    pub fn passed(&self) -> bool {
        self.count(Outcome::Failed) == 0
    }

    /// The report in Markdown.
    pub fn markdown(&self) -> String {
        let rows = self.checks.iter().map(|check| {
            let detail = check.detail.replace('|', "\\|");
            format!("| {} | {} | {detail} |\n", check.name, check.outcome)
        });
        let rows: String = rows.collect();
        format!(
            "# `{}`\n\n{}\n\n| check | outcome | detail |\n|---|---|---|\n{rows}",
            self.model.display(),
            self.summary(),
        )
    }

    fn summary(&self) -> String {
        let [passed, failed, skipped] =
            [Outcome::Passed, Outcome::Failed, Outcome::Skipped].map(|outcome| self.count(outcome));
        format!("{passed} checks passed, {failed} failed, {skipped} skipped; computed in {}.", self.dtype)
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::Skipped => "skipped",
        })
    }
}

impl fmt::Display for ValidateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = table(&["check", "outcome", "detail"], 3);
        for check in &self.checks {
            table.add_row([check.name.to_owned(), check.outcome.to_string(), check.detail.clone()]);
        }
        writeln!(f, "{table}")?;
        write!(f, "{}", self.summary())
    }
}
