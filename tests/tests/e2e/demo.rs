//! The shipped model does what its training script says it does.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tests::{Cluster, Options, repository};

/// Requests at once: keeps the batch full without waiting in the queue.
const CLIENTS: usize = 48;

#[derive(Deserialize)]
struct Case {
    skill: String,
    /// File of the scene that the question is about.
    picture: Option<PathBuf>,
    prompt: String,
    answer: String,
}

impl Case {
    fn content(&self) -> anyhow::Result<Value> {
        let Some(picture) = &self.picture else { return Ok(json!(self.prompt)) };
        let file = std::fs::read(demo().join(picture))?;
        let url = format!("data:image/png;base64,{}", STANDARD.encode(file));
        Ok(json!([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": self.prompt}]))
    }
}

fn demo() -> PathBuf {
    repository().join("models/demo")
}

#[derive(Deserialize)]
struct Goldens {
    chats: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    messages: serde_json::Value,
    text: String,
}

#[tokio::test]
async fn every_skill_is_right_in_95_of_100_held_out_cases() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo()).await?;
    check_skills(&cluster, "heldout.jsonl", 8, 250).await
}

#[tokio::test]
async fn questions_about_held_out_scenes_are_answered_right_in_95_of_100() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo()).await?;
    check_skills(&cluster, "scenes.jsonl", 8, 50).await
}

/// Asks every case of `file`, of `skills` skills with at least `cases_of_each`.
async fn check_skills(
    cluster: &Cluster,
    file: &str,
    skills: usize,
    cases_of_each: u32,
) -> anyhow::Result<()> {
    let file = std::fs::read_to_string(demo().join(file))?;
    let cases: Vec<Case> = file.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let api = cluster.api();
    let answers = futures_util::stream::iter(cases.into_iter().map(|case| {
        let (api, model) = (api.clone(), cluster.model.clone());
        async move {
            let body = json!({
                "model": model, "messages": [{"role": "user", "content": case.content()?}], "temperature": 0,
                "max_tokens": 256,
            });
            let reply = api.post("/v1/chat/completions", &body).await?;
            anyhow::ensure!(reply.status == 200, "{}", reply.body);
            Ok((case.skill, reply.text() == case.answer))
        }
    }));
    let mut by_skill: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut answers = answers.buffer_unordered(CLIENTS);
    while let Some(answer) = answers.next().await {
        let (skill, right) = answer?;
        let (asked, correct) = by_skill.entry(skill).or_default();
        *asked += 1;
        *correct += u32::from(right);
    }
    assert_eq!(by_skill.len(), skills, "{by_skill:?}");
    for (skill, (asked, correct)) in &by_skill {
        println!("{skill}: {correct} of {asked}");
        assert!(*asked >= cases_of_each, "{skill}: {asked} cases");
        assert!(correct * 100 >= asked * 95, "{skill}: {correct} of {asked}");
    }
    Ok(())
}

#[tokio::test]
async fn greedy_text_is_that_of_transformers() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo().set("shard-forward", "dtype", "f32")).await?;
    let file = std::fs::read_to_string(demo().join("goldens.json"))?;
    let Goldens { chats } = serde_json::from_str(&file)?;
    assert!(chats.len() >= 10);
    let api = cluster.api();
    for Golden { messages, text } in chats {
        let body = json!({"model": cluster.model, "messages": messages, "temperature": 0});
        let reply = api.post("/v1/chat/completions", &body).await?;
        assert_eq!(reply.text(), text, "{messages}");
    }
    Ok(())
}

#[tokio::test]
async fn a_seed_gives_the_same_answer_and_another_another() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo()).await?;
    let api = cluster.api();
    let ask = |seed: u64| {
        let api = api.clone();
        async move {
            let fields = json!({"temperature": 1.5, "seed": seed, "max_tokens": 60, "ignore_eos": true});
            anyhow::Ok(api.chat("Tell me a story about a fox.", fields).await?.text().to_owned())
        }
    };
    let first = ask(1).await?;
    assert_eq!(first, ask(1).await?);
    assert_ne!(first, ask(2).await?);
    Ok(())
}

#[tokio::test]
async fn sampling_settings_do_what_they_say() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo()).await?;
    let api = cluster.api();
    let question = "What is 12 + 34?";
    let plain = api.chat(question, json!({"temperature": 0})).await?;
    let banned = plain.text().as_bytes()[0];
    let folder = models::ModelFolder::open(&demo())?;
    let id = folder.load_tokenizer()?.encode(&char::from(banned).to_string(), false)?[0];
    let bias = json!({"temperature": 0, "logit_bias": {id.to_string(): -100}});
    let biased = api.chat(question, bias).await?;
    assert_ne!(biased.text().as_bytes().first(), Some(&banned), "{}", biased.body);
    let longer = api.chat(question, json!({"temperature": 0, "min_tokens": 20, "max_tokens": 30})).await?;
    assert!(longer.body["usage"]["completion_tokens"].as_u64().unwrap() >= 20, "{}", longer.body);
    let top_k = api.chat(question, json!({"temperature": 2.0, "top_k": 1, "seed": 3})).await?;
    assert_eq!(top_k.text(), plain.text());
    let logprobs = api.chat(question, json!({"temperature": 0, "logprobs": true, "top_logprobs": 3})).await?;
    let content = logprobs.body["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(content.len() as u64, logprobs.body["usage"]["completion_tokens"].as_u64().unwrap());
    for token in content {
        assert!(token["logprob"].as_f64().unwrap() <= 0.0, "{token}");
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3, "{token}");
        assert_eq!(token["top_logprobs"][0]["token"], token["token"], "greedy takes the most probable");
    }
    Ok(())
}
