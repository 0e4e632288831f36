//! Weights in one file, in shards, and in files that lie.

use std::fs;
use std::path::Path;

use models::{WeightDtype, Weights, WeightsError};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

const INDEX: &str = "model.safetensors.index.json";

/// Writes a file of tensors `[2, n]` that hold the bytes `first`, `first + 1`, ….
fn write(path: &Path, tensors: &[(&str, Dtype, u8)]) {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, dtype, first)| (0..4 * dtype.bitsize() / 8).map(|i| first + i as u8).collect())
        .collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|((name, dtype, _), data)| (*name, TensorView::new(*dtype, vec![2, 2], data).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn write_index(folder: &Path, weight_map: &serde_json::Value) {
    fs::write(folder.join(INDEX), json!({"metadata": {}, "weight_map": weight_map}).to_string()).unwrap();
}

#[test]
fn one_file_is_read_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = [("b", Dtype::F32, 0), ("a", Dtype::BF16, 40), ("c", Dtype::F16, 80)];
    write(&folder.path().join("model.safetensors"), &tensors);
    let weights = Weights::open(folder.path()).unwrap();
    assert_eq!(weights.names(), ["a", "b", "c"]);
    assert!(weights.contains("a") && !weights.contains("d"));
    let dtypes = [("b", WeightDtype::F32), ("a", WeightDtype::Bf16), ("c", WeightDtype::F16)];
    for ((name, dtype), (_, _, first)) in dtypes.into_iter().zip(tensors) {
        let weight = weights.get_shared(name).unwrap();
        assert_eq!((weight.dtype, weight.shape.as_slice()), (dtype, [2, 2].as_slice()));
        let bytes = weight.bytes();
        assert_eq!((bytes[0], bytes[bytes.len() - 1]), (first, first + bytes.len() as u8 - 1));
    }
    assert!(matches!(weights.get_shared("d"), Err(WeightsError::NotFound { name }) if name == "d"));
}

#[test]
fn a_shared_weight_outlives_its_weights_on_another_thread() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.safetensors"), &[("a", Dtype::F32, 7)]);
    let weights = Weights::open(folder.path()).unwrap();
    let shared = weights.clone().get_shared("a").unwrap();
    drop(weights);
    let bytes = std::thread::spawn(move || shared.bytes().to_vec()).join().unwrap();
    assert_eq!(bytes, (7..23).collect::<Vec<u8>>());
}

#[test]
fn shards_are_found_through_the_index() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model-1.safetensors"), &[("a", Dtype::F32, 0), ("unlisted", Dtype::F32, 1)]);
    write(&folder.path().join("model-2.safetensors"), &[("b", Dtype::F32, 100)]);
    write_index(folder.path(), &json!({"b": "model-2.safetensors", "a": "model-1.safetensors"}));
    let weights = Weights::open(folder.path()).unwrap();
    assert_eq!(weights.names(), ["a", "b"]);
    assert_eq!(weights.file_of("b"), Some("model-2.safetensors"));
    assert_eq!(weights.get_shared("b").unwrap().bytes()[0], 100);
}

#[test]
fn an_index_that_leaves_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for outside in ["../model.safetensors", "/etc/passwd", "shard/../../x", "", "."] {
        write_index(folder.path(), &json!({"a": outside}));
        let error = Weights::open(folder.path()).unwrap_err();
        assert!(
            matches!(&error, WeightsError::Outside { file, .. } if file == outside),
            "{outside}: {error}"
        );
    }
}

#[test]
fn an_index_that_promises_too_much_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model-1.safetensors"), &[("a", Dtype::F32, 0)]);
    write_index(folder.path(), &json!({"a": "model-1.safetensors", "b": "model-1.safetensors"}));
    assert!(matches!(Weights::open(folder.path()), Err(WeightsError::NotInFile { name, .. }) if name == "b"));
    write_index(folder.path(), &json!({"a": "model-2.safetensors"}));
    assert!(
        matches!(Weights::open(folder.path()), Err(WeightsError::Io { file, .. }) if file == "model-2.safetensors")
    );
    fs::write(folder.path().join(INDEX), "{}").unwrap();
    assert!(matches!(Weights::open(folder.path()), Err(WeightsError::Index { .. })));
}

#[test]
fn every_truncation_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, &[("a", Dtype::F32, 0), ("b", Dtype::F16, 0)]);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Weights::open(folder.path()).unwrap_err();
        assert!(
            matches!(&error, WeightsError::Format { file, .. } if file == "model.safetensors"),
            "{length}: {error}"
        );
    }
}

#[test]
fn hostile_headers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = |shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    for header in [
        tensor("[4611686018427387904, 4]", "[0, 16]"),
        tensor("[4]", "[16, 0]"),
        tensor("[4]", "[4, 20]"),
        tensor("[4]", "[0, 18446744073709551615]"),
        tensor("[-4]", "[0, 16]"),
        "[]".to_owned(),
        "{".repeat(1000),
    ] {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend([0; 16]);
        fs::write(folder.path().join("model.safetensors"), &file).unwrap();
        assert!(matches!(Weights::open(folder.path()), Err(WeightsError::Format { .. })), "{header}");
    }
}

#[test]
fn an_unsupported_dtype_is_refused_when_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("model.safetensors"), &[("a", Dtype::I64, 0), ("b", Dtype::F32, 0)]);
    let weights = Weights::open(folder.path()).unwrap();
    assert!(weights.get_shared("b").is_ok());
    assert!(
        matches!(weights.get_shared("a"), Err(WeightsError::Dtype { name, dtype, .. }) if name == "a" && dtype == "I64")
    );
}

#[test]
fn a_folder_without_weights_says_so() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Weights::open(folder.path()), Err(WeightsError::NoWeights { .. })));
}
