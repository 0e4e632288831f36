//! Files that lie. A plan is made or refused, whatever the bytes, and what is written can be read.

use models::gguf::repair::{Repair, RepairError};
use models::gguf::{Array, GgufError, TensorType, Value};

use super::super::open;
use super::{Draft, Tensor, folder, repair};

/// A file with something of everything, of few bytes.
fn small() -> Draft {
    let text = |text: &str| Value::String(text.to_owned());
    let tensor = |name: &str, tensor_type: TensorType, shape: &[usize]| {
        let bytes = tensor_type.bytes(shape).unwrap();
        let bytes = (0..bytes).map(|i| i as u8 | 1).collect();
        Tensor { name: name.to_owned(), tensor_type, shape: shape.to_vec(), bytes }
    };
    let entries = vec![
        ("general.architecture".to_owned(), text("test")),
        ("general.alignment".to_owned(), Value::U32(32)),
        ("strings".to_owned(), Value::Array(Array::String(vec!["a".to_owned(), String::new()]))),
        ("floats".to_owned(), Value::Array(Array::F32(vec![0.5; 3]))),
        ("bools".to_owned(), Value::Array(Array::Bool(vec![false, true]))),
        ("number".to_owned(), Value::U64(7)),
    ];
    let tensors = vec![
        tensor("a", TensorType::F32, &[2, 3]),
        tensor("b", TensorType::Q8_0, &[32]),
        tensor("c", TensorType::F16, &[3]),
    ];
    Draft { entries, tensors, ..Draft::default() }
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    for (short, version) in [(false, 3), (false, 9), (true, 1)] {
        let draft = Draft { short, version, ..small() };
        let bytes = draft.bytes();
        for length in 0..draft.data_end() {
            assert!(repair(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
        }
        for length in draft.data_end()..bytes.len() {
            repair(&bytes[..length]).unwrap().1.assert_is(&small());
        }
    }
}

#[test]
fn every_byte_of_a_header_may_be_any_other() {
    let folder = folder();
    let (from, to) = (folder.path().join("from.gguf"), folder.path().join("to.gguf"));
    let mut written = 0;
    for short in [false, true] {
        let draft = Draft { short, ..small() };
        let bytes = draft.bytes();
        for place in 0..draft.header().len() {
            for byte in 0..=u8::MAX {
                let mut corrupted = bytes.clone();
                corrupted[place] = byte;
                std::fs::write(&from, &corrupted).unwrap();
                let Ok(repair) = Repair::plan(&from) else { continue };
                if repair.fixes().is_empty() {
                    // The reader is of the same opinion.
                    assert!(open(&corrupted).is_ok(), "{place}: {byte}");
                    continue;
                }
                let tensors = repair.tensors();
                repair.write(&to, |_| {}).unwrap();
                assert_eq!(models::gguf::Gguf::open(&to).unwrap().tensors().count(), tensors);
                written += 1;
            }
        }
    }
    assert!(written > 100, "{written}");
}

#[test]
fn numbers_beyond_the_file_are_refused_before_memory_is_set_aside() {
    for short in [false, true] {
        let width = if short { 4 } else { 8 };
        let bytes = Draft { short, ..small() }.bytes();
        // The number of tensors, that of keys, and the length of the first key.
        for place in [8, 8 + width, 8 + 2 * width] {
            for number in [u64::MAX, u64::from(u32::MAX), 1 << 31, 1 << 20] {
                let mut corrupted = bytes.clone();
                corrupted[place..place + width].copy_from_slice(&number.to_le_bytes()[..width]);
                let refused = repair(&corrupted);
                assert!(matches!(refused, Err(RepairError::Gguf(_))), "{place}: {number}");
            }
        }
    }
}

#[test]
fn many_tensors_of_one_name_are_not_compared_for_longer_than_the_file_is() {
    let mut draft = small();
    let (name, shape) = ("w".to_owned(), vec![1 << 16]);
    let bytes = vec![5; 1 << 16];
    draft.tensors = vec![Tensor { name, tensor_type: TensorType::I8, shape, bytes }];
    let header = draft.header();
    // Where the tensor is announced: its name's length and letter, dimensions, size, type and offset.
    let info = header.len() - (8 + 1 + 4 + 8 + 4 + 8);
    let mut hostile = header[..info].to_vec();
    for i in 0..20_000_u64 {
        hostile.extend(&header[info..header.len() - 8]);
        hostile.extend((32 * (i % 1000)).to_le_bytes());
    }
    hostile[8..16].copy_from_slice(&20_000_u64.to_le_bytes());
    hostile.resize(hostile.len().next_multiple_of(32), 0);
    hostile.resize(hostile.len() + 32 * 999 + (1 << 16), 5);
    let refused = repair(&hostile);
    assert!(matches!(refused, Err(RepairError::TensorTwice { .. })), "{:?}", refused.err());
}

#[test]
fn an_empty_key_is_refused() {
    let mut draft = small();
    draft.entries.push((String::new(), Value::U32(1)));
    assert!(matches!(repair(&draft.bytes()), Err(RepairError::Gguf(GgufError::EmptyKey { .. }))));
}
