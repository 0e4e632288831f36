//! Requests that end whoever serves them. A proxy sees that a process works on such a request, which is killed for it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures_util::future;
use serde_json::{Value, json};
use tests::client::merged;
use tests::{Api, Cluster, Options};

/// Well above three deaths, each followed by the two seconds after which silence counts as death.
const VERDICT_WITHIN: Duration = Duration::from_secs(40);

const POISON: &str = "xyzzy, plugh";

/// The token ids of [`POISON`] as tokenize sends them and shards get them: the demo's tokens are bytes, the ids little-endian u32.
fn poison_ids() -> Vec<u8> {
    POISON.bytes().flat_map(|byte| u32::from(byte).to_le_bytes()).collect()
}

/// What the client of a request hears while `name` is killed whenever `trap` is on its way to or from it; and how often
/// that was.
async fn killing_for<T>(
    cluster: &mut Cluster,
    name: &str,
    trap: &[u8],
    requests: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, u32)> {
    cluster.proxy(name)?.trap(trap);
    let mut deaths = 0;
    let mut requests = std::pin::pin!(tokio::time::timeout(VERDICT_WITHIN, requests));
    loop {
        tokio::select! {
            heard = &mut requests => return Ok((heard.with_context(|| cluster.logs())??, deaths)),
            caught = cluster.proxy(name)?.caught() => caught?,
        }
        deaths += 1;
        cluster.get(name)?.kill()?;
        cluster.spawn(name)?;
    }
}

async fn start_with_proxy(options: Options, name: &str) -> anyhow::Result<Cluster> {
    let mut cluster = Cluster::start(options.without(name)).await?;
    cluster.spawn_behind_proxy(name).await?;
    cluster.ready().await?;
    Ok(cluster)
}

async fn poison(api: &Api, more: Value) -> anyhow::Result<()> {
    let reply = api.complete(POISON, more).await?;
    ensure!(
        (reply.status, reply.body["error"]["code"].as_str()) == (500, Some("poison")),
        "{}: {}",
        reply.status,
        reply.body
    );
    Ok(())
}

#[tokio::test]
async fn an_entry_that_ends_tokenize_ends_two_instances_and_no_other_request() -> anyhow::Result<()> {
    let mut cluster = start_with_proxy(Options::echo(), "tokenize").await?;
    let api = cluster.api();
    let requests = async {
        let innocents = (0..6).map(async |number| {
            let text = format!("innocent {number}");
            let reply = api.complete(text.as_str(), json!({"max_tokens": text.len()})).await?;
            ensure!(reply.text() == text, "{}: {}", reply.status, reply.body);
            Ok(())
        });
        future::try_join(poison(&api, json!({"max_tokens": 4})), future::try_join_all(innocents)).await
    };
    let (_, deaths) = killing_for(&mut cluster, "tokenize", &poison_ids(), requests).await?;
    assert_eq!(deaths, 2);
    // Clients try again by themselves.
    let again = poison(&api, json!({"max_tokens": 4}));
    let ((), deaths) = killing_for(&mut cluster, "tokenize", &poison_ids(), again).await?;
    assert_eq!(deaths, 0);
    Ok(())
}

#[tokio::test]
async fn a_prompt_that_ends_a_shard_is_served_alone_once_and_then_refused_everywhere() -> anyhow::Result<()> {
    let mut cluster =
        start_with_proxy(Options::demo().set("shard-forward", "dtype", "f32"), "shard-forward.1").await?;
    let api = cluster.api();
    let streams = |api: Api| async move {
        let more = json!({"max_tokens": 300, "ignore_eos": true, "temperature": 1.0});
        future::try_join_all(
            (1..=4).map(|seed| api.complete("Once upon a time", merged(more.clone(), json!({"seed": seed})))),
        )
        .await
        .map(|replies| replies.iter().map(|reply| reply.text().to_owned()).collect::<Vec<_>>())
    };
    let undisturbed = streams(api.clone()).await?;
    let (other, second) = cluster.second_gateway().await?;
    let requests =
        async { future::try_join(poison(&api, json!({"max_tokens": 4})), streams(api.clone())).await };
    let (((), disturbed), deaths) =
        killing_for(&mut cluster, "shard-forward.1", &poison_ids(), requests).await?;
    assert_eq!(disturbed, undisturbed);
    assert_eq!(deaths, 3, "two in company, one alone");
    // Whatever else is asked of it, at whichever gateway, nobody serves it again.
    let started = Instant::now();
    let again = async {
        poison(&api, json!({"max_tokens": 9, "seed": 3})).await?;
        poison(&second, json!({"max_tokens": 2})).await
    };
    let ((), deaths) = killing_for(&mut cluster, "shard-forward.1", &poison_ids(), again).await?;
    assert_eq!(deaths, 0);
    ensure!(started.elapsed() < Duration::from_secs(5), "refused after {:?}", started.elapsed());
    assert_eq!(second.complete("Another one", json!({"max_tokens": 2})).await?.status, 200);
    drop(other);
    Ok(())
}
