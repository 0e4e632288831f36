//! Tests of GGUF files.

mod config;
mod convert;
mod converted;
mod goldens;
mod hostile;
mod repair;
mod split;
mod writer;

use std::path::Path;

use models::gguf::{Gguf, GgufWriter, TensorType, Value};

/// Writes a GGUF of these keys, and of tensors of zeros.
fn write(path: &Path, keys: &[(&str, Value)], tensors: &[(&str, TensorType, &[usize])]) {
    let mut writer = GgufWriter::new();
    for (key, value) in keys {
        writer.key(*key, value.clone());
    }
    for (name, tensor_type, shape) in tensors {
        writer.tensor(*name, *tensor_type, shape);
    }
    let mut file = writer.create(path).unwrap();
    for (_, tensor_type, shape) in tensors {
        file.write(&vec![0; tensor_type.bytes(shape).unwrap()]).unwrap();
    }
    file.finish().unwrap();
}

/// Opens a file of these bytes.
fn open(bytes: &[u8]) -> Result<Gguf, models::gguf::GgufError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    Gguf::open(&path)
}
