//! A file that is put together right or wrong.

use models::gguf::{Array, Gguf, TensorType, Value};

/// A tensor with its bytes.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub tensor_type: TensorType,
    /// Outermost first.
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// What a file says, and how it is laid out.
#[derive(Clone)]
pub struct Draft {
    pub version: u32,
    /// Whether lengths have 32 bits.
    pub short: bool,
    pub entries: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
    /// What tensors are placed at multiples of, whatever the keys say.
    pub follows: usize,
    /// Bytes that are left free after the first tensor.
    pub gap: usize,
    /// What is added to the number of tensors.
    pub uncounted: i64,
}

impl Default for Draft {
    fn default() -> Self {
        let (entries, tensors) = (Vec::new(), Vec::new());
        Self { version: 3, short: false, entries, tensors, follows: 32, gap: 0, uncounted: 0 }
    }
}

impl Draft {
    pub fn of(gguf: &Gguf) -> Self {
        let tensors = gguf.tensors().map(|info| Tensor {
            name: info.name.clone(),
            tensor_type: info.tensor_type,
            shape: info.shape.clone(),
            bytes: gguf.get_shared(&info.name).unwrap().bytes().to_vec(),
        });
        let entries = gguf.metadata().iter().map(|(key, value)| (key.to_owned(), value.clone()));
        Self { entries: entries.collect(), tensors: tensors.collect(), ..Self::default() }
    }

    /// With this alignment among the keys.
    pub fn declaring(mut self, alignment: Value) -> Self {
        self.entries.push(("general.alignment".to_owned(), alignment));
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.entries.retain(|(name, _)| name != key);
        self
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The same keys, in any order and but for the alignment, and the same tensors.
    pub fn assert_is(&self, other: &Self) {
        let entries = |draft: &Self| {
            let mut entries = draft.clone().without("general.alignment").entries;
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries
        };
        assert_eq!(entries(self), entries(other));
        let names = |draft: &Self| draft.tensors.iter().map(|tensor| tensor.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(self), names(other));
        // Not `assert_eq`, which would print megabytes.
        for (a, b) in self.tensors.iter().zip(&other.tensors) {
            assert!(a == b, "{}", a.name);
        }
    }

    /// The header without its padding.
    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        self.length(&mut out, (self.tensors.len() as i64 + self.uncounted) as usize);
        self.length(&mut out, self.entries.len());
        for (key, value) in &self.entries {
            self.text(&mut out, key);
            self.value(&mut out, value);
        }
        let mut offset = 0;
        for (i, tensor) in self.tensors.iter().enumerate() {
            self.text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|size| self.length(&mut out, *size));
            out.extend(tensor.tensor_type.id().to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(self.follows) + if i == 0 { self.gap } else { 0 };
        }
        out
    }

    /// Where in the file the last tensor ends.
    pub fn data_end(&self) -> usize {
        let last = self.tensors.last().unwrap().bytes.len();
        self.bytes().len() - (last.next_multiple_of(self.follows) - last)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        out.resize(out.len().next_multiple_of(self.follows), 0);
        for (i, tensor) in self.tensors.iter().enumerate() {
            out.extend(&tensor.bytes);
            out.resize(out.len().next_multiple_of(self.follows) + if i == 0 { self.gap } else { 0 }, 0);
        }
        out
    }

    fn length(&self, out: &mut Vec<u8>, length: usize) {
        match self.short {
            true => out.extend((length as u32).to_le_bytes()),
            false => out.extend((length as u64).to_le_bytes()),
        }
    }

    fn text(&self, out: &mut Vec<u8>, text: &str) {
        self.length(out, text.len());
        out.extend(text.as_bytes());
    }

    /// A value after the number of its type.
    fn value(&self, out: &mut Vec<u8>, value: &Value) {
        let (id, bytes) = match value {
            Value::U8(value) => (0_u32, vec![*value]),
            Value::U16(value) => (2, value.to_le_bytes().to_vec()),
            Value::U32(value) => (4, value.to_le_bytes().to_vec()),
            Value::I32(value) => (5, value.to_le_bytes().to_vec()),
            Value::F32(value) => (6, value.to_le_bytes().to_vec()),
            Value::Bool(value) => (7, vec![u8::from(*value)]),
            Value::U64(value) => (10, value.to_le_bytes().to_vec()),
            Value::String(value) => {
                let mut bytes = Vec::new();
                self.text(&mut bytes, value);
                (8, bytes)
            }
            Value::Array(array) => (9, self.array(array)),
            other => panic!("{other:?}"),
        };
        out.extend(id.to_le_bytes());
        out.extend(bytes);
    }

    fn array(&self, array: &Array) -> Vec<u8> {
        let (id, entries): (u32, Vec<u8>) = match array {
            Array::I32(values) => (5, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Array::F32(values) => (6, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            Array::Bool(values) => (7, values.iter().map(|value| u8::from(*value)).collect()),
            Array::String(values) => {
                let mut bytes = Vec::new();
                values.iter().for_each(|value| self.text(&mut bytes, value));
                (8, bytes)
            }
            other => panic!("{other:?}"),
        };
        let mut out = id.to_le_bytes().to_vec();
        self.length(&mut out, array.len());
        out.extend(entries);
        out
    }
}
