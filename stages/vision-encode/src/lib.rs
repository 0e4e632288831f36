//! Images to embeddings: decoded and cut as the model wants them, encoded in batches across requests.

pub mod decode;
pub mod patches;
pub mod pictures;
mod resample;

pub mod encoder;
pub mod runtime;

mod cache;
mod worker;

pub mod stage;

pub use stage::VisionEncode;
