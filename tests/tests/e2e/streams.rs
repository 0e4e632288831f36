//! Streams that outlive their gateway: read on at any gateway, every event exactly once.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::client::merged;
use tests::cluster::Link;
use tests::{Api, Cluster, Options, Stream, StreamEvent, binary};

use crate::clients::{installed, node, sdk_python, sdk_typescript};
use crate::images::{asking, data_url, tiny};

const READ_WITHIN: Duration = Duration::from_secs(60);
/// Answers long enough that none ends before its gateway dies.
const TOKENS: u32 = 300;
/// How late each read of sample's link is where an answer should take long.
const STEP_LATE: Duration = Duration::from_millis(20);

fn demo() -> Options {
    // In f32 prefill and decode agree far more closely than any two tokens are apart.
    Options::demo().set("shard-forward", "dtype", "f32")
}

/// Greedy, seeded, with penalties, logprobs, a stop sequence and two choices.
fn questions() -> Vec<Value> {
    let more = json!({
        "max_tokens": TOKENS, "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true},
    });
    let questions = [
        json!({"temperature": 0}),
        json!({"temperature": 0, "logprobs": 3}),
        json!({"seed": 1, "temperature": 1.0, "stop": ["no such text", "Q7"]}),
        json!({"seed": 2, "presence_penalty": 1.0, "frequency_penalty": 0.5, "repetition_penalty": 1.1}),
        json!({"seed": 3, "n": 2}),
    ];
    questions.into_iter().map(|question| merged(question, more.clone())).collect()
}

/// What a client has of one stream.
struct Reading {
    id: String,
    events: Vec<StreamEvent>,
}

impl Reading {
    fn last(&self) -> u64 {
        self.events.last().and_then(|event| event.id).unwrap_or_default()
    }

    /// Reads up to the end or until the connection breaks.
    async fn read(&mut self, mut stream: Stream) {
        while let Ok(Some(event)) = stream.next().await {
            self.events.push(event);
        }
    }

