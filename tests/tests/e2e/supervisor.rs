//! `tokenway up` and the other commands, as a user runs them.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::{Process, binary, cluster::free_address, repository};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// A pipeline that `tokenway up` runs.
struct Up {
    process: Process,
    http: String,
    /// Where `up` notes its broker, and `status` finds it.
    folder: tempfile::TempDir,
}

impl Up {
    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let http = free_address()?;
        let mut command = Command::new(binary("tokenway")?);
        command
            .arg("up")
            .arg(repository().join("pipelines/demo.toml"))
            .args(["--http", &http.to_string()])
            .args(arguments)
            .env("XDG_RUNTIME_DIR", folder.path());
        let process = Process::start("tokenway-up", command, folder.path())?;
        let mut up = Self { process, http: format!("http://{http}"), folder };
        up.ready().await?;
        Ok(up)
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + READY_WITHIN;
        let api = tests::Api::new(&self.http, "tokenway-demo");
        while !api.is_ready().await {
            ensure!(self.process.is_running()?, "{}", self.process.log_tail());
            ensure!(Instant::now() < until, "not ready: {}", self.process.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn tokenway(&self, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
        let mut command = Command::new(binary("tokenway")?);
        Ok(command.args(arguments).env("XDG_RUNTIME_DIR", self.folder.path()).output()?)
    }

    /// The status once it has `instances` instances.
    async fn status_of(&self, instances: usize) -> anyhow::Result<Value> {
        let until = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.status()?;
            if status["instances"].as_array().is_some_and(|found| found.len() >= instances) {
                return Ok(status);
            }
            ensure!(std::time::Instant::now() < until, "not {instances} instances: {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn status(&self) -> anyhow::Result<Value> {
        let output = self.tokenway(&["status", "--json"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_serves_restarts_what_dies_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let mut up = Up::start(&[]).await?;
    let expected = [
        "detokenize",
        "gateway",
        "sample",
        "shard-forward.0",
        "shard-forward.1",
        "tokenize",
        "vision-encode",
    ];
    // Text does not wait for the encoder.
    let status = up.status_of(expected.len()).await?;
    let instances = status["instances"].as_array().context("no instances")?;
    let roles: BTreeSet<&str> = instances.iter().filter_map(|instance| instance["role"].as_str()).collect();
    assert_eq!(roles, expected.into());
    let pids: BTreeSet<u64> = instances.iter().filter_map(|instance| instance["pid"].as_u64()).collect();
    assert_eq!(pids.len(), expected.len(), "a process each: {status}");

    let run = up.tokenway(&["run", "What is 12 + 34?", "--url", &up.http, "--temperature", "0"])?;
    assert_eq!(String::from_utf8_lossy(&run.stdout).trim(), "46");

    let sample = instances.iter().find(|instance| instance["role"] == "sample").context("no sample")?;
    let pid = sample["pid"]
        .as_i64()
        .and_then(|pid| rustix::process::Pid::from_raw(pid as i32))
        .context("no pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    up.ready().await?;
    let run = up.tokenway(&["run", "What is 12 + 34?", "--url", &up.http, "--temperature", "0"])?;
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));

    up.process.signal(rustix::process::Signal::INT)?;
    let ended = up.process.wait(Duration::from_secs(30))?;
    assert!(ended.success(), "{ended}: {}", up.process.log_tail());
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} was left behind");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_of_a_pipeline_has_connections_of_its_own() -> anyhow::Result<()> {
    let cluster = tests::Cluster::start(tests::Options::demo()).await?;
    let connections = cluster.nats.connections().await?;
    let names: BTreeSet<&str> =
        connections.iter().filter_map(|connection| connection["name"].as_str()).collect();
    for name in ["gateway", "tokenize", "shard-forward", "sample", "detokenize"] {
        assert!(names.contains(name), "{names:?}");
    }
    let shards = connections.iter().filter(|connection| connection["name"] == "shard-forward").count();
    assert_eq!(shards, 2);
    Ok(())
}

#[test]
fn wrong_settings_end_with_one_line_and_exit_code_2() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bad.toml");
    std::fs::write(&file, "model = \"x\"\npath = \".\"\n[stages.shard-forward]\nshrads = 2\n")?;
    let cases: [(&str, Vec<&str>, &str); 4] = [
        ("tokenway", vec!["up", file.to_str().unwrap()], "shrads"),
        ("tokenway", vec!["up", "nothing.toml"], "nothing.toml"),
        ("sample", vec!["--pipeline", "nothing.toml"], "nothing.toml"),
        ("gateway", vec!["--http", "nonsense"], "nonsense"),
    ];
    for (program, arguments, named) in cases {
        let output = Command::new(binary(program)?).args(&arguments).output()?;
        let printed = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{program} {arguments:?}: {printed}");
        assert!(printed.contains(named), "{program} {arguments:?}: {printed}");
    }
    Ok(())
}

#[test]
fn doctor_finds_what_setup_installed() -> anyhow::Result<()> {
    let output = Command::new(binary("tokenway")?).args(["doctor", "--json"]).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let checks = report["checks"].as_array().context("no checks")?;
    // shard-forward starts only when libtorch does.
    for name in ["shard-forward", "nats-server"] {
        let check = checks.iter().find(|check| check["name"] == name).context(name)?;
        assert_eq!(check["level"], "ok", "{check}");
    }
    Ok(())
}
