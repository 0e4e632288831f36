//! The blob store: what is deleted, and when.

use std::time::Duration;

use bytes::Bytes;
use pipelines::bus::Bus;
use pipelines::owned::Owned;
use schemas::request::BlobRef;
use tests::cluster::Nats;

fn blob(owner: u128, bytes: usize) -> (BlobRef, Bytes) {
    let mut owned = Owned::new(owner, 0, bytes);
    owned.content().resize(bytes, owner as u8);
    owned.into_blob()
}

async fn bus(folder: &tempfile::TempDir) -> anyhow::Result<(Nats, Bus)> {
    let nats = Nats::start(folder.path(), None)?;
    let bus = Bus::connect(&nats.url(), "test").await?;
    Ok((nats, bus))
}

#[tokio::test]
async fn a_blob_that_is_deleted_while_it_is_read_hangs_nobody() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_nats, bus) = bus(&folder).await?;
    let mut cut_short = 0;
    for round in 0..12_u64 {
        let (name, content) = blob(round.into(), 24 << 20);
        bus.store(name, &content).await.map_err(|failure| anyhow::anyhow!("{failure}"))?;
        let deleting = async {
            tokio::time::sleep(Duration::from_millis(2 * round)).await;
            bus.delete(name).await
        };
        let both = async { tokio::try_join!(bus.fetch(name), deleting) };
        let (fetched, ()) = tokio::time::timeout(Duration::from_secs(5), both).await??;
        cut_short += u32::from(fetched.is_none());
        assert!(fetched.is_none_or(|fetched| fetched == content), "round {round}");
    }
    assert!(cut_short > 0, "no deletion met a read");
    Ok(())
}

/// A broker has at most 1,000 consumers on a stream, and forgets an abandoned one after half a minute.
#[tokio::test]
async fn blobs_are_read_as_often_as_anyone_likes() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_nats, bus) = bus(&folder).await?;
    let (name, content) = blob(7, 300 << 10);
    bus.store(name, &content).await.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    for read in 0..1100 {
        assert_eq!(bus.fetch(name).await?.as_ref(), Some(&content), "read {read}");
    }
    Ok(())
}

#[tokio::test]
async fn what_was_deleted_can_be_stored_again() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (_nats, bus) = bus(&folder).await?;
    let (name, content) = blob(7, 1000);
    for _ in 0..2 {
        bus.store(name, &content).await.map_err(|failure| anyhow::anyhow!("{failure}"))?;
        assert_eq!(bus.fetch(name).await?, Some(content.clone()));
        bus.delete(name).await?;
        assert_eq!(bus.fetch(name).await?, None);
        bus.delete(name).await?;
    }
    Ok(())
}
