//! The single process of a comparison: this program again, started anew for each measurement.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::bench::direct::DirectReport;
use crate::bench::workload::Workload;

const TRIAL_STEPS: u32 = 64;

/// What OpenMP threads do between two parallel regions, as `OMP_WAIT_POLICY` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Waiting {
    /// They spin: quickest on a quiet machine, slowest on a busy one.
    Active,
    /// They sleep at once.
    Passive,
}

impl Waiting {
    /// The value of the environment variable.
    pub fn name(self) -> &'static str {
        match self {
            Waiting::Active => "active",
            Waiting::Passive => "passive",
        }
    }

    /// The quicker of the two for `work`, by a short trial of each.
    pub async fn best(pipeline: &Path, work: &Workload) -> anyhow::Result<Self> {
        let trial = Workload { steps: TRIAL_STEPS.min(work.steps), ..*work };
        let active = run(pipeline, &trial, Waiting::Active).await?.arrivals.decode_rate();
        let passive = run(pipeline, &trial, Waiting::Passive).await?.arrivals.decode_rate();
        Ok(if passive > active { Waiting::Passive } else { Waiting::Active })
    }
}

/// Runs `work` with the settings of the file `pipeline`.
pub async fn run(pipeline: &Path, work: &Workload, waiting: Waiting) -> anyhow::Result<DirectReport> {
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command
        .arg("--direct")
        .arg(pipeline)
        .args(["--work", &serde_json::to_string(work)?])
        .env("OMP_WAIT_POLICY", waiting.name())
        .env_remove("GOMP_SPINCOUNT")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    let output = command.output().await?;
    ensure!(output.status.success(), "the single process ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("the single process printed no report")
}
