//! Files that lie. Opening must give an error or a value, whatever the bytes.

use models::gguf::{Gguf, GgufError, TensorType, Value};

use super::open;

const F32: u32 = 0;

/// A file that is put together field by field, right or wrong.
#[derive(Clone)]
struct Draft {
    version: u32,
    tensor_count: u64,
    key_count: u64,
    body: Vec<u8>,
    data: usize,
}

impl Draft {
    fn new() -> Self {
        Self { version: 3, tensor_count: 0, key_count: 0, body: Vec::new(), data: 0 }
    }

    /// A key with the bytes of its type and value.
    fn key(mut self, key: &[u8], type_id: u32, value: &[u8]) -> Self {
        self.key_count += 1;
        self.string(key);
        self.body.extend(type_id.to_le_bytes());
        self.body.extend(value);
        self
    }

    /// A tensor; `shape` is innermost first, as in the file.
    fn tensor(mut self, name: &[u8], shape: &[u64], type_id: u32, offset: u64) -> Self {
        self.tensor_count += 1;
        self.string(name);
        self.body.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|size| self.body.extend(size.to_le_bytes()));
        self.body.extend(type_id.to_le_bytes());
        self.body.extend(offset.to_le_bytes());
        self
    }

    /// How many bytes follow the header and its padding.
    fn data(mut self, bytes: usize) -> Self {
        self.data = bytes;
        self
    }

    fn string(&mut self, text: &[u8]) {
        self.body.extend((text.len() as u64).to_le_bytes());
        self.body.extend(text);
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensor_count.to_le_bytes());
        bytes.extend(self.key_count.to_le_bytes());
        bytes.extend(&self.body);
        bytes.resize(bytes.len().next_multiple_of(32) + self.data, 7);
        bytes
    }

    fn open(&self) -> Result<Gguf, GgufError> {
        open(&self.bytes())
    }

    fn refused(&self) -> GgufError {
        self.open().unwrap_err()
    }
}

/// An array's type, count and bytes.
fn array(type_id: u32, count: u64, bytes: &[u8]) -> Vec<u8> {
    [&type_id.to_le_bytes()[..], &count.to_le_bytes(), bytes].concat()
}

/// A file with something of everything.
fn small() -> Vec<u8> {
    let strings = [&1_u64.to_le_bytes()[..], b"a", &0_u64.to_le_bytes()].concat();
    Draft::new()
        .key(b"general.architecture", 8, &[&4_u64.to_le_bytes()[..], b"test"].concat())
        .key(b"general.alignment", 4, &32_u32.to_le_bytes())
        .key(b"strings", 9, &array(8, 2, &strings))
        .key(b"floats", 9, &array(6, 3, &[0; 12]))
        .key(b"bools", 9, &array(7, 2, &[0, 1]))
        .key(b"number", 10, &7_u64.to_le_bytes())
        .tensor(b"a", &[3, 2], F32, 0)
        .tensor(b"b", &[32], TensorType::Q8_0.id(), 32)
        .data(32 + 34)
        .bytes()
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let bytes = small();
    assert_eq!(open(&bytes).unwrap().tensors().count(), 2);
    for length in 0..bytes.len() {
        let error = open(&bytes[..length]).unwrap_err();
        let named = matches!(error, GgufError::Truncated { .. } | GgufError::NotGguf { .. });
        assert!(named, "{length}: {error}");
    }
}

#[test]
fn every_corrupted_byte_gives_an_error_or_a_value() {
    let bytes = small();
    for place in 0..bytes.len() - 66 {
        for byte in 0..=u8::MAX {
            let mut corrupted = bytes.clone();
            corrupted[place] = byte;
            let Ok(gguf) = open_mapped(&corrupted) else { continue };
            for tensor in gguf.tensors() {
                if let Ok(shared) = gguf.get_shared(&tensor.name) {
                    assert!(shared.range.end <= corrupted.len() && !shared.bytes().is_empty());
                }
            }
        }
    }
}

/// In memory where that is a file system, since there are many.
fn open_mapped(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let folder = std::path::Path::new("/dev/shm");
    let file = match folder.is_dir() {
        true => tempfile::NamedTempFile::new_in(folder).unwrap(),
        false => tempfile::NamedTempFile::new().unwrap(),
    };
    std::fs::write(file.path(), bytes).unwrap();
    Gguf::open(file.path())
}

#[test]
fn what_is_no_gguf_is_said_to_be_none() {
    for bytes in [&b""[..], b"GGU", b"GGML\x03\0\0\0", b"\x08\0\0\0\0\0\0\0{}"] {
        assert!(matches!(open(bytes), Err(GgufError::NotGguf { .. })));
    }
}

#[test]
fn other_versions_and_the_other_byte_order_are_named() {
    for version in [0, 1, 4, 5, u32::MAX] {
        let refused = Draft { version, ..Draft::new() }.refused();
        assert!(matches!(refused, GgufError::Version { version: named, .. } if named == version));
    }
    let refused = Draft { version: 3_u32.swap_bytes(), ..Draft::new() }.refused();
    assert!(matches!(refused, GgufError::BigEndian { .. }));
}

#[test]
fn counts_and_lengths_beyond_the_file_are_refused_before_memory_is_set_aside() {
    let huge = [u64::MAX, u64::MAX / 8, 1 << 40, 1 << 20];
    for count in huge {
        let drafts = [
            Draft { tensor_count: count, ..Draft::new() },
            Draft { key_count: count, ..Draft::new() },
            Draft::new().key(b"k", 8, &count.to_le_bytes()),
        ];
        let arrays = [0, 3, 4, 6, 7, 8, 10, 12].map(|id| Draft::new().key(b"k", 9, &array(id, count, b"")));
        for draft in drafts.into_iter().chain(arrays) {
            assert!(matches!(draft.refused(), GgufError::Truncated { .. }));
        }
    }
}

