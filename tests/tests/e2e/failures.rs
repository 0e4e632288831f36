//! Processes that die: streams end with an error, never hang, and the pipeline serves again.

use std::time::Duration;

use serde_json::json;
use tests::{Cluster, Options};

/// Well above the two seconds after which a silent instance counts as dead.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn killing_any_stage_ends_its_streams_with_an_error_and_a_new_instance_serves() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::demo()).await?;
    for name in ["shard-forward.0", "shard-forward.1", "sample", "detokenize"] {
        let fields = json!({"max_tokens": 480, "ignore_eos": true});
        let mut stream = cluster.api().stream_completion("abc", fields).await?;
        stream.next().await?;
        cluster.get(name)?.kill()?;
        let rest = tokio::time::timeout(NOTICED_WITHIN, stream.collect()).await??;
        let last = &rest.last().unwrap().data;
        assert!(last["error"]["message"].is_string(), "{name}: {last}");
        cluster.spawn(name)?;
        cluster.ready().await?;
        let again = cluster.api().complete("abc", json!({"max_tokens": 4, "ignore_eos": true})).await?;
        assert_eq!(again.status, 200, "after `{name}`: {}", again.body);
    }
    Ok(())
}

#[tokio::test]
async fn killing_tokenize_loses_no_request() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::echo()).await?;
    cluster.get("tokenize")?.kill()?;
    let api = cluster.api();
    let waiting = tokio::spawn(async move { api.complete("abc", json!({"max_tokens": 3})).await });
    cluster.spawn("tokenize")?;
    assert_eq!(waiting.await??.text(), "abc");
    Ok(())
}

#[tokio::test]
async fn sigterm_finishes_what_runs_and_exits_zero() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::demo()).await?;
    let fields = json!({"max_tokens": 200, "ignore_eos": true});
    let mut stream = cluster.api().stream_completion("abc", fields).await?;
    stream.next().await?;
    for name in ["gateway", "shard-forward.0", "shard-forward.1", "sample", "detokenize", "tokenize"] {
        cluster.get(name)?.signal(rustix::process::Signal::TERM)?;
    }
    let rest = stream.collect().await?;
    assert!(rest.last().unwrap().is_done(), "{:?}", rest.last());
    for name in ["gateway", "shard-forward.0", "shard-forward.1", "sample", "detokenize", "tokenize"] {
        let status = cluster.get(name)?.wait(Duration::from_secs(30))?;
        assert!(status.success(), "{name}: {status}\n{}", cluster.get(name)?.log_tail());
    }
    Ok(())
}

#[tokio::test]
async fn a_stage_that_starts_before_the_broker_waits_for_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let address = tests::cluster::free_address()?;
    let pipeline = tests::repository().join("pipelines/echo.toml");
    let mut command = std::process::Command::new(tests::binary("sample")?);
    command.arg("--pipeline").arg(pipeline).args(["--nats", &format!("nats://{address}")]);
    let mut stage = tests::Process::start("sample", command, folder.path())?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(stage.is_running()?, "{}", stage.log_tail());
    stage.signal(rustix::process::Signal::TERM)?;
    assert!(stage.wait(Duration::from_secs(5))?.success());
    Ok(())
}
