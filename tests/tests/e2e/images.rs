//! Images over HTTP: numbers of transformers, bad files, absent and dying encoders, other hosts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::try_join_all;
use pipelines::bus::Bus;
use pipelines::presence::Watch;
use schemas::Role;
use serde::Deserialize;
use serde_json::{Value, json};
use tests::client::merged;
use tests::{Cluster, Options, Reply, repository};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a logit may differ by from transformers'. Two JPEG decoders differ by two levels of 256 where colors change.
const LOGITS_DIFFER: f64 = 1e-3;
const LOGITS_DIFFER_BY_JPEG: f64 = 0.05;
const TOP: usize = 20;

fn goldens() -> PathBuf {
    repository().join("tests/goldens/vision")
}

/// A data URL of a file among the goldens' images.
pub fn data_url(name: &str) -> String {
    of_bytes(&std::fs::read(goldens().join("images").join(name)).unwrap())
}

fn of_bytes(file: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(file))
}

fn image_part(url: impl Into<String>) -> Value {
    json!({"type": "image_url", "image_url": {"url": url.into()}})
}

pub fn asking(model: &str, url: impl Into<String>, text: &str) -> Value {
    let content = json!([image_part(url), {"type": "text", "text": text}]);
    json!({"model": model, "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 8})
}

/// The pipeline of a tiny checkpoint with random weights.
pub fn tiny(model: &str) -> Options {
    let mut options = Options::demo().set("shard-forward", "dtype", "f32");
    options.overrides.path = Some(goldens().join(model));
    options.overrides.model = Some(model.into());
    options
}

async fn ask(cluster: &Cluster, body: &Value) -> anyhow::Result<Reply> {
    cluster.api().post("/v1/chat/completions", body).await
}

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Value,
    ids: Vec<u32>,
    logits: Vec<f64>,
    greedy_ids: Vec<u8>,
    #[serde(default = "yes")]
    do_image_splitting: bool,
}

fn yes() -> bool {
    true
}

/// The messages of a golden with data URLs in place of its file names.
fn with_data_urls(mut messages: Value) -> Value {
    for message in messages.as_array_mut().unwrap() {
        for part in message["content"].as_array_mut().unwrap() {
            if let Some(url) = part.pointer_mut("/image_url/url") {
                *url = data_url(url.as_str().unwrap()).into();
            }
        }
    }
    messages
}

fn largest_logprobs(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
    let mut logprobs: Vec<f64> = logits.iter().map(|logit| logit - sum.ln()).collect();
    logprobs.sort_by(|a, b| b.total_cmp(a));
    logprobs.truncate(TOP);
    logprobs
}

async fn check_golden(cluster: &Cluster, case: Case) -> anyhow::Result<()> {
    let is_jpeg = case.messages.to_string().contains(".jpg");
    let body = json!({
        "model": cluster.model, "messages": with_data_urls(case.messages.clone()), "temperature": 0,
        "max_tokens": case.greedy_ids.len(), "logprobs": true, "top_logprobs": TOP, "ignore_eos": true,
    });
    let reply = ask(cluster, &body).await?;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.body["usage"]["prompt_tokens"], case.ids.len(), "{}", case.messages);
    let tokens = reply.body["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let ours: Vec<f64> = tokens[0]["top_logprobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|top| top["logprob"].as_f64().unwrap())
        .collect();
    let theirs = largest_logprobs(&case.logits);
    let differ = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(
        ours.len() == TOP && differ < if is_jpeg { LOGITS_DIFFER_BY_JPEG } else { LOGITS_DIFFER },
        "{differ}"
    );
    let greedy: Vec<u8> =
        tokens.iter().flat_map(|token| token["bytes"].as_array().unwrap()).map(byte).collect();
    if !is_jpeg {
        assert_eq!(greedy, case.greedy_ids, "{}", case.messages);
    }
    Ok(())
}

fn byte(value: &Value) -> u8 {
    value.as_u64().unwrap() as u8
}

