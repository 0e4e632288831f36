//! What a client gets: order, text, stops, usage, several prompts and choices.

use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tests::{Cluster, Options};

/// The echo engine repeats the prompt, so every answer is known beforehand.
fn echoed(prompt: &str, tokens: usize) -> Vec<u8> {
    prompt.bytes().cycle().take(tokens).collect()
}

#[tokio::test]
async fn a_stream_is_in_order_and_ends_with_usage_and_done() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo()).await?;
    let fields = json!({"max_tokens": 40, "stream_options": {"include_usage": true}});
    let events = cluster.api().stream_completion("abcdefg", fields).await?.collect().await?;
    let text: String = events.iter().map(|event| event.text()).collect();
    assert_eq!(text.as_bytes(), echoed("abcdefg", 40), "{:?}", events.last());
    let (done, events) = events.split_last().unwrap();
    assert!(done.is_done());
    let (usage, events) = events.split_last().unwrap();
    assert_eq!(usage.data["choices"], json!([]));
    assert_eq!(usage.data["usage"]["prompt_tokens"], 7);
    assert_eq!(usage.data["usage"]["completion_tokens"], 40);
    assert_eq!(events.last().unwrap().data["choices"][0]["finish_reason"], "length");
    assert!(events.len() > 10, "streamed in {} events", events.len());
    Ok(())
}

#[tokio::test]
async fn sixty_four_clients_of_different_lengths_get_their_own_answers() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo()).await?;
    let api = cluster.api();
    let asks = (0..64usize).map(|client| {
        let api = api.clone();
        async move {
            let prompt = format!("client {client} says {}", "x".repeat(client));
            let tokens = 1 + client * 5;
            let fields = json!({"max_tokens": tokens});
            let events = api.stream_completion(prompt.as_str(), fields).await?.collect().await?;
            let text: String = events.iter().map(|event| event.text()).collect();
            assert_eq!(text.as_bytes(), echoed(&prompt, tokens), "client {client}");
            anyhow::Ok(())
        }
    });
    try_join_all(asks).await?;
    Ok(())
}

#[tokio::test]
async fn characters_of_several_tokens_come_whole() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo()).await?;
    let prompt = "é🙂漢e\u{301}";
    let bytes = prompt.len();
    let events =
        cluster.api().stream_completion(prompt, json!({"max_tokens": 2 * bytes})).await?.collect().await?;
    let text: String = events.iter().map(|event| event.text()).collect();
    assert_eq!(text, prompt.repeat(2));
    let cut = cluster.api().complete(prompt, json!({"max_tokens": 3})).await?;
    assert_eq!(cut.text(), "é\u{fffd}", "an answer that ends inside a character says so");
    Ok(())
}

#[tokio::test]
async fn stop_sequences_end_the_answer_and_never_show() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo()).await?;
    let api = cluster.api();
    let fields = json!({"max_tokens": 100, "stop": ["gab", "zzz"]});
    let events = api.stream_completion("abcdefg", fields).await?.collect().await?;
    let text: String = events.iter().map(|event| event.text()).collect();
    assert_eq!(text, "abcdef");
    for event in &events {
        assert!(!event.text().contains('g'), "a part of the stop sequence leaked: {:?}", event.text());
    }
    let almost = api.complete("abcdefg", json!({"max_tokens": 14, "stop": "gax"})).await?;
    assert_eq!((almost.text(), almost.finish()), ("abcdefgabcdefg", "length"));
    let stopped = api.complete("abcdefg", json!({"max_tokens": 100, "stop": "fg"})).await?;
    assert_eq!((stopped.text(), stopped.finish()), ("abcde", "stop"));
    Ok(())
}

#[tokio::test]
async fn prompts_come_as_text_lists_and_token_ids() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo()).await?;
    let api = cluster.api();
    let several = api.complete(json!(["ab", "xyz"]), json!({"max_tokens": 6, "n": 2})).await?;
    let texts: Vec<(Value, Value)> = several.body["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| (choice["index"].clone(), choice["text"].clone()))
        .collect();
    let expected = [(0, "ababab"), (1, "ababab"), (2, "xyzxyz"), (3, "xyzxyz")];
    assert_eq!(texts, expected.map(|(index, text)| (json!(index), json!(text))));
    assert_eq!(several.body["usage"]["prompt_tokens"], 5);
    assert_eq!(several.body["usage"]["completion_tokens"], 24);
    let folder = models::ModelFolder::open(&tests::repository().join("models/demo"))?;
    let ids = folder.load_tokenizer()?.encode("ab", false)?;
    let by_ids = api.complete(json!(ids), json!({"max_tokens": 4})).await?;
    assert_eq!(by_ids.text(), "abab");
    let lists = api.complete(json!([ids, ids]), json!({"max_tokens": 4})).await?;
    assert_eq!(lists.body["choices"].as_array().unwrap().len(), 2);
    Ok(())
}

#[tokio::test]
async fn long_prompts_travel_by_hash_and_are_measured() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo()).await?;
    let reply = cluster.api().complete("y".repeat(200_000), json!({"max_tokens": 4})).await?;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.body["error"]["code"], "context_length_exceeded");
    assert!(reply.error().contains("200000") && reply.error().contains("512"), "{}", reply.error());
    Ok(())
}
