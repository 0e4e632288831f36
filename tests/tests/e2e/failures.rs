//! Processes that die: their streams go on, with the same tokens.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests::client::merged;
use tests::cluster::{Holdings, Link};
use tests::{Api, Cluster, Options, Stream};
use tokio::sync::oneshot;

/// Well above the two seconds after which a silent instance counts as dead.
const RESUMED_WITHIN: Duration = Duration::from_secs(30);

/// What clients ask at once: greedy, seeded, with penalties, with logprobs, with a stop sequence.
fn questions() -> Vec<Value> {
    let seeded = |seed: u32| json!({"seed": seed, "temperature": 1.0});
    let penalised =
        json!({"seed": 5, "presence_penalty": 1.0, "frequency_penalty": 0.5, "repetition_penalty": 1.1});
    let mut questions = vec![
        json!({"temperature": 0}),
        json!({"temperature": 0, "logprobs": 3}),
        json!({"temperature": 0, "stop": ["no such text", "Q7"]}),
        penalised,
    ];
    questions.extend((1..=4).map(seeded));
    let more = json!({"max_tokens": 400, "ignore_eos": true, "stream_options": {"include_usage": true}});
    questions.into_iter().map(|question| merged(question, more.clone())).collect()
}

/// The text, the tokens that usage counts, and whether it ended well.
async fn answer(mut stream: Stream, begun: oneshot::Sender<()>) -> anyhow::Result<(String, u64)> {
    let mut events = vec![stream.next().await?.context("an empty stream")?];
    // Nobody listens while the undisturbed answers are made.
    let _ = begun.send(());
    events.extend(stream.collect().await?);
    let last = events.last().context("an empty stream")?;
    ensure!(last.is_done(), "a stream ended with {}", last.data);
    let text = events.iter().map(|event| event.text()).collect();
    let usage = events.iter().find_map(|event| event.data["usage"]["completion_tokens"].as_u64());
    Ok((text, usage.context("no usage")?))
}

/// The same of an answer that is not streamed.
async fn whole_answer(
    api: &Api,
    question: Value,
    begun: oneshot::Sender<()>,
) -> anyhow::Result<(String, u64)> {
    let _ = begun.send(());
    let question = merged(question, json!({"stream_options": null}));
    let reply = api.complete("Once upon a time", question).await?;
    let tokens = reply.body["usage"]["completion_tokens"].as_u64();
    Ok((reply.text().to_owned(), tokens.with_context(|| format!("status {}: {}", reply.status, reply.body))?))
}

/// Answers to all questions at once, one of them not streamed; `fault` is called once every one has begun.
async fn answers(
    api: &Api,
    fault: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<(String, u64)>> {
    let mut begun = Vec::new();
    let mut running = Vec::new();
    for (number, question) in questions().into_iter().enumerate() {
        let (begin, has_begun) = oneshot::channel();
        let api = api.clone();
        running.push(tokio::spawn(async move {
            if number == 4 {
                return whole_answer(&api, question, begin).await;
            }
            answer(api.stream_completion("Once upon a time", question).await?, begin).await
        }));
        begun.push(has_begun);
    }
    for begun in begun {
        begun.await?;
    }
    ensure!(running.iter().all(|answer| !answer.is_finished()), "an answer was over before the fault");
    fault()?;
    let ended = tokio::time::timeout(RESUMED_WITHIN, futures_util::future::join_all(running)).await?;
    ended.into_iter().map(|answer| answer?).collect()
}

#[tokio::test]
async fn killing_any_stage_changes_no_token_of_its_streams() -> anyhow::Result<()> {
    // In f32 prefill and decode agree far more closely than any two tokens are apart.
    kill_each_stage(Options::demo().set("shard-forward", "dtype", "f32")).await
}

#[tokio::test]
async fn in_deterministic_mode_killing_any_stage_changes_no_token_in_bf16_either() -> anyhow::Result<()> {
    kill_each_stage(Options::demo().set("shard-forward", "deterministic", true)).await
}

async fn kill_each_stage(options: Options) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(options).await?;
    let api = cluster.api();
    let undisturbed = answers(&api, || Ok(())).await?;
    for name in ["shard-forward.0", "shard-forward.1", "sample", "detokenize"] {
        let disturbed = answers(&api, || {
            cluster.get(name)?.kill()?;
            cluster.spawn(name)
        });
        let disturbed = disturbed.await.with_context(|| format!("after `{name}` was killed"))?;
        assert_eq!(disturbed, undisturbed, "after `{name}` was killed");
        cluster.ready().await?;
        Holdings::watch(&cluster)
            .await?
            .nothing_is_held(&cluster)
            .await
            .with_context(|| format!("after `{name}` was killed"))?;
    }
    let resumes = metric(&cluster, "tokenway_resumes_total").await?;
    // The answer that is not streamed may have been admitted only after a fault.
    ensure!(resumes >= 4 * (questions().len() as u64 - 1), "only {resumes} answers lost their route");
    Ok(())
}