#[tokio::test]
async fn vision_layouts_give_the_logits_of_transformers() -> anyhow::Result<()> {
    let layouts = ["llava", "smolvlm", "qwen2_5_vl"];
    for (model, shards) in layouts.into_iter().flat_map(|model| [(model, 1), (model, 2)]) {
        let cluster = Cluster::start(tiny(model).set("shard-forward", "shards", shards)).await?;
        let golden: Golden =
            serde_json::from_slice(&std::fs::read(goldens().join(model).join("golden.json"))?)?;
        let cases = golden.cases.into_iter().filter(|case| case.do_image_splitting);
        try_join_all(cases.map(|case| check_golden(&cluster, case))).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_model_that_sees_images_at_their_own_size_sees_no_videos_and_nothing_too_thin() -> anyhow::Result<()>
{
    let cluster = Cluster::start(tiny("qwen2_5_vl")).await?;
    let video = json!([{"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}}]);
    let video = json!({"model": "qwen2_5_vl", "messages": [{"role": "user", "content": video}]});
    let reply = ask(&cluster, &video).await?;
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert!(reply.error().contains("video_url"), "{}", reply.error());
    for text in ["and <|video_pad|> here", "and <|image_pad|> here"] {
        let reply = ask(&cluster, &asking("qwen2_5_vl", data_url("clear.png"), text)).await?;
        assert_eq!((reply.status, reply.body["error"]["param"].as_str()), (400, Some("messages")), "{text}");
    }
    let thin = ask(&cluster, &asking("qwen2_5_vl", of_bytes(&thin(401, 2)), "What?")).await?;
    assert_eq!((thin.status, thin.body["error"]["code"].as_str()), (400, Some("invalid_image")));
    Ok(())
}

/// A PNG that says it has `side` by `side` pixels, with the right checksum and no pixels.
fn bomb(side: u32) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    file.extend(side.to_be_bytes());
    file.extend(side.to_be_bytes());
    file.extend([8, 2, 0, 0, 0]);
    let step = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    let crc = file[12..].iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
    file.extend((!crc).to_be_bytes());
    file.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    file
}

/// A whole PNG in which no model could see anything.
fn thin(width: u32, height: u32) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(width, height).write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

#[tokio::test]
async fn bad_images_are_refused_by_field_and_cost_nobody_else() -> anyhow::Result<()> {
    let cluster = Cluster::start(tiny("llava").set("vision-encode", "bytes", 100_000)).await?;
    let whole = std::fs::read(goldens().join("images/portrait.png"))?;
    let field = "messages[0].content[0].image_url";
    let mut lying = whole.clone();
    lying[19] = 200; // the width, whose checksum is now wrong
    let urls = [
        (of_bytes(&whole[..whole.len() / 2]), 400, field),
        (of_bytes(&whole[..16]), 400, field),
        (of_bytes(&lying), 400, field),
        (of_bytes(&bomb(50_000)), 413, field),
        (of_bytes(&vec![0; 200_000]), 413, field),
        (of_bytes(b"<svg/>"), 400, field),
        (of_bytes(b""), 400, field),
        (of_bytes(&thin(1, 3000)), 400, field),
        (of_bytes(&thin(3000, 1)), 400, field),
        ("data:image/png;base64,***".to_owned(), 400, field),
        ("https://example.org/a.png".to_owned(), 400, field),
        ("http://169.254.169.254/latest/meta-data".to_owned(), 400, field),
        ("file:///etc/passwd".to_owned(), 400, field),
        ("".to_owned(), 400, field),
    ];
    let bad = urls.iter().map(async |(url, status, field)| {
        let reply = ask(&cluster, &asking("llava", url.clone(), "What?")).await?;
        let shown = url.get(..60).unwrap_or(url);
        assert_eq!(
            (reply.status, reply.body["error"]["param"].as_str()),
            (*status, Some(*field)),
            "{shown} {}",
            reply.body
        );
        anyhow::Ok(())
    });
    let good = (0..12).map(async |_| {
        let reply = ask(&cluster, &asking("llava", data_url("portrait.png"), "What is this?")).await?;
        assert_eq!(reply.status, 200, "{}", reply.body);
        anyhow::Ok(reply.text().to_owned())
    });
    let (_, texts) = tokio::try_join!(try_join_all(bad), try_join_all(good))?;
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    let too_many = json!({"model": "llava", "messages": [
        {"role": "user", "content": vec![image_part(data_url("clear.png")); 17]},
    ]});
    let reply = ask(&cluster, &too_many).await?;
    assert_eq!(
        (reply.status, reply.body["error"]["code"].as_str()),
        (400, Some("too_many_images")),
        "{}",
        reply.body
    );
    let typed = ask(&cluster, &asking("llava", data_url("clear.png"), "and <image> here")).await?;
    assert_eq!(
        (typed.status, typed.body["error"]["param"].as_str()),
        (400, Some("messages")),
        "{}",
        typed.body
    );
    Ok(())
}

#[tokio::test]
async fn a_model_without_eyes_says_so() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo()).await?;
    let reply = ask(&cluster, &asking(&cluster.model, data_url("clear.png"), "What?")).await?;
    assert_eq!((reply.status, reply.body["error"]["code"].as_str()), (400, Some("unsupported_content")));
    assert!(reply.error().contains(&cluster.model), "{}", reply.error());
    let models = cluster.api().get("/v1/models").await?;
    assert_eq!(models.body["data"][0]["vision"], false);
    Ok(())
}

#[tokio::test]
async fn without_an_encoder_images_wait_and_text_does_not() -> anyhow::Result<()> {
    let mut options = tiny("llava").without("vision-encode");
    options.overrides.deadline_seconds = Some(4);
    let mut cluster = Cluster::start(options).await?;
    cluster.ready().await?;
    let body = asking("llava", data_url("portrait.png"), "What is this?");
    let began = Instant::now();
    let waiting = ask(&cluster, &body);
    let text = async {
        let reply = cluster.api().chat("Hello!", json!({"max_tokens": 4, "ignore_eos": true})).await?;
        anyhow::Ok((reply, began.elapsed()))
    };
    let (waited, (text, text_took)) = tokio::try_join!(waiting, text)?;
    assert_eq!(text.status, 200, "{}", text.body);
    assert!(text_took < Duration::from_secs(3), "{text_took:?}");
    assert_eq!(waited.status, 503, "{}", waited.body);
    assert!(waited.error().contains("vision-encode"), "{}", waited.error());
    let api = cluster.api();
    let later = tokio::spawn(async move { api.post("/v1/chat/completions", &body).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    cluster.spawn("vision-encode")?;
    let reply = later.await??;
    assert_eq!(reply.status, 200, "{}", reply.body);
    Ok(())
}

#[tokio::test]
async fn images_of_an_encoder_that_dies_are_encoded_by_the_next() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(tiny("smolvlm")).await?;
    let body = asking("smolvlm", data_url("portrait.png"), "What is this?");
    let undisturbed = ask(&cluster, &body).await?.text().to_owned();
    // Another instance has nothing in its cache.
    cluster.get("vision-encode")?.kill()?;
    cluster.spawn("vision-encode")?;
    ask(&cluster, &asking("smolvlm", data_url("wide.gif"), "Ready?")).await?;
    cluster.get("vision-encode")?.stop()?;
    let api = cluster.api();
    let asked: Vec<_> = (0..6)
        .map(|_| {
            let (api, body) = (api.clone(), body.clone());
            tokio::spawn(async move { api.post("/v1/chat/completions", &body).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(asked.iter().all(|asked| !asked.is_finished()), "the encoder was stopped");
    cluster.get("vision-encode")?.kill()?;
    cluster.spawn("vision-encode")?;
    for asked in asked {
        let reply = asked.await??;
        assert_eq!((reply.status, reply.text()), (200, undisturbed.as_str()), "{}", reply.body);
    }
    Ok(())
}

/// Streams of two conversations with images, their text; `fault` is called once every one has begun.
async fn streamed(
    cluster: &Cluster,
    fault: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<String>> {
    let mut begun = Vec::new();
    for (number, image) in ["portrait.png", "wide.gif", "clear.png", "small.webp"].into_iter().enumerate() {
        let more = json!({
            "stream": true, "max_tokens": 350, "ignore_eos": true, "seed": number, "temperature": number % 2,
        });
        let body = merged(asking(&cluster.model, data_url(image), "What is this?"), more);
        let mut stream = cluster.api().stream("/v1/chat/completions", &body).await?;
        let first = stream.next().await?.context("an empty stream")?;
        begun.push((first.text().to_owned(), stream));
    }
    fault()?;
    let ended = begun.into_iter().map(async |(mut text, stream)| {
        let events = stream.collect().await?;
        assert!(events.last().unwrap().is_done(), "{:?}", events.last());
        events.iter().for_each(|event| text.push_str(event.text()));
        anyhow::Ok(text)
    });
    try_join_all(ended).await
}

#[tokio::test]
async fn answers_about_images_go_on_after_any_death() -> anyhow::Result<()> {
    // Its positions depend on the images, which a later shard hears of only once. Its weights are random, so that in the default mode a
    // seeded answer may go on otherwise.
    let options = tiny("qwen2_5_vl").set("shard-forward", "deterministic", true);
    let mut cluster = Cluster::start(options).await?;
    let undisturbed = streamed(&cluster, || Ok(())).await?;
    for name in ["shard-forward.0", "shard-forward.1", "sample"] {
        let (killed, shared) = (cluster.processes.remove(name), &cluster);
        let mut killed = killed.with_context(|| format!("no process `{name}`"))?;
        let disturbed = async {
            let disturbed = streamed(shared, || killed.kill());
            tokio::time::timeout(Duration::from_secs(20), disturbed).await?
        };
        // The route is dead at once; the next instance comes a moment later.
        let again = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            shared.start_beside(name)
        };
        let (disturbed, process) = tokio::try_join!(disturbed, again)?;
        cluster.processes.insert(name.to_owned(), process);
        assert_eq!(disturbed, undisturbed, "after `{name}` was killed");
        cluster.ready().await?;
    }
    // The broker's memory held the images.
    let disturbed = streamed(&cluster, || cluster.nats.kill_and_start()).await?;
    assert_eq!(disturbed, undisturbed, "with another broker");
    Ok(())
}

#[tokio::test]
async fn an_image_that_comes_again_is_not_encoded_again() -> anyhow::Result<()> {
    let cluster = Cluster::start(tiny("llava")).await?;
    for turn in ["One?", "Two?", "Three?"] {
        assert_eq!(ask(&cluster, &asking("llava", data_url("portrait.png"), turn)).await?.status, 200);
    }
    let watch = Watch::start(&Bus::connect(&cluster.nats.url(), "test").await?).await?;
    let admin = async {
        loop {
            let peers = watch.peers();
            let found = peers.all().find(|peer| peer.role == Role::VisionEncode);
            if let Some(admin) = found.and_then(|peer| peer.admin.clone()) {
                return admin;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let admin = tokio::time::timeout(Duration::from_secs(5), admin).await?;
    let metrics = reqwest::get(format!("http://{admin}/metrics")).await?.text().await?;
    assert!(metrics.contains("tokenway_images_total{from=\"cache\"} 2"), "{metrics}");
    assert!(metrics.contains("tokenway_images_total{from=\"encoder\"} 1"), "{metrics}");
    Ok(())
}

/// Serves pictures, redirects and worse on an address of its own, until dropped.
async fn picture_server() -> anyhow::Result<(SocketAddr, DropGuard)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let picture = std::fs::read(goldens().join("images/portrait.png"))?;
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let picture = picture.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let length = socket.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                let head = |status: &str, more: &str| {
                    format!("HTTP/1.1 {status}\r\n{more}connection: close\r\n\r\n")
                };
                let (head, body) = match path {
                    "/picture.png" => (head("200 OK", ""), picture),
                    "/large" => (head("200 OK", "content-length: 99999999\r\n"), Vec::new()),
                    "/endless" => (head("200 OK", ""), vec![0; 300_000]),
                    "/to-private" => (head("302 Found", "location: /picture.png\r\n"), Vec::new()),
                    "/to-elsewhere" => (head("302 Found", "location: http://localhost:1/\r\n"), Vec::new()),
                    "/text" => (head("200 OK", ""), b"not a picture".to_vec()),
                    _ => (head("404 Not Found", ""), Vec::new()),
                };
                let _ = socket.write_all(&[head.into_bytes(), body].concat()).await;
            });
        }
    }));
    Ok((address, guard))
}

#[tokio::test]
async fn images_are_fetched_from_allowed_hosts_only() -> anyhow::Result<()> {
    let (address, _guard) = picture_server().await?;
    let allowed = format!("{address},*.example.org");
    let options = tiny("llava").set("vision-encode", "bytes", 100_000).gateway(&["--image-hosts", &allowed]);
    let cluster = Cluster::start(options).await?;
    let by_value = ask(&cluster, &asking("llava", data_url("portrait.png"), "What is this?")).await?;
    let by_url =
        ask(&cluster, &asking("llava", format!("http://{address}/picture.png"), "What is this?")).await?;
    assert_eq!((by_url.status, by_url.text()), (200, by_value.text()), "{}", by_url.body);
    for (path, status, says) in [
        ("/large", 413, "99999999"),
        ("/endless", 413, "limit"),
        ("/to-private", 400, "not public"),
        ("/to-elsewhere", 400, "host"),
        ("/text", 400, "PNG"),
        ("/absent", 400, "404"),
    ] {
        let reply =
            ask(&cluster, &asking("llava", format!("http://{address}{path}"), "What is this?")).await?;
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
        assert!(reply.error().contains(says), "{path}: {}", reply.error());
    }
    let other_port = ask(&cluster, &asking("llava", "http://127.0.0.1:1/picture.png", "What?")).await?;
    assert_eq!(other_port.status, 400, "{}", other_port.body);
    Ok(())
}