#[test]
fn keys_that_are_empty_or_there_twice_are_refused() {
    assert!(matches!(Draft::new().key(b"", 0, &[1]).refused(), GgufError::EmptyKey { .. }));
    let twice = Draft::new().key(b"k", 0, &[1]).key(b"l", 0, &[1]).key(b"k", 1, &[1]);
    assert!(matches!(twice.refused(), GgufError::DuplicateKey { key, .. } if key == "k"));
}

#[test]
fn values_of_no_type_are_refused() {
    let refused = Draft::new().key(b"k", 13, &[0; 8]).refused();
    assert!(matches!(refused, GgufError::ValueType { id: 13, .. }));
    let refused = Draft::new().key(b"k", 9, &array(99, 0, b"")).refused();
    assert!(matches!(refused, GgufError::ValueType { id: 99, .. }));
    let nested = array(9, 1, &array(0, 1, &[1]));
    assert!(matches!(Draft::new().key(b"k", 9, &nested).refused(), GgufError::NestedArray { .. }));
    assert!(matches!(Draft::new().key(b"k", 7, &[2]).refused(), GgufError::Bool { byte: 2, .. }));
    let refused = Draft::new().key(b"k", 8, &[&1_u64.to_le_bytes()[..], &[0xff]].concat()).refused();
    assert!(matches!(refused, GgufError::Utf8 { object, .. } if object == "`k`"));
    assert!(matches!(Draft::new().key(&[0xff], 0, &[1]).refused(), GgufError::Utf8 { .. }));
}

#[test]
fn an_alignment_that_is_no_power_of_two_is_refused() {
    for alignment in [0_u32, 3, 33, u32::MAX] {
        let draft = Draft::new().key(b"general.alignment", 4, &alignment.to_le_bytes());
        assert!(matches!(draft.refused(), GgufError::Value { key, .. } if key == "general.alignment"));
    }
    let draft = Draft::new().key(b"general.alignment", 10, &32_u64.to_le_bytes());
    assert!(matches!(draft.refused(), GgufError::Value { .. }));
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let shapes: [&[u64]; 6] = [&[], &[1; 5], &[0], &[3, 0], &[u64::MAX, 2], &[1 << 32, 1 << 32]];
    for shape in shapes {
        let draft = Draft::new().tensor(b"t", shape, F32, 0).data(64);
        assert!(matches!(draft.refused(), GgufError::Shape { tensor, .. } if tensor == "t"), "{shape:?}");
    }
    let row = Draft::new().tensor(b"t", &[33, 32], TensorType::Q8_0.id(), 0).data(4096);
    assert!(matches!(row.refused(), GgufError::Shape { .. }));
}

#[test]
fn tensors_outside_of_the_file_are_refused() {
    for (size, offset) in [(17, 0), (16, 32), (1, 64), (1, 1 << 40), (1, u64::MAX - 31), (1 << 40, 0)] {
        let draft = Draft::new().tensor(b"t", &[size], F32, offset).data(64);
        assert!(matches!(draft.refused(), GgufError::Truncated { object, .. } if object == "tensor `t`"));
    }
    let draft = Draft::new().tensor(b"t", &[1], F32, 4).data(64);
    assert!(matches!(draft.refused(), GgufError::Misaligned { offset: 4, alignment: 32, .. }));
}

#[test]
fn tensors_that_share_bytes_or_a_name_are_refused() {
    let overlapping = Draft::new().tensor(b"b", &[8], F32, 32).tensor(b"a", &[9], F32, 0).data(64);
    let refused = overlapping.refused();
    assert!(matches!(refused, GgufError::Overlap { first, second, .. } if first == "a" && second == "b"));
    let twice = Draft::new().tensor(b"a", &[8], F32, 32).tensor(b"a", &[8], F32, 0).data(64);
    assert!(matches!(twice.refused(), GgufError::DuplicateTensor { tensor, .. } if tensor == "a"));
}

#[test]
fn tensors_in_any_order_and_with_gaps_are_read() {
    let gguf = Draft::new().tensor(b"b", &[8], F32, 96).tensor(b"a", &[8], F32, 0).data(128).open().unwrap();
    assert_eq!(gguf.tensors().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(gguf.get_shared("b").unwrap().bytes(), [7; 32]);
}

#[test]
fn types_are_refused_by_number_or_by_name() {
    let refused = Draft::new().tensor(b"t", &[256], 77, 0).data(256).refused();
    assert!(matches!(refused, GgufError::UnknownType { id: 77, .. }));
    let gguf = Draft::new().tensor(b"t", &[256], TensorType::IQ2_XXS.id(), 0).data(256).open().unwrap();
    assert_eq!(gguf.tensor("t").unwrap().tensor_type, TensorType::IQ2_XXS);
    let refused = gguf.get_shared("t").unwrap_err();
    assert!(matches!(refused, GgufError::UnreadType { tensor_type: TensorType::IQ2_XXS, .. }));
    assert!(matches!(gguf.get_shared("u"), Err(GgufError::NotFound { tensor, .. }) if tensor == "u"));
}

#[test]
fn a_long_text_is_not_repeated_in_an_error() {
    let text = "x".repeat(100_000);
    let value = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat();
    let gguf = Draft::new().key(b"k", 8, &value).open().unwrap();
    assert!(gguf.metadata().whole("k").unwrap_err().to_string().len() < 300);
    assert_eq!(gguf.metadata().get("k"), Some(&Value::String(text)));
}
