//! Split files whose parts do not belong together.

use std::path::Path;

use models::gguf::{Gguf, GgufError, TensorType, Value};

use super::write;

fn write_part(path: &Path, no: u16, count: u16, tensors: i32, name: &str) {
    let keys = [
        ("split.no", Value::U16(no)),
        ("split.count", Value::U16(count)),
        ("split.tensors.count", Value::I32(tensors)),
    ];
    write(path, &keys, &[(name, TensorType::F32, &[2, 2])]);
}

#[test]
fn a_part_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("m-00001-of-00002.gguf");
    write_part(&first, 0, 2, 2, "a");
    let missing = folder.path().join("m-00002-of-00002.gguf");
    assert!(matches!(Gguf::open(&first), Err(GgufError::Io { file, .. }) if file == missing));
}

#[test]
fn a_first_part_of_another_name_says_what_it_must_end_in() {
    let folder = tempfile::tempdir().unwrap();
    let first = folder.path().join("m.gguf");
    write_part(&first, 0, 2, 2, "a");
    let refused = Gguf::open(&first).unwrap_err();
    assert!(matches!(refused, GgufError::SplitName { ending, .. } if ending == "-00001-of-00002.gguf"));
}

#[test]
fn parts_of_other_numbers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) =
        (folder.path().join("m-00001-of-00002.gguf"), folder.path().join("m-00002-of-00002.gguf"));
    let key_of_refusal = || match Gguf::open(&first) {
        Err(GgufError::Value { key, .. }) => key,
        other => panic!("{other:?}"),
    };
    write_part(&first, 0, 2, 2, "a");
    write_part(&second, 0, 2, 2, "b");
    assert_eq!(key_of_refusal(), "split.no");
    write_part(&second, 1, 3, 2, "b");
    assert_eq!(key_of_refusal(), "split.count");
    write_part(&first, 0, 2, 3, "a");
    write_part(&second, 1, 2, 3, "b");
    assert_eq!(key_of_refusal(), "split.tensors.count");
    write_part(&first, 0, 2, 2, "a");
    write_part(&second, 1, 2, 2, "a");
    assert!(matches!(Gguf::open(&first), Err(GgufError::DuplicateTensor { tensor, .. }) if tensor == "a"));
    write_part(&second, 1, 2, 2, "b");
    assert!(Gguf::open(&first).is_ok());
}
