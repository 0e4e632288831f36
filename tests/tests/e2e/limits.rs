//! Bad input, full queues, deadlines: a clear error, and nobody else pays.

use anyhow::ensure;
use std::time::Duration;

use futures_util::future::join_all;
use pipelines::bus::Bus;
use pipelines::presence::Watch;
use schemas::Role;
use serde_json::{Value, json};
use tests::{Cluster, Options};

#[tokio::test]
async fn bad_requests_get_openai_errors_that_name_the_field() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo().gateway(&["--body-limit", "100000"])).await?;
    let api = cluster.api();
    let cases: [(Value, u16, &str); 12] = [
        (json!({"temperature": 9}), 400, "temperature"),
        (json!({"top_p": 0}), 400, "top_p"),
        (json!({"temprature": 1}), 400, "temprature"),
        (json!({"max_tokens": 0}), 400, "max_tokens"),
        (json!({"max_tokens": 100_000}), 400, "512"),
        (json!({"stop": ["a", ""]}), 400, "stop"),
        (json!({"logit_bias": {"7": 500}}), 400, "logit_bias"),
        (json!({"logit_bias": {"99999999": 1}}), 400, "logit_bias"),
        (json!({"n": 100_000}), 400, "n"),
        (json!({"suffix": "x"}), 400, "suffix"),
        (json!({"model": "nobody"}), 404, "nobody"),
        (json!({"prompt": []}), 400, "prompt"),
    ];
    for (fields, status, named) in cases {
        let reply = api.complete("abc", fields.clone()).await?;
        assert_eq!(reply.status, status, "{fields}: {}", reply.body);
        assert!(reply.error().contains(named), "{fields}: {}", reply.error());
        assert!(reply.body["error"]["type"].is_string(), "{fields}: {}", reply.body);
    }
    let large = api.complete("x".repeat(200_000), json!({})).await?;
    assert_eq!(large.status, 413, "{}", large.body);
    assert_eq!(api.get("/v1/nothing").await?.status, 404);
    assert_eq!(api.get("/v1/chat/completions").await?.status, 405);
    let http = reqwest::Client::new();
    let broken = http
        .post(format!("{}/v1/chat/completions", cluster.url()))
        .header("content-type", "application/json")
        .body(r#"{"model": "x", "messages": [}"#)
        .send()
        .await?;
    assert_eq!(broken.status(), 400);
    let body: Value = broken.json().await?;
    assert!(body["error"]["message"].as_str().unwrap().contains("line 1"), "{body}");
    assert_eq!(
        api.complete("ab", json!({"max_tokens": 2})).await?.text(),
        "ab",
        "and the next request is served"
    );
    Ok(())
}

/// Sequences of the scheduling shard.
fn running(watch: &Watch) -> u32 {
    watch
        .peers()
        .all()
        .filter(|peer| peer.role == Role::ShardForward(0))
        .map(|peer| peer.used.sequences)
        .sum()
}

async fn until(happened: impl Fn() -> bool) {
    while !happened() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_full_house_admits_exactly_what_it_has_room_for() -> anyhow::Result<()> {
    let options = Options::echo()
        .set("shard-forward", "max_sequences", 4)
        .set("shard-forward", "queue", 3)
        .set("shard-forward", "window", 1_000_000);
    let mut cluster = Cluster::start(options).await?;
    // Stopped, sample holds every running sequence where it is.
    cluster.get("sample")?.signal(rustix::process::Signal::STOP)?;
    let api = cluster.api();
    let ask = || {
        let api = api.clone();
        tokio::spawn(async move { api.complete("abc", json!({"max_tokens": 3})).await })
    };
    let watch = Watch::start(&Bus::connect(&cluster.nats.url(), "test").await?).await?;
    let soon = Duration::from_millis(1_500);
    let mut asks = Vec::new();
    // Two at a time: four at once can overrun a queue of three before the first is admitted.
    for admitted in [2, 4] {
        asks.extend([ask(), ask()]);
        let all = tokio::time::timeout(soon, until(|| running(&watch) == admitted)).await;
        ensure!(all.is_ok(), "{} of {admitted} admitted", running(&watch));
    }
    asks.extend((0..8).map(|_| ask()));
    let finished = || asks.iter().filter(|ask| ask.is_finished()).count();
    let refused = tokio::time::timeout(soon, until(|| finished() == 5)).await;
    ensure!(refused.is_ok(), "{} of 5 refused", finished());
    cluster.get("sample")?.signal(rustix::process::Signal::CONT)?;
    let replies: Vec<_> = join_all(asks).await.into_iter().map(|reply| reply.unwrap().unwrap()).collect();
    let served = replies.iter().filter(|reply| reply.status == 200).count();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 429).collect();
    assert_eq!((served, refused.len()), (7, 5), "4 running and 3 waiting of 12");
    for reply in refused {
        assert!(reply.headers.contains_key("retry-after"));
        assert!(reply.body["error"]["message"].is_string());
    }
    Ok(())
}

#[tokio::test]
async fn without_a_stage_requests_wait_and_then_fail_with_503() -> anyhow::Result<()> {
    let mut options = Options::echo().without("shard-forward.1");
    // Long enough for a stage to start on a busy machine.
    options.overrides.deadline_seconds = Some(6);
    let mut cluster = Cluster::start(options).await?;
    let api = cluster.api();
    let known = async {
        while !api.get("/v1/models").await.is_ok_and(|reply| reply.body["data"][0]["id"].is_string()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), known).await?;
    assert_eq!(api.get("/health").await?.status, 200);
    let ready = api.get(&format!("/ready?model={}", cluster.model)).await?;
    assert_eq!(ready.status, 503);
    assert!(ready.body.to_string().contains("shard-forward.1"), "{}", ready.body);
    let reply = api.complete("abc", json!({"max_tokens": 3})).await?;
    assert_eq!(reply.status, 503, "{}", reply.body);
    let late = tokio::spawn({
        let api = api.clone();
        async move { api.complete("abc", json!({"max_tokens": 3})).await }
    });
    cluster.spawn("shard-forward.1")?;
    assert_eq!(late.await??.text(), "abc", "a request waits for the stage that starts late");
    Ok(())
}

#[tokio::test]
async fn keys_are_asked_for_when_there_are_some() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("keys.txt");
    std::fs::write(&file, "# one a line\nsecret-1\nsecret-2\n")?;
    let options =
        Options::echo().gateway(&["--api-keys", file.to_str().unwrap(), "--cors", "https://example.org"]);
    let cluster = Cluster::start(options).await?;
    let api = cluster.api();
    let refused = api.complete("abc", json!({"max_tokens": 3})).await?;
    assert_eq!((refused.status, refused.body["error"]["code"].as_str()), (401, Some("invalid_api_key")));
    let http = reqwest::Client::new();
    let accepted = http
        .post(format!("{}/v1/completions", cluster.url()))
        .bearer_auth("secret-2")
        .header("x-request-id", "mine-42")
        .header("origin", "https://example.org")
        .json(&json!({"model": cluster.model, "prompt": "abc", "max_tokens": 3}))
        .send()
        .await?;
    assert_eq!(accepted.status(), 200);
    assert_eq!(accepted.headers()["x-request-id"], "mine-42");
    assert_eq!(accepted.headers()["access-control-allow-origin"], "https://example.org");
    Ok(())
}
