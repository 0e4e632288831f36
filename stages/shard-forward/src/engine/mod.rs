//! One shard's forward pass: token ids or hidden states in, hidden states or logits out. No bus, no waiting.

mod step;

mod device;
mod plan;

mod blocks;
mod echo;

mod decoder;
mod embedding;
mod layer;
mod mlp;

mod device_rows;
mod kv;
mod ops;
mod positions;
mod record;
mod rope;
mod rows;
mod weights;

mod attention;
mod libtorch;

mod exact;

mod quantised;
mod ternary;

mod memory;
mod message;

pub use blocks::OutOfBlocks;
pub use decoder::{Decoder, EngineOptions};
pub use device::{ComputeDevice, DeviceError};
pub use echo::Echo;
pub use plan::{LayerPlan, PlanError};
pub use record::{Operation, Place, Recorder, Recording, Span};
pub use step::{Engine, Overlay, RowError, RowOutput, RowSpec, StepBatch, StepOutput};