    /// Asks `api` until it answers, and reads to the end.
    async fn read_on(&mut self, api: &Api) -> anyhow::Result<()> {
        while !self.events.last().is_some_and(StreamEvent::is_done) {
            match api.read_on(&self.id, self.last()).await {
                Ok(stream) => self.read(stream).await,
                Err(error) => {
                    println!("not yet: {error:#}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        Ok(())
    }

    /// The texts of both choices, and the tokens of both; every event must be there once.
    fn whole(&self) -> anyhow::Result<([String; 2], u64)> {
        let ids: Vec<u64> = self.events.iter().filter_map(|event| event.id).collect();
        ensure!(ids == (1..=self.events.len() as u64).collect::<Vec<_>>(), "events {ids:?}");
        let mut texts = [String::new(), String::new()];
        for event in &self.events {
            let choice = event.data["choices"][0]["index"].as_u64().unwrap_or_default();
            texts[choice as usize].push_str(event.text());
        }
        let usage = self.events.iter().find_map(|event| event.data["usage"]["completion_tokens"].as_u64());
        Ok((texts, usage.context("no usage")?))
    }
}

/// Begins all streams and reads until each has some events.
async fn begin(api: &Api) -> anyhow::Result<Vec<(Reading, Stream)>> {
    try_join_all(questions().into_iter().map(|question| async move {
        let mut stream = api.stream_completion("Once upon a time", question).await?;
        let id = stream.id.clone().context("a stream without an id")?;
        let mut events = Vec::new();
        while events.len() < 5 {
            events.push(stream.next().await?.context("an empty stream")?);
        }
        Ok((Reading { id, events }, stream))
    }))
    .await
}

type Whole = ([String; 2], u64);

async fn undisturbed(api: &Api) -> anyhow::Result<Vec<Whole>> {
    let reading = begin(api).await?.into_iter().map(|(mut reading, stream)| async move {
        reading.read(stream).await;
        reading.whole()
    });
    try_join_all(reading).await
}

/// Reads what is left of broken streams at `api`.
async fn read_on(broken: Vec<Reading>, api: &Api) -> anyhow::Result<Vec<Whole>> {
    let reading = broken.into_iter().map(|mut reading| async move {
        ensure!(!reading.events.last().is_some_and(StreamEvent::is_done), "a stream ended before the fault");
        reading.read_on(api).await?;
        reading.whole()
    });
    tokio::time::timeout(READ_WITHIN, try_join_all(reading)).await?
}

#[tokio::test]
async fn a_killed_gateway_costs_no_event_at_another_or_at_its_successor() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(demo()).await?;
    let api = cluster.api();
    let expected = undisturbed(&api).await?;

    let (_other, other) = cluster.second_gateway().await?;
    let broken = break_all(&mut cluster, begin(&api).await?).await?;
    assert_eq!(read_on(broken, &other).await?, expected, "at another gateway");

    cluster.spawn("gateway")?;
    cluster.ready().await?;
    let broken = break_all(&mut cluster, begin(&api).await?).await?;
    cluster.spawn("gateway")?;
    assert_eq!(read_on(broken, &api).await?, expected, "at its successor");
    Ok(())
}

/// Kills the gateway under open streams and reads what had been sent.
async fn break_all(cluster: &mut Cluster, open: Vec<(Reading, Stream)>) -> anyhow::Result<Vec<Reading>> {
    cluster.get("gateway")?.kill()?;
    let mut broken = Vec::new();
    for (mut reading, stream) in open {
        reading.read(stream).await;
        broken.push(reading);
    }
    Ok(broken)
}

#[tokio::test]
async fn a_client_that_leaves_reads_on_later_and_again_from_the_start() -> anyhow::Result<()> {
    let cluster = Cluster::start(demo()).await?;
    let api = cluster.api();
    let expected = undisturbed(&api).await?;
    let left: Vec<Reading> = begin(&api).await?.into_iter().map(|(reading, _)| reading).collect();
    let ids: Vec<String> = left.iter().map(|reading| reading.id.clone()).collect();
    // Nobody reads: nothing goes on.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(read_on(left, &api).await?, expected);
    let again = ids.into_iter().map(|id| Reading { id, events: Vec::new() }).collect();
    assert_eq!(read_on(again, &api).await?, expected, "from the journal alone");
    Ok(())
}

#[tokio::test]
async fn a_stream_is_read_on_after_the_broker_and_then_the_gateway_died() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(demo()).await?;
    let api = cluster.api();
    let expected = undisturbed(&api).await?;
    let mut open = begin(&api).await?;
    cluster.nats.kill_and_start()?;
    // More events than before: they are in the journal of the new broker, with all that came before.
    for (reading, stream) in &mut open {
        while reading.events.len() < 40 {
            reading.events.push(stream.next().await?.context("a stream ended")?);
        }
    }
    let broken = break_all(&mut cluster, open).await?;
    cluster.spawn("gateway")?;
    assert_eq!(read_on(broken, &api).await?, expected);
    Ok(())
}

#[tokio::test]
async fn an_answer_about_an_image_goes_on_at_the_next_gateway() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(tiny("llava")).await?;
    let api = cluster.api();
    let more = json!({"stream": true, "max_tokens": 200, "ignore_eos": true, "stream_options": {"include_usage": true}});
    let body = merged(asking(&cluster.model, data_url("portrait.png"), "What is it?"), more);
    let begin = || async {
        let mut stream = api.stream("/v1/chat/completions", &body).await?;
        let id = stream.id.clone().context("a stream without an id")?;
        let events = vec![stream.next().await?.context("an empty stream")?];
        anyhow::Ok((Reading { id, events }, stream))
    };
    let (mut whole, stream) = begin().await?;
    whole.read(stream).await;
    let expected = vec![whole.whole()?];
    let broken = break_all(&mut cluster, vec![begin().await?]).await?;
    cluster.spawn("gateway")?;
    assert_eq!(read_on(broken, &api).await?, expected, "after the gateway was killed");
    let (left, _) = begin().await?;
    assert_eq!(read_on(vec![left], &api).await?, expected, "after the client had left");
    Ok(())
}

const STORY: &str = "Tell me a story about a fox.";

/// A pipeline, and its answer to `STORY` at temperature 1.5 with seed 7, which from now on takes seconds, however quick the
/// machine: the chat page cannot ask for a longer one.
async fn slow_story() -> anyhow::Result<(Cluster, String)> {
    let mut cluster = Cluster::start(demo().without("sample")).await?;
    cluster.spawn_behind_proxy("sample").await?;
    cluster.ready().await?;
    let fields = json!({"temperature": 1.5, "seed": 7, "max_tokens": 400});
    let told = cluster.api().chat(STORY, fields).await?.text().to_owned();
    cluster.proxy("sample")?.set_link(Link::Slow(STEP_LATE));
    Ok((cluster, told))
}

async fn was_read_on(cluster: &Cluster) -> anyhow::Result<()> {
    let metrics = reqwest::get(format!("{}/metrics", cluster.url())).await?.text().await?;
    ensure!(metrics.contains("tokenway_resumes_total 1"), "the answer was over before the gateway died");
    Ok(())
}

/// Runs `client`, which is given the gateway's URL and then `more`, asks for the story, prints `streaming` when it has some of
/// it and all of it at its end, as JSON.
async fn reads_on_after_its_gateway_died(mut client: Command, more: &[&OsStr]) -> anyhow::Result<()> {
    let (mut cluster, told) = slow_story().await?;
    let mut client = client.arg(cluster.url()).args(more).stdout(Stdio::piped()).spawn()?;
    let mut printed = BufReader::new(client.stdout.take().context("no output")?).lines();
    assert_eq!(printed.next().context("the client did not begin")??, "streaming");
    cluster.get("gateway")?.kill()?;
    cluster.spawn("gateway")?;
    let text: String = serde_json::from_str(&printed.next().context("the client did not end")??)?;
    assert!(client.wait()?.success());
    assert_eq!(text, told);
    was_read_on(&cluster).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chat_page_reads_on_after_its_gateway_died() -> anyhow::Result<()> {
    let chromium = installed("bin/chromium")?;
    reads_on_after_its_gateway_died(node("chat_page_reads_on.mjs")?, &[chromium.as_os_str()]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_sdk_reads_on_after_its_gateway_died() -> anyhow::Result<()> {
    reads_on_after_its_gateway_died(sdk_python()?, &["--lose-gateway".as_ref()]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_typescript_sdk_reads_on_after_its_gateway_died() -> anyhow::Result<()> {
    reads_on_after_its_gateway_died(sdk_typescript()?, &["--lose-gateway".as_ref()]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokenway_run_reads_on_after_its_gateway_died() -> anyhow::Result<()> {
    let (mut cluster, told) = slow_story().await?;
    let mut run = Command::new(binary("tokenway")?)
        .args(["run", STORY, "--url", &cluster.url()])
        .args(["--temperature", "1.5", "--seed", "7", "--max-tokens", "400"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut printed = run.stdout.take().context("no output")?;
    let mut text = vec![0; 20];
    printed.read_exact(&mut text)?;
    cluster.get("gateway")?.kill()?;
    cluster.spawn("gateway")?;
    printed.read_to_end(&mut text)?;
    assert!(run.wait()?.success());
    assert_eq!(String::from_utf8(text)?.trim_end(), told.trim_end());
    was_read_on(&cluster).await
}

#[tokio::test]
async fn a_stream_is_known_to_its_key_only_and_a_wrong_place_in_it_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo()).await?;
    let api = cluster.api();
    let stream = api.stream_completion("abc", json!({"max_tokens": 3})).await?;
    let id = stream.id.clone().context("a stream without an id")?;
    let events = stream.collect().await?;
    let last = events.last().and_then(|event| event.id).context("an event without an id")?;
    assert!(api.read_on(&id, last).await?.collect().await?.is_empty(), "nothing follows the end");

    let url = format!("{}/v1/streams/{id}", cluster.url());
    let ask = |url: String, header: (&'static str, String)| async move {
        let reply = reqwest::Client::new().get(url).header(header.0, header.1).send().await?;
        anyhow::Ok((reply.status().as_u16(), reply.json::<Value>().await?["error"].take()))
    };
    let (status, error) = ask(url.clone(), ("last-event-id", (last + 1).to_string())).await?;
    assert_eq!((status, &error["param"]), (400, &json!("Last-Event-ID")), "{error}");
    let (status, error) = ask(url.clone(), ("last-event-id", "x".into())).await?;
    assert_eq!(status, 400, "{error}");
    let (status, error) = ask(url, ("authorization", "Bearer another".into())).await?;
    assert_eq!((status, &error["code"]), (404, &json!("stream_not_found")), "{error}");
    for unknown in ["0123456789abcdef0123456789abcdef", "no-id"] {
        let reply = api.get(&format!("/v1/streams/{unknown}")).await?;
        assert_eq!((reply.status, &reply.body["error"]["code"]), (404, &json!("stream_not_found")));
    }
    Ok(())
}
