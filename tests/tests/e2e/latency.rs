//! Nothing waits for a timer of the network stack.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Cluster, Options};

/// Nagle's algorithm meeting a delayed acknowledgement costs 40 ms; a token of the echo engine costs well under one.
const NAGLE: Duration = Duration::from_millis(40);

#[tokio::test]
async fn a_chunk_reaches_its_client_without_a_network_timer() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::echo()).await?;
    let mut gaps = Vec::new();
    for _ in 0..3 {
        let mut stream = cluster.api().stream_completion("abc", json!({"max_tokens": 64})).await?;
        let mut last = Instant::now();
        while let Some(event) = stream.next().await? {
            gaps.push(event.at.duration_since(last));
            last = event.at;
        }
    }
    gaps.sort_unstable();
    let median = gaps[gaps.len() / 2];
    println!("median time between chunks {median:?}");
    assert!(median < NAGLE / 2, "median time between chunks {median:?}");
    Ok(())
}
