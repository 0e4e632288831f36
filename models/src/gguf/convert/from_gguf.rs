//! The plan of a GGUF that is written again, in other types.

use super::plan::{Change, Content, Plan, PlannedTensor};
use crate::gguf::{Gguf, GgufError};

/// Keys that say how the tensors are stored, and over how many files.
const OF_STORAGE: [&str; 5] =
    ["general.file_type", "general.quantization_version", "split.no", "split.count", "split.tensors.count"];

impl Plan {
    /// The plan of a GGUF: its keys and tensors, whatever its architecture. A tensor of blocks that are not known is refused.
    pub fn of_gguf(gguf: &Gguf) -> Result<Self, GgufError> {
        let kept = gguf.metadata().iter().filter(|(key, _)| !OF_STORAGE.contains(key));
        let metadata = kept.map(|(key, value)| (key.to_owned(), value.clone())).collect();
        let tensor = |name: &str| {
            let stored = gguf.get_shared(name)?;
            let shape = stored.shape.clone();
            let content = Content::Stored { parts: vec![stored], change: Change::Nothing };
            Ok(PlannedTensor { name: name.to_owned(), shape, content })
        };
        let tensors = gguf.tensors().map(|info| tensor(&info.name)).collect::<Result<_, GgufError>>()?;
        Ok(Self { metadata, tensors })
    }
}
