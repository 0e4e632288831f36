//! Tensors that are not where `general.alignment` has them.

use models::gguf::GgufError;
use models::gguf::Value;
use models::gguf::repair::RepairError;

use super::super::open;
use super::{Draft, assert_repaired, demo, golden, kinds, repair};

/// Values of `general.alignment`, right and wrong; none is 32.
fn declared() -> Vec<Option<Value>> {
    let mut declared: Vec<Option<Value>> =
        [0, 1, 3, 8, 16, 32, 33, 48, 64, 128, 4096, u32::MAX].map(|n| Some(Value::U32(n))).into();
    declared.push(None);
    declared.push(Some(Value::U64(32)));
    declared.push(Some(Value::U64(1 << 60)));
    declared.push(Some(Value::String("32".to_owned())));
    declared
}

/// Headers of all lengths, up to a multiple of 64.
fn with_header_of(original: &Draft, more: usize) -> Draft {
    let mut draft = original.clone();
    draft.entries.push(("general.description".to_owned(), Value::String("x".repeat(more))));
    draft
}

#[test]
fn tensors_are_found_whatever_the_alignment_says() {
    let (mut found, mut refused_by_reader) = (0, 0);
    for more in (0..64).step_by(5) {
        let original = with_header_of(&golden("gqa"), more);
        for alignment in declared() {
            for follows in [8, 16, 32, 48, 64, 128, 1024] {
                let mut damaged = Draft { follows, ..original.clone() };
                damaged
                    .entries
                    .extend(alignment.clone().map(|value| ("general.alignment".to_owned(), value)));
                let bytes = damaged.bytes();
                let (fixes, repaired) = match repair(&bytes) {
                    Ok(repaired) => repaired,
                    // Which is looked for only where the file says so.
                    Err(RepairError::Alignment { .. } | RepairError::Gguf(_))
                        if follows == 48 && alignment != Some(Value::U32(48)) =>
                    {
                        continue;
                    }
                    Err(error) => panic!("{alignment:?}, follows {follows}, {more} more: {error}"),
                };
                repaired.assert_is(&original);
                let is_whole = open(&bytes).is_ok_and(|gguf| Draft::of(&gguf).tensors == original.tensors);
                assert!(is_whole || kinds(&fixes) == ["alignment"], "{alignment:?}, {follows}: {fixes:?}");
                found += 1;
                refused_by_reader += usize::from(open(&bytes).is_err());
            }
        }
    }
    assert!(found >= 13 * 16 * 6 && refused_by_reader > found / 3, "{refused_by_reader} of {found}");
}

#[test]
fn the_demo_model_is_found_at_another_alignment() {
    let original = demo();
    for (alignment, follows) in [(Value::U32(32), 128), (Value::U32(128), 32), (Value::U32(33), 32)] {
        let damaged = Draft { follows, ..original.clone() }.declaring(alignment);
        assert_repaired(&original, &damaged.bytes(), &["alignment"]);
    }
}

#[test]
fn a_file_that_is_cut_short_is_never_taken_for_one_of_another_alignment() {
    for more in (0..64).step_by(5) {
        for alignment in [None, Some(64_u32), Some(33), Some(0)] {
            let follows = if alignment == Some(64) { 64 } else { 32 };
            let mut whole = Draft { follows, ..with_header_of(&golden("gqa"), more) };
            if let Some(alignment) = alignment {
                whole = whole.declaring(Value::U32(alignment));
            }
            let (bytes, end) = (whole.bytes(), whole.data_end());
            for missing in 1..200 {
                let error = repair(&bytes[..end - missing]).err().unwrap();
                let named = matches!(
                    error,
                    RepairError::Gguf(GgufError::Truncated { .. }) | RepairError::Alignment { .. }
                );
                assert!(named, "{alignment:?}, {missing} missing: {error}");
            }
        }
    }
}

#[test]
fn an_alignment_that_nothing_tells_is_refused() {
    // What stands after the tensor hides where it ends, and one tensor is at a multiple of anything.
    let mut one = golden("gqa");
    one.tensors.truncate(1);
    let mut bytes = one.declaring(Value::U32(33)).bytes();
    bytes.extend([7; 5000]);
    assert!(matches!(repair(&bytes), Err(RepairError::Alignment { .. })));
}