#[tokio::test]
async fn an_instance_that_wakes_after_it_was_given_up_says_and_holds_nothing() -> anyhow::Result<()> {
    for name in ["shard-forward.0", "shard-forward.1", "sample", "detokenize"] {
        let mut cluster = Cluster::start(Options::demo().set("shard-forward", "dtype", "f32")).await?;
        cluster.spawn_replica(name, "other")?;
        cluster.ready().await?;
        let api = cluster.api();
        let undisturbed = answers(&api, || Ok(())).await?;
        let disturbed = answers(&api, || cluster.get(name)?.stop());
        assert_eq!(disturbed.await?, undisturbed, "after `{name}` was stopped");
        cluster.get(name)?.signal(Signal::CONT)?;
        Holdings::watch(&cluster)
            .await?
            .nothing_is_held(&cluster)
            .await
            .with_context(|| format!("after `{name}` was stopped"))?;
        assert_eq!(answers(&api, || Ok(())).await?, undisturbed, "after `{name}` woke");
    }
    Ok(())
}

/// A counter of the gateway.
async fn metric(cluster: &Cluster, name: &str) -> anyhow::Result<u64> {
    let metrics = reqwest::get(format!("{}/metrics", cluster.url())).await?.text().await?;
    let line = metrics.lines().find(|line| line.starts_with(name)).with_context(|| format!("no `{name}`"))?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

#[tokio::test]
async fn a_broker_that_dies_changes_no_token() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo().set("shard-forward", "dtype", "f32")).await?;
    let api = cluster.api();
    let undisturbed = answers(&api, || Ok(())).await?;
    let disturbed = answers(&api, || cluster.nats.kill_and_start()).await?;
    assert_eq!(disturbed, undisturbed);
    Holdings::watch(&cluster).await?.nothing_is_held(&cluster).await?;
    assert_eq!(answers(&api, || Ok(())).await?, undisturbed, "with the new broker");
    Ok(())
}

#[tokio::test]
async fn an_answer_whose_prompt_was_in_the_store_goes_on_after_the_broker_died() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::demo().set("shard-forward", "dtype", "f32")).await?;
    let api = cluster.api();
    // No template prints the name, so the prompt is few tokens; it travels all the same.
    let message =
        json!({"role": "user", "content": "Tell me a story about a fox.", "name": "n".repeat(60_000)});
    let question = json!({"model": "tokenway-demo", "messages": [message], "temperature": 1.5, "seed": 7,
        "max_tokens": 400, "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true}});
    let open = || api.stream("/v1/chat/completions", &question);
    let undisturbed = answer(open().await?, oneshot::channel().0).await?;
    for name in ["nats-server", "shard-forward.0"] {
        let (begin, has_begun) = oneshot::channel();
        let running = tokio::spawn(answer(open().await?, begin));
        has_begun.await?;
        match name {
            // The new one's store is empty.
            "nats-server" => cluster.nats.kill_and_start()?,
            _ => {
                cluster.get(name)?.kill()?;
                cluster.spawn(name)?;
            }
        }
        let disturbed = tokio::time::timeout(RESUMED_WITHIN, running).await???;
        assert_eq!(disturbed, undisturbed, "after `{name}` was killed");
    }
    ensure!(metric(&cluster, "tokenway_resumes_total").await? >= 2, "no answer lost its route");
    Ok(())
}

#[tokio::test]
async fn a_second_instance_takes_over_at_once() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::demo().set("shard-forward", "dtype", "f32")).await?;
    cluster.spawn_replica("sample", "sample#1")?;
    let api = cluster.api();
    let undisturbed = answers(&api, || Ok(())).await?;
    let disturbed = answers(&api, || cluster.get("sample")?.kill()).await?;
    assert_eq!(disturbed, undisturbed);
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
async fn an_entry_that_is_delivered_again_does_not_stop_its_next_holder() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::echo().without("tokenize")).await?;
    cluster.spawn_behind_proxy("tokenize").await?;
    cluster.spawn_replica("tokenize", "other")?;
    cluster.ready().await?;
    Holdings::watch(&cluster).await?.all_present(&cluster).await?;
    cluster.proxy("tokenize")?.set_link(Link::Cut);
    // Some of these go to the instance that is cut off first.
    for number in 0..6 {
        let text = format!("request {number}");
        let api = cluster.api();
        let answer = api.complete(text.as_str(), json!({"max_tokens": text.len()}));
        let answer = tokio::time::timeout(RESUMED_WITHIN, answer).await??;
        assert_eq!(answer.text(), text);
    }
    Ok(())
}

#[tokio::test]
async fn sigterm_finishes_what_runs_and_exits_zero() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::demo()).await?;
    let fields = json!({"max_tokens": 200, "ignore_eos": true});
    let mut stream = cluster.api().stream_completion("abc", fields).await?;
    stream.next().await?;
    for name in ["gateway", "shard-forward.0", "shard-forward.1", "sample", "detokenize", "tokenize"] {
        cluster.get(name)?.signal(Signal::TERM)?;
    }
    let rest = stream.collect().await.with_context(|| cluster.logs())?;
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
    stage.signal(Signal::TERM)?;
    assert!(stage.wait(Duration::from_secs(5))?.success());
    Ok(())
}
