//! The shipped model does what its training script says it does.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use tests::{Cluster, Options, repository};

/// Requests at once: keeps the batch full without waiting in the queue.
const CLIENTS: usize = 48;

#[derive(Deserialize)]
struct Case {
    skill: String,
    prompt: String,
    answer: String,
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
    let file = std::fs::read_to_string(repository().join("models/demo/heldout.jsonl"))?;
    let cases: Vec<Case> = file.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let api = cluster.api();
    let answers = futures_util::stream::iter(cases.into_iter().map(|case| {
        let api = api.clone();
        async move {
            let reply = api.chat(&case.prompt, json!({"temperature": 0, "max_tokens": 64})).await?;
            anyhow::ensure!(reply.status == 200, "{}", reply.body);
            Ok((case.skill, reply.text() == case.answer))
        }
    }));
    let mut skills: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    let mut answers = answers.buffer_unordered(CLIENTS);
    while let Some(answer) = answers.next().await {
        let (skill, right) = answer?;
        let (asked, correct) = skills.entry(skill).or_default();
        *asked += 1;
        *correct += u32::from(right);
    }
    assert!(skills.len() >= 4, "{skills:?}");
    for (skill, (asked, correct)) in &skills {
        println!("{skill}: {correct} of {asked}");
        assert!(*asked >= 250, "{skill}: {asked} cases");
        assert!(correct * 100 >= asked * 95, "{skill}: {correct} of {asked}");
    }
    Ok(())
}

#[tokio::test]
async fn greedy_text_is_that_of_transformers() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo().set("shard-forward", "dtype", "f32")).await?;
    let file = std::fs::read_to_string(repository().join("models/demo/goldens.json"))?;
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
    let folder = models::ModelFolder::open(&repository().join("models/demo"))?;
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
