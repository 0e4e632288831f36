//! Files that the `gguf` package wrote: `models/goldens/gguf_files.py`, which names its version.

use std::path::{Path, PathBuf};

use models::gguf::{Array, Gguf, GgufError, GgufWriter, TensorType, Value};
use serde_json::Value as Json;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/gguf_files").join(name)
}

fn expected(name: &str) -> Json {
    let json: Json = serde_json::from_slice(&std::fs::read(golden("expected.json")).unwrap()).unwrap();
    json[name].clone()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn assert_tensors(gguf: &Gguf, expected: &Json) {
    for (name, tensor) in expected["tensors"].as_object().unwrap() {
        let shared = gguf.get_shared(name).unwrap();
        assert_eq!(shared.tensor_type.name(), tensor["type"].as_str().unwrap(), "{name}");
        assert_eq!(serde_json::json!(shared.shape), tensor["shape"], "{name}");
        assert_eq!(hex(shared.bytes()), tensor["bytes"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn every_type_is_read_as_the_package_reads_it() {
    let gguf = Gguf::open(&golden("types.gguf")).unwrap();
    let expected = expected("types.gguf");
    let keys: Vec<&str> = gguf.metadata().iter().map(|(key, _)| key).collect();
    assert_eq!(serde_json::json!(keys), expected["keys"]);
    assert_eq!(gguf.tensors().count(), expected["tensors"].as_object().unwrap().len());
    assert_tensors(&gguf, &expected);
}

#[test]
fn every_value_is_read_as_it_was_written() {
    let gguf = Gguf::open(&golden("types.gguf")).unwrap();
    let strings = ["", "a", "▁Hello", "é"].map(str::to_owned).to_vec();
    let values = [
        ("test.u8", Value::U8(200)),
        ("test.i8", Value::I8(-100)),
        ("test.u16", Value::U16(60_000)),
        ("test.i16", Value::I16(-30_000)),
        ("test.u32", Value::U32(4_000_000_000)),
        ("test.i32", Value::I32(-2_000_000_000)),
        ("test.u64", Value::U64((1 << 63) + 1)),
        ("test.i64", Value::I64(-(1 << 62))),
        ("test.f32", Value::F32(1e-5)),
        ("test.f64", Value::F64(1e-300)),
        ("test.bool", Value::Bool(true)),
        ("test.string", Value::String("grüße 🙂".to_owned())),
        ("test.strings", Value::Array(Array::String(strings.clone()))),
        ("test.floats", Value::Array(Array::F32(vec![0.5, -1.25, 3.0]))),
        ("test.integers", Value::Array(Array::I32(vec![1, -2, 3]))),
        ("test.bools", Value::Array(Array::Bool(vec![true, false, true]))),
    ];
    let metadata = gguf.metadata();
    for (key, value) in values {
        assert_eq!(metadata.get(key), Some(&value), "{key}");
    }
    assert_eq!(metadata.strings("test.strings").unwrap(), Some(strings.as_slice()));
    assert_eq!(metadata.integers("test.integers").unwrap(), Some(vec![1, -2, 3]));
    assert_eq!(metadata.floats("test.floats").unwrap(), Some([0.5, -1.25, 3.0].as_slice()));
    assert_eq!(metadata.number("test.f32").unwrap(), Some(1e-5));
    assert_eq!(metadata.whole("test.u64").unwrap(), Some((1 << 63) + 1));
    assert_eq!(metadata.u32("test.absent").unwrap(), None);
    let wrong = metadata.whole("test.i8");
    assert!(matches!(wrong, Err(GgufError::Value { key, .. }) if key == "test.i8"));
}

#[test]
fn a_split_file_is_read_whole() {
    let gguf = Gguf::open(&golden("split-00001-of-00003.gguf")).unwrap();
    assert_eq!(gguf.files().count(), 3);
    assert_eq!(gguf.tensors().count(), 5);
    for part in ["split-00001-of-00003.gguf", "split-00002-of-00003.gguf", "split-00003-of-00003.gguf"] {
        assert_tensors(&gguf, &expected(part));
        for name in expected(part)["tensors"].as_object().unwrap().keys() {
            assert_eq!(gguf.file_of(gguf.tensor(name).unwrap()), golden(part));
        }
    }
    assert_eq!(gguf.metadata().string("test.string").unwrap(), Some("grüße 🙂"));
}

#[test]
fn a_later_part_of_a_split_file_names_the_first() {
    let error = Gguf::open(&golden("split-00002-of-00003.gguf")).unwrap_err();
    let first = golden("split-00001-of-00003.gguf");
    assert!(matches!(error, GgufError::NotFirst { first: named, .. } if named == first));
}

#[test]
fn a_file_is_written_anew_to_the_same_bytes() {
    let gguf = Gguf::open(&golden("types.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.gguf");
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.metadata().iter() {
        writer.key(key, value.clone());
    }
    for tensor in gguf.tensors() {
        writer.tensor(&tensor.name, tensor.tensor_type, &tensor.shape);
    }
    let mut file = writer.create(&path).unwrap();
    for tensor in gguf.tensors() {
        assert_eq!(file.next_tensor(), Some(tensor.name.as_str()));
        // In pieces, as a converter writes.
        for piece in gguf.get_shared(&tensor.name).unwrap().bytes().chunks(7) {
            file.write(piece).unwrap();
        }
    }
    file.finish().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(golden("types.gguf")).unwrap());
}

#[test]
fn version_two_is_read_as_version_three() {
    let mut bytes = std::fs::read(golden("types.gguf")).unwrap();
    bytes[4] = 2;
    let gguf = super::open(&bytes).unwrap();
    assert_tensors(&gguf, &expected("types.gguf"));
}

#[test]
fn a_tensor_outlives_its_gguf() {
    let gguf = Gguf::open(&golden("types.gguf")).unwrap();
    let tensor = gguf.get_shared("block.Q4_0").unwrap();
    drop(gguf);
    assert_eq!((tensor.tensor_type, tensor.bytes().len()), (TensorType::Q4_0, 2 * 8 * 18));
}
