//! Looking at a GGUF.

use std::path::Path;

use models::gguf::{Gguf, TensorInfo, Vocabulary, read_config};

use super::{Checkpoint, Facts, Format, Tensor, damaged, metadata, one_line};

/// Reads a file, and the other parts of a split one.
pub fn read(path: &Path) -> anyhow::Result<Checkpoint> {
    let gguf = Gguf::open(path).map_err(damaged)?;
    let mut facts = Facts::of_gguf(gguf.metadata());
    let refusal = match read_config(&gguf) {
        Ok(config) => {
            facts.fill(&config);
            refusal_of_the_rest(&gguf)
        }
        Err(error) => Some(one_line(error)),
    };
    Ok(Checkpoint {
        path: path.to_owned(),
        format: Format::Gguf,
        facts,
        metadata: metadata::of_gguf(gguf.metadata()),
        tensors: gguf.tensors().map(tensor).collect(),
        file_bytes: gguf.files().map(|(_, map)| map.len() as u64).sum(),
        refusal,
    })
}

/// What, after the configuration, would keep the model from being served.
fn refusal_of_the_rest(gguf: &Gguf) -> Option<String> {
    if let Some(unread) = gguf.tensors().find(|tensor| tensor.tensor_type.block().is_none()) {
        return gguf.get_shared(&unread.name).err().map(one_line);
    }
    Vocabulary::read(gguf).err().map(one_line)
}

fn tensor(info: &TensorInfo) -> Tensor {
    Tensor {
        name: info.name.clone(),
        type_name: info.tensor_type.to_string(),
        shape: info.shape.clone(),
        bytes: info.tensor_type.bytes(&info.shape).map(|bytes| bytes as u64),
    }
}
