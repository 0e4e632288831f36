//! Keys and tensors that are there twice.

use std::collections::HashMap;
use std::path::Path;

use super::error::RepairError;
use super::fix::Fix;
use crate::gguf::tensors::TensorInfo;
use crate::gguf::value::{Array, Value};

/// Leaves out keys that have a value already, if it is the same one.
pub(super) fn drop_keys(
    file: &Path,
    entries: Vec<(String, Value)>,
    fixes: &mut Vec<Fix>,
) -> Result<Vec<(String, Value)>, RepairError> {
    let mut kept: Vec<(String, Value)> = Vec::with_capacity(entries.len());
    let mut places: HashMap<String, usize> = HashMap::with_capacity(entries.len());
    for (key, value) in entries {
        match places.get(&key) {
            Some(first) if is_same(&kept[*first].1, &value) => fixes.push(Fix::KeyTwice { key }),
            Some(_) => return Err(RepairError::KeyTwice { file: file.to_owned(), key }),
            None => {
                places.insert(key.clone(), kept.len());
                kept.push((key, value));
            }
        }
    }
    Ok(kept)
}

/// Bit for bit: NaN is the same as itself.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
        (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        (Value::Array(Array::F32(a)), Value::Array(Array::F32(b))) => {
            a.iter().map(|number| number.to_bits()).eq(b.iter().map(|number| number.to_bits()))
        }
        (Value::Array(Array::F64(a)), Value::Array(Array::F64(b))) => {
            a.iter().map(|number| number.to_bits()).eq(b.iter().map(|number| number.to_bits()))
        }
        _ => a == b,
    }
}

/// Leaves out tensors that are there already with the same type, shape and bytes. `bytes`: of the file.
pub(super) fn drop_tensors(
    file: &Path,
    bytes: &[u8],
    tensors: Vec<TensorInfo>,
    fixes: &mut Vec<Fix>,
) -> Result<Vec<TensorInfo>, RepairError> {
    let mut kept: Vec<TensorInfo> = Vec::with_capacity(tensors.len());
    let mut places: HashMap<String, usize> = HashMap::with_capacity(tensors.len());
    // Tensors that share no bytes are not larger than the file together; those of a hostile file may be.
    let mut compared_max = bytes.len();
    for tensor in tensors {
        let Some(first) = places.get(&tensor.name).map(|first| &kept[*first]) else {
            places.insert(tensor.name.clone(), kept.len());
            kept.push(tensor);
            continue;
        };
        let alike = (first.tensor_type, &first.shape) == (tensor.tensor_type, &tensor.shape);
        let mut is_same = || match compared_max.checked_sub(tensor.range.len()) {
            _ if first.range == tensor.range => true,
            Some(left) => {
                compared_max = left;
                bytes[first.range.clone()] == bytes[tensor.range.clone()]
            }
            None => false,
        };
        if !alike || !is_same() {
            return Err(RepairError::TensorTwice { file: file.to_owned(), tensor: tensor.name });
        }
        fixes.push(Fix::TensorTwice { tensor: tensor.name });
    }
    Ok(kept)
}
