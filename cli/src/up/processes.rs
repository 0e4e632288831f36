//! Command lines of the stages and the gateway.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use pipelines::settings::OPENMP_ENVIRONMENT;
use schemas::{InstanceId, Role};
use tokio::process::Command;

use super::child::DRAIN_DEADLINE;
use super::door::Door;
use super::plan::Planned;
use super::supervisor::{Phase, Process};
use crate::exit::misuse;
use crate::locate;

/// First parts of the variables that are settings of a pipeline: the resolved file has them already.
const PIPELINE_SETTINGS: [&str; 4] = ["model", "path", "deadline_seconds", "stages"];

/// The executables of a plan.
pub struct Programs {
    paths: BTreeMap<&'static str, PathBuf>,
    log_format: String,
}

impl Programs {
    /// Finds every executable that the plan needs.
    pub fn locate(planned: &[Planned], with_gateway: bool, log_format: &str) -> anyhow::Result<Self> {
        let roles = planned.iter().flat_map(|pipeline| &pipeline.roles).map(|(role, _)| *role);
        let mut paths = BTreeMap::new();
        for role in roles.chain(with_gateway.then_some(Role::Gateway)) {
            let name = role.binary();
            let found = locate::program(name).ok_or_else(|| {
                misuse(format!(
                    "no executable `{name}` beside `tokenway` or on PATH: build it with `make build`"
                ))
            })?;
            paths.insert(name, found);
        }
        Ok(Self { paths, log_format: log_format.to_owned() })
    }

    /// Every process of the plan, each with the broker at `nats`.
    pub fn processes(&self, planned: &[Planned], door: Option<&Door>, nats: &str) -> Vec<Process> {
        let mut processes = Vec::new();
        for pipeline in planned {
            let prefix = if planned.len() > 1 { format!("{}/", pipeline.model) } else { String::new() };
            for &(role, count) in &pipeline.roles {
                let mut arguments: Vec<OsString> = vec!["--pipeline".into(), pipeline.file.clone().into()];
                if let Role::ShardForward(shard) = role {
                    arguments.extend(["--shard".into(), shard.to_string().into()]);
                }
                let label = |replica| format!("{prefix}{role}#{replica}");
                processes
                    .extend((0..count).map(|replica| self.process(role, label(replica), &arguments, nats)));
            }
        }
        processes.extend(
            door.map(|door| self.process(Role::Gateway, "gateway#0".into(), &door_arguments(door), nats)),
        );
        processes
    }

    fn process(&self, role: Role, label: String, own: &[OsString], nats: &str) -> Process {
        let program = self.paths[role.binary()].clone();
        let mut arguments = own.to_vec();
        let shared =
            ["--nats", nats, "--admin", "127.0.0.1:0", "--log-format", &self.log_format, "--supervised"];
        arguments.extend(shared.map(OsString::from));
        let command = move |instance: InstanceId| {
            let mut command = Command::new(&program);
            command.args(&arguments).arg("--instance").arg(instance.to_string());
            settle_environment(role, &mut command);
            command
        };
        let stop_at = if role == Role::Gateway { Phase::Doors } else { Phase::Stages };
        Process { label, role: Some(role), stop_at, command: Box::new(command), shows: |_| true }
    }
}

fn door_arguments(door: &Door) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--http".into(), door.address.to_string().into()];
    // A little sooner than it would be killed, so that it is the gateway that ends the answers still open.
    let drain = DRAIN_DEADLINE.as_secs() - 1;
    arguments.extend(["--drain-seconds".into(), drain.to_string().into()]);
    if let Some(keys) = &door.keys {
        arguments.extend(["--api-keys".into(), keys.clone().into()]);
    }
    if let Some(origin) = &door.cors {
        arguments.extend(["--cors".into(), origin.into()]);
    }
    arguments
}

fn settle_environment(role: Role, command: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_pipeline_setting)) {
        command.env_remove(name);
    }
    // Otherwise a shard starts itself over with it.
    if matches!(role, Role::ShardForward(_))
        && OPENMP_ENVIRONMENT.iter().all(|(name, _)| env::var_os(name).is_none())
    {
        command.envs(OPENMP_ENVIRONMENT);
    }
}

/// Whether a variable would override the resolved file, and with it the flags that went into it.
fn is_pipeline_setting(variable: &str) -> bool {
    let Some(path) = variable.strip_prefix("TOKENWAY_") else { return false };
    let first = path.split("__").next().unwrap_or_default().to_ascii_lowercase();
    PIPELINE_SETTINGS.contains(&first.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_pipeline_do_not_reach_its_processes_twice() {
        assert!(is_pipeline_setting("TOKENWAY_STAGES__SHARD-FORWARD__DTYPE"));
        assert!(is_pipeline_setting("TOKENWAY_MODEL"));
        assert!(!is_pipeline_setting("TOKENWAY_LOG_FORMAT"));
        assert!(!is_pipeline_setting("STAGES__X"));
    }

    #[test]
    fn every_process_knows_its_file_its_shard_and_the_broker() {
        let roles = vec![(Role::Tokenize, 1), (Role::ShardForward(0), 1), (Role::ShardForward(1), 2)];
        let planned = [Planned { model: "m".into(), file: "/run/p.toml".into(), roles }];
        let paths = ["tokenize", "shard-forward"].map(|name| (name, PathBuf::from(format!("/bin/{name}"))));
        let programs = Programs { paths: paths.into(), log_format: "text".into() };
        let processes = programs.processes(&planned, None, "nats://h:1");
        let labels: Vec<_> = processes.iter().map(|process| process.label.as_str()).collect();
        assert_eq!(labels, ["tokenize#0", "shard-forward.0#0", "shard-forward.1#0", "shard-forward.1#1"]);
        let command = (processes[3].command)(InstanceId(7));
        let line: Vec<_> = command.as_std().get_args().map(|argument| argument.to_str().unwrap()).collect();
        assert_eq!(line[..6], ["--pipeline", "/run/p.toml", "--shard", "1", "--nats", "nats://h:1"]);
        assert_eq!(line[line.len() - 2..], ["--instance", "0000000000000007"]);
    }
}
