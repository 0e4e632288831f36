//! The fingerprint of a model's content: equal for equal content wherever it lies, different for any other.

use std::io;
use std::path::Path;

use blake3::Hasher;

use crate::gguf::Gguf;
use crate::mapped_file::MappedFile;
use crate::vision::{ENCODER_DATA_FILE, ENCODER_FILE};
use crate::weights::{WeightFile, Weights, WeightsError};

/// Why a folder has no fingerprint.
#[derive(Debug, thiserror::Error)]
pub enum FingerprintError {
    /// A file could not be read.
    #[error("`{file}`")]
    Io {
        /// Name of the file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The weights could not be opened.
    #[error("weights")]
    Weights(#[from] WeightsError),
}

/// Small files that decide what a model answers.
const FILES: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_templates/tool_use.jinja",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
];

/// Weights files up to this size are hashed as a whole: well under a second.
const WHOLE_BYTES_MAX: usize = 256 << 20;

/// How much of the beginning, middle and end of each tensor is hashed in larger files.
const SAMPLE_BYTES: usize = 4 << 10;

/// BLAKE3 over the files of a model folder and its weights.
///
/// Of a weights file over 256 MiB only the header and 12 KiB a tensor are read: every process of a pipeline
/// takes this hash when it starts, and reading 140 GB would take minutes and fill the page cache with layers
/// of other shards. Training changes all elements of a tensor, so samples tell two checkpoints apart; a few
/// elements patched by hand between the samples go unseen.
pub(crate) fn fingerprint(folder: &Path, weights: &Weights) -> Result<[u8; 32], FingerprintError> {
    let mut hasher = Hasher::new();
    for name in FILES {
        match std::fs::read(folder.join(name)) {
            Ok(content) => update(&mut hasher, name, &content),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(FingerprintError::Io { file: name.to_owned(), source }),
        }
    }
    for name in [ENCODER_FILE, ENCODER_DATA_FILE] {
        update_encoder(&mut hasher, folder, name)?;
    }
    for file in weights.files() {
        update_weights(&mut hasher, file);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// Adds one named part. Lengths go first, so that no two lists of parts give the same bytes.
fn update(hasher: &mut Hasher, name: &str, content: &[u8]) {
    for bytes in [name.as_bytes(), content] {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
}

/// A file of the vision encoder, when there is one: whole, or when it is large its length and samples of each MiB.
fn update_encoder(hasher: &mut Hasher, folder: &Path, name: &str) -> Result<(), FingerprintError> {
    let map = match MappedFile::open(&folder.join(name)) {
        Ok(map) => map,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(FingerprintError::Io { file: name.to_owned(), source }),
    };
    if map.len() <= WHOLE_BYTES_MAX {
        update(hasher, name, &map);
        return Ok(());
    }
    update(hasher, name, &(map.len() as u64).to_le_bytes());
    map.chunks(1 << 20).for_each(|part| update_samples(hasher, part));
    Ok(())
}

fn update_weights(hasher: &mut Hasher, file: &WeightFile) {
    if file.map.len() <= WHOLE_BYTES_MAX {
        return update(hasher, &file.name, &file.map);
    }
    let (header, data) = file.map.split_at(file.data_start);
    update(hasher, &file.name, header);
    for name in file.header.offset_keys() {
        if let Some(info) = file.header.info(&name) {
            let (start, end) = info.data_offsets;
            update_samples(hasher, &data[start..end]);
        }
    }
}

/// The fingerprint of a GGUF, whatever its file is called: headers whole, tensors as in [`fingerprint`].
pub(crate) fn gguf_fingerprint(gguf: &Gguf) -> Result<[u8; 32], FingerprintError> {
    let mut hasher = Hasher::new();
    for (header, file) in gguf.headers() {
        match file.len() <= WHOLE_BYTES_MAX {
            true => update(&mut hasher, "gguf", file),
            false => update(&mut hasher, "gguf", header),
        }
    }
    for tensor in gguf.tensors() {
        let tensor = gguf.get_shared(&tensor.name).map_err(WeightsError::from)?;
        if tensor.map.len() > WHOLE_BYTES_MAX {
            update_samples(&mut hasher, tensor.bytes());
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

fn update_samples(hasher: &mut Hasher, tensor: &[u8]) {
    if tensor.len() <= 3 * SAMPLE_BYTES {
        hasher.update(tensor);
        return;
    }
    let middle = tensor.len() / 2 - SAMPLE_BYTES / 2;
    for start in [0, middle, tensor.len() - SAMPLE_BYTES] {
        hasher.update(&tensor[start..start + SAMPLE_BYTES]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(add: impl Fn(&mut Hasher)) -> [u8; 32] {
        let mut hasher = Hasher::new();
        add(&mut hasher);
        *hasher.finalize().as_bytes()
    }

    #[test]
    fn moving_bytes_from_a_name_to_its_content_changes_the_hash() {
        assert_ne!(hash(|hasher| update(hasher, "ab", b"c")), hash(|hasher| update(hasher, "a", b"bc")));
    }

    #[test]
    fn samples_cover_both_ends_and_the_middle() {
        let tensor = vec![0u8; 1 << 20];
        let plain = hash(|hasher| update_samples(hasher, &tensor));
        for changed in [0, tensor.len() / 2, tensor.len() - 1] {
            let mut other = tensor.clone();
            other[changed] = 1;
            assert_ne!(hash(|hasher| update_samples(hasher, &other)), plain, "byte {changed}");
        }
    }
}
