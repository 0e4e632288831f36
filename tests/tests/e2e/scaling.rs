//! Several instances of a stage, several pipelines behind one gateway.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::try_join_all;
use pipelines::bus::Bus;
use pipelines::presence::Watch;
use schemas::Role;
use serde_json::json;
use tests::{Cluster, Options};

/// Whether three scheduling shards have room at both of the second shards.
fn every_scheduler_has_grants(watch: &Watch) -> bool {
    let peers = watch.peers();
    let of_role = |role| peers.all().filter(move |peer| peer.role == role);
    let granted = of_role(Role::ShardForward(1)).filter(|peer| {
        let with_room = peer.grants.iter().filter(|(_, room)| room.sequences > 0);
        with_room.count() == 3
    });
    of_role(Role::ShardForward(0)).count() == 3 && granted.count() == 2
}

#[tokio::test]
async fn shards_need_not_be_equal_in_number() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options::echo()).await?;
    cluster.spawn_replica("shard-forward.0", "shard-forward.0#2")?;
    cluster.spawn_replica("shard-forward.0", "shard-forward.0#3")?;
    cluster.spawn_replica("shard-forward.1", "shard-forward.1#2")?;
    cluster.spawn_replica("sample", "sample#2")?;
    let bus = Bus::connect(&cluster.nats.url(), "test").await?;
    let watch = Watch::start(&bus).await?;
    let all_there = async {
        while !every_scheduler_has_grants(&watch) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_there).await?;
    let api = cluster.api();
    let asks = (0..48usize).map(|client| {
        let api = api.clone();
        async move {
            let prompt = format!("{client}|");
            let reply = api.complete(prompt.as_str(), json!({"max_tokens": 10 * prompt.len()})).await?;
            assert_eq!(reply.text(), prompt.repeat(10));
            anyhow::Ok(())
        }
    });
    try_join_all(asks).await?;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let granted_too_much: Vec<_> = watch
        .peers()
        .all()
        .filter(|peer| {
            let granted: u32 = peer.grants.iter().map(|(_, room)| room.sequences).sum();
            granted > peer.capacity.sequences
        })
        .map(|peer| peer.role)
        .collect();
    assert!(granted_too_much.is_empty(), "{granted_too_much:?}");
    let busy = watch.peers().all().filter(|peer| peer.role == Role::ShardForward(0) && peer.done > 0).count();
    assert!(busy > 1, "{busy} of three scheduling shards had work");
    Ok(())
}

#[tokio::test]
async fn a_second_model_is_a_second_pipeline_beside_the_first() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo()).await?;
    let mut second = Options::echo();
    second.overrides.model = Some("second".into());
    let second = Cluster::beside(&cluster, second).await?;
    let listed = cluster.api().get("/v1/models").await?;
    let ids: BTreeSet<&str> =
        listed.body["data"].as_array().unwrap().iter().filter_map(|model| model["id"].as_str()).collect();
    assert_eq!(ids, ["second", "tokenway-echo"].into());
    let api = tests::Api::new(&cluster.url(), &second.model);
    assert_eq!(api.complete("abc", json!({"max_tokens": 3})).await?.text(), "abc");
    assert_eq!(cluster.api().complete("xyz", json!({"max_tokens": 3})).await?.text(), "xyz");
    Ok(())
}
