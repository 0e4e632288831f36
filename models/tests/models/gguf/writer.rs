//! Writing, and what is not written.

use std::fs;

use models::gguf::{Gguf, GgufError, GgufWriter, TensorType, Value};

#[test]
fn an_interrupted_write_leaves_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, b"before").unwrap();
    let mut writer = GgufWriter::new();
    writer.tensor("a", TensorType::F32, &[8]);
    let mut file = writer.create(&path).unwrap();
    file.write(&[1; 8]).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    drop(file);
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_tensor_of_other_length_than_announced_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let announced = || {
        let mut writer = GgufWriter::new();
        writer.tensor("a", TensorType::F32, &[8]).tensor("b", TensorType::F32, &[1]);
        writer.create(&path).unwrap()
    };
    let mut file = announced();
    let refused = file.write(&[0; 33]).unwrap_err();
    assert!(matches!(refused, GgufError::Written { tensor, written: 33, expected: 32, .. } if tensor == "a"));
    file.write(&[0; 32]).unwrap();
    assert_eq!(file.next_tensor(), Some("b"));
    file.write(&[0; 2]).unwrap();
    let refused = file.finish().unwrap_err();
    assert!(matches!(refused, GgufError::Written { tensor, written: 2, expected: 4, .. } if tensor == "b"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let mut file = announced();
    file.write(&[0; 32]).unwrap();
    file.write(&[0; 4]).unwrap();
    assert_eq!(file.next_tensor(), None);
    assert!(matches!(file.write(&[0]), Err(GgufError::Written { .. })));
}

#[test]
fn what_no_reader_takes_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let refused = |fill: fn(&mut GgufWriter) -> &mut GgufWriter| {
        let mut writer = GgufWriter::new();
        fill(&mut writer);
        writer.create(&path).unwrap_err()
    };
    let error = refused(|writer| writer.key("k", Value::U8(1)).key("k", Value::U8(2)));
    assert!(matches!(error, GgufError::DuplicateKey { .. }));
    assert!(matches!(refused(|writer| writer.key("", Value::U8(1))), GgufError::EmptyKey { .. }));
    let error = refused(|writer| writer.key("general.alignment", Value::U32(24)));
    assert!(matches!(error, GgufError::Value { .. }));
    let error =
        refused(|writer| writer.tensor("a", TensorType::F32, &[1]).tensor("a", TensorType::F32, &[1]));
    assert!(matches!(error, GgufError::DuplicateTensor { .. }));
    let shapes: [fn(&mut GgufWriter) -> &mut GgufWriter; 5] = [
        |writer| writer.tensor("a", TensorType::F32, &[]),
        |writer| writer.tensor("a", TensorType::F32, &[1; 5]),
        |writer| writer.tensor("a", TensorType::F32, &[2, 0]),
        |writer| writer.tensor("a", TensorType::Q8_0, &[32, 33]),
        |writer| writer.tensor("a", TensorType::F32, &[usize::MAX, usize::MAX]),
    ];
    for shape in shapes {
        assert!(matches!(refused(shape), GgufError::Shape { .. }));
    }
    let error = refused(|writer| writer.tensor("a", TensorType::IQ1_S, &[256]));
    assert!(matches!(error, GgufError::UnreadType { .. }));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn another_alignment_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let keys = [("general.alignment", Value::U32(4096))];
    super::write(&path, &keys, &[("a", TensorType::I8, &[3]), ("b", TensorType::I8, &[3])]);
    assert_eq!(fs::metadata(&path).unwrap().len(), 3 * 4096);
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.get_shared("b").unwrap().range, 2 * 4096..2 * 4096 + 3);
}

#[test]
fn a_file_of_nothing_is_read_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    super::write(&path, &[], &[]);
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!((gguf.metadata().iter().count(), gguf.tensors().count()), (0, 0));
}
