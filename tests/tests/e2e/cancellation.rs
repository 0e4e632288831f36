//! A client that leaves frees what it holds, whichever way it leaves.

use std::time::{Duration, Instant};

use pipelines::bus::Bus;
use pipelines::presence::Watch;
use serde_json::json;
use tests::{Cluster, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest time from a client's close to free blocks: presence tells of them four times a second.
const FREED_WITHIN: Duration = Duration::from_secs(3);

async fn sequences_held(watch: &Watch) -> u32 {
    watch.peers().all().map(|peer| peer.used.sequences).sum()
}

async fn wait_for(what: &str, watch: &Watch, wanted: impl Fn(u32) -> bool) -> anyhow::Result<Duration> {
    let start = Instant::now();
    while !wanted(sequences_held(watch).await) {
        anyhow::ensure!(
            start.elapsed() < FREED_WITHIN,
            "{what}: {} sequences held",
            sequences_held(watch).await
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(start.elapsed())
}

async fn leave_in_the_middle(stream: bool) -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo()).await?;
    let bus = Bus::connect(&cluster.nats.url(), "test").await?;
    let watch = Watch::start(&bus).await?;
    let body = json!({"model": cluster.model, "prompt": "abc", "max_tokens": 480, "ignore_eos": true, "stream": stream});
    let body = body.to_string();
    let mut socket = TcpStream::connect(cluster.http).await?;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body.as_bytes()).await?;
    if stream {
        let mut first = [0; 64];
        socket.read_exact(&mut first).await?;
    }
    wait_for("the answer begins", &watch, |held| held > 0).await?;
    drop(socket);
    let freed = wait_for("the client has left", &watch, |held| held == 0).await?;
    println!("stream {stream}: everything free {freed:?} after an ordinary close");
    Ok(())
}

#[tokio::test]
async fn closing_a_stream_frees_its_sequence() -> anyhow::Result<()> {
    leave_in_the_middle(true).await
}

#[tokio::test]
async fn closing_a_unary_request_frees_its_sequence() -> anyhow::Result<()> {
    leave_in_the_middle(false).await
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_own_answer_only() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo().set("shard-forward", "window", 32)).await?;
    let mut lazy = cluster.api().stream_completion("abc", json!({"max_tokens": 500})).await?;
    lazy.next().await?;
    for _ in 0..20 {
        assert_eq!(cluster.api().complete("ab", json!({"max_tokens": 40})).await?.text(), "ab".repeat(20));
    }
    let rest = lazy.collect().await?;
    assert!(rest.last().unwrap().is_done(), "it goes on when it reads again");
    Ok(())
}
