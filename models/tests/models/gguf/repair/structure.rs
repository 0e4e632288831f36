//! Versions, what is there twice, and what stands after the tensors.

use models::gguf::repair::{Repair, RepairError};
use models::gguf::{GgufError, TensorType, Value};

use super::super::open;
use super::{Draft, Tensor, assert_repaired, demo, folder, golden, kinds, repair};

#[test]
fn a_file_with_nothing_wrong_has_nothing_to_repair() {
    let files = std::fs::read_dir(std::path::Path::new(super::CRATE).join("goldens/gguf_converted")).unwrap();
    let mut count = 0;
    for file in files.map(|file| file.unwrap().path()) {
        assert!(Repair::plan(&file).unwrap().fixes().is_empty(), "{}", file.display());
        count += 1;
    }
    assert!(count > 15);
    assert_repaired(&demo(), &demo().bytes(), &[]);
    let vocabulary = Draft { tensors: Vec::new(), ..golden("gqa") };
    assert_repaired(&vocabulary, &vocabulary.bytes(), &[]);
    assert_repaired(&vocabulary, &vocabulary.header(), &[]);
}

#[test]
fn every_version_that_can_be_read_as_one_is_written_as_3() {
    for original in [golden("gqa"), golden("gemma3"), demo()] {
        let cases = [
            (2, false),
            (1, false),
            (0, false),
            (7, false),
            (3 << 24, false),
            (1, true),
            (2, true),
            (3, true),
            (9, true),
        ];
        for (version, short) in cases {
            let damaged = Draft { version, short, ..original.clone() };
            assert_eq!(open(&damaged.bytes()).is_ok(), version == 2 && !short);
            assert_repaired(&original, &damaged.bytes(), &["version"]);
        }
    }
    let nothing = Draft { version: 7, ..Draft::default() };
    let refused = repair(&nothing.bytes());
    assert!(matches!(refused, Err(RepairError::Gguf(GgufError::Version { version: 7, .. }))));
}

#[test]
fn a_key_that_is_there_twice_is_left_out_once_if_it_says_the_same() {
    let original = golden("gqa");
    for (key, value) in &original.entries {
        let mut damaged = original.clone();
        damaged.entries.push((key.clone(), value.clone()));
        assert!(matches!(open(&damaged.bytes()), Err(GgufError::DuplicateKey { .. })));
        assert_repaired(&original, &damaged.bytes(), &["duplicate_key"]);
        damaged.entries.last_mut().unwrap().1 = Value::U8(0);
        let refused = repair(&damaged.bytes());
        assert!(matches!(refused, Err(RepairError::KeyTwice { key: named, .. }) if named == *key));
    }
}

#[test]
fn a_tensor_that_is_there_twice_is_left_out_once_if_it_holds_the_same() {
    let original = golden("gqa");
    for tensor in &original.tensors {
        let mut damaged = original.clone();
        damaged.tensors.push(tensor.clone());
        assert!(matches!(open(&damaged.bytes()), Err(GgufError::DuplicateTensor { .. })));
        assert_repaired(&original, &damaged.bytes(), &["duplicate_tensor"]);
        damaged.tensors.last_mut().unwrap().bytes[0] ^= 1;
        let refused = repair(&damaged.bytes());
        assert!(
            matches!(refused, Err(RepairError::TensorTwice { tensor: named, .. }) if named == tensor.name)
        );
    }
}

#[test]
fn bytes_after_the_tensors_go_and_padding_comes_but_no_byte_of_a_tensor_may_be_missing() {
    for original in [golden("gqa"), golden("qwen3"), demo()] {
        let bytes = original.bytes();
        for more in [1, 31, 32, 1000] {
            let damaged = [bytes.as_slice(), &vec![9; more]].concat();
            assert_repaired(&original, &damaged, &["trailing_bytes"]);
        }
        let end = original.data_end();
        if end < bytes.len() {
            assert_repaired(&original, &bytes[..end], &["padding"]);
        }
        let refused = repair(&bytes[..end - 1]);
        assert!(matches!(refused, Err(RepairError::Gguf(GgufError::Truncated { .. }))));
    }
}

#[test]
fn missing_padding_is_added() {
    // Its last tensor is no multiple of 32 bytes.
    let mut original = golden("gqa");
    let bytes: Vec<u8> = (1..=20).collect();
    original.entries.retain(|(key, _)| !key.starts_with("llama."));
    original.entries[0] = ("general.architecture".to_owned(), Value::String("other".to_owned()));
    original.tensors.push(Tensor {
        name: "w".to_owned(),
        tensor_type: TensorType::F32,
        shape: vec![5],
        bytes,
    });
    let whole = original.bytes();
    assert_repaired(&original, &whole, &[]);
    for length in original.data_end()..whole.len() {
        assert_repaired(&original, &whole[..length], &["padding"]);
    }
}

#[test]
fn tensors_with_gaps_are_moved_together() {
    let original = golden("gqa");
    let damaged = Draft { gap: 64, ..original.clone() };
    assert_repaired(&original, &damaged.bytes(), &["places"]);
}

#[test]
fn a_wrong_number_of_tensors_is_refused() {
    for original in [golden("gqa"), golden("gemma3"), demo()] {
        for uncounted in [-1, -2] {
            let damaged = Draft { uncounted, ..original.clone() };
            assert!(matches!(repair(&damaged.bytes()), Err(RepairError::Uncounted { .. })));
        }
        for uncounted in [1, 100] {
            let damaged = Draft { uncounted, ..original.clone() };
            assert!(matches!(repair(&damaged.bytes()), Err(RepairError::Gguf(_))));
        }
    }
}

#[test]
fn several_damages_are_repaired_together() {
    let original = golden("gqa");
    let mut damaged = Draft { version: 1, short: true, follows: 64, ..original.clone() }
        .without("llama.block_count")
        .declaring(Value::U32(24));
    damaged.entries.push(damaged.entries[0].clone());
    let (fixes, found) = repair(&damaged.bytes()).unwrap();
    assert_eq!(kinds(&fixes), ["version", "duplicate_key", "alignment", "missing_key"]);
    found.assert_is(&original);
}

#[test]
fn what_is_no_gguf_a_part_of_one_or_of_a_type_without_blocks_is_refused_by_name() {
    let folder = folder();
    let refused = Repair::plan(&folder.path().join("absent.gguf"));
    assert!(matches!(refused, Err(RepairError::Gguf(GgufError::Io { .. }))));
    assert!(matches!(repair(b"GGML\x03\0\0\0"), Err(RepairError::Gguf(GgufError::NotGguf { .. }))));
    let mut part = golden("gqa");
    part.entries.push(("split.count".to_owned(), Value::U16(2)));
    assert!(matches!(repair(&part.bytes()), Err(RepairError::Split { parts: 2, .. })));
    let mut strange = golden("gqa");
    strange.tensors[0].tensor_type = TensorType::IQ2_XXS;
    let refused = repair(&strange.bytes());
    assert!(matches!(refused, Err(RepairError::Gguf(GgufError::UnreadType { .. }))));
}
