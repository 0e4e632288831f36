//! What must be on the bus before a pipeline can take work: its queues, the blob store and its record.

use std::time::{Duration, SystemTime};

use schemas::{Fingerprint, Role};

use crate::bus::{Bus, Queue};
use crate::graph::Pipeline;
use crate::record::{self, ImageLimits, Record};

/// Answers of one pipeline that may wait to be resumed: more than all its instances run at once.
const RESUMED_MAX: u32 = 8_192;

/// Queues and record of one pipeline. Every stage puts them there, so that any may start first, and again after the broker
/// has started anew, whose queues are in memory.
#[derive(Debug, Clone)]
pub struct Announcement {
    fp: Fingerprint,
    /// Depth of the queue of new requests at each entry.
    depths: Vec<(Role, u32)>,
    record: Record,
}

impl Announcement {
    /// What `pipeline` with fingerprint `fp` needs; `sees` says whether its model takes images.
    pub fn new(pipeline: &Pipeline, fp: Fingerprint, context_length: u32, sees: bool) -> Self {
        let stages = &pipeline.stages;
        let vision = stages.vision_encode.as_ref().filter(|_| sees);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            fp,
            depths: std::iter::once((Role::Tokenize, stages.tokenize.queue))
                .chain(vision.map(|stage| (Role::VisionEncode, stage.queue)))
                .chain([(Role::ShardForward(0), stages.shard_forward.queue)])
                .collect(),
            record: Record {
                fp: fp.to_string(),
                model: pipeline.model.clone(),
                created: now.as_secs(),
                context_length,
                shards: pipeline.shards(),
                deadline_seconds: pipeline.deadline_seconds,
                queue: stages.tokenize.queue,
                images: vision.map(|stage| ImageLimits {
                    count: stage.images,
                    pixels: stage.pixels,
                    bytes: stage.bytes,
                }),
            },
        }
    }

    /// Makes sure that all of it exists.
    pub async fn put(&self, bus: &Bus) -> anyhow::Result<()> {
        let age = Duration::from_secs(self.record.deadline_seconds);
        for &(role, depth) in &self.depths {
            bus.ensure_queue(Queue::New, self.fp, role, depth, age).await?;
            bus.ensure_queue(Queue::Resumed, self.fp, role, RESUMED_MAX, age).await?;
        }
        bus.ensure_blobs().await?;
        record::ensure(bus, self.record.clone()).await
    }

    /// Whether `role` takes its work from queues.
    pub fn has_queue(&self, role: Role) -> bool {
        self.depths.iter().any(|(entry, _)| *entry == role)
    }
}
