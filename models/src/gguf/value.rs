//! Values of a GGUF's metadata.

/// One value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Unsigned, 8 bits.
    U8(u8),
    /// Signed, 8 bits.
    I8(i8),
    /// Unsigned, 16 bits.
    U16(u16),
    /// Signed, 16 bits.
    I16(i16),
    /// Unsigned, 32 bits.
    U32(u32),
    /// Signed, 32 bits.
    I32(i32),
    /// IEEE 754, 32 bits.
    F32(f32),
    /// A truth value.
    Bool(bool),
    /// Text.
    String(String),
    /// Values of one type.
    Array(Array),
    /// Unsigned, 64 bits.
    U64(u64),
    /// Signed, 64 bits.
    I64(i64),
    /// IEEE 754, 64 bits.
    F64(f64),
}

/// Values of one type, none of them an array.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Unsigned, 8 bits.
    U8(Vec<u8>),
    /// Signed, 8 bits.
    I8(Vec<i8>),
    /// Unsigned, 16 bits.
    U16(Vec<u16>),
    /// Signed, 16 bits.
    I16(Vec<i16>),
    /// Unsigned, 32 bits.
    U32(Vec<u32>),
    /// Signed, 32 bits.
    I32(Vec<i32>),
    /// IEEE 754, 32 bits.
    F32(Vec<f32>),
    /// Truth values.
    Bool(Vec<bool>),
    /// Texts.
    String(Vec<String>),
    /// Unsigned, 64 bits.
    U64(Vec<u64>),
    /// Signed, 64 bits.
    I64(Vec<i64>),
    /// IEEE 754, 64 bits.
    F64(Vec<f64>),
}

/// Numbers of the types in a file. Source: `enum gguf_metadata_value_type` of `docs/gguf.md`.
pub(super) mod type_id {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

impl Value {
    /// A whole number, of whatever width.
    pub fn as_integer(&self) -> Option<i128> {
        match *self {
            Self::U8(value) => Some(value.into()),
            Self::I8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::I16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::I32(value) => Some(value.into()),
            Self::U64(value) => Some(value.into()),
            Self::I64(value) => Some(value.into()),
            _ => None,
        }
    }

    /// A finite number. One of 32 bits is read as the shortest decimal that stands for it, which is what its writer had: `1e-5`,
    /// not `9.99999974737875e-6`.
    pub fn as_number(&self) -> Option<f64> {
        let number = match *self {
            Self::F32(value) => shortest_decimal(value),
            Self::F64(value) => value,
            _ => self.as_integer()? as f64,
        };
        number.is_finite().then_some(number)
    }

    /// The number of its type in a file.
    pub(super) fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => type_id::U8,
            Self::I8(_) => type_id::I8,
            Self::U16(_) => type_id::U16,
            Self::I16(_) => type_id::I16,
            Self::U32(_) => type_id::U32,
            Self::I32(_) => type_id::I32,
            Self::F32(_) => type_id::F32,
            Self::Bool(_) => type_id::BOOL,
            Self::String(_) => type_id::STRING,
            Self::Array(_) => type_id::ARRAY,
            Self::U64(_) => type_id::U64,
            Self::I64(_) => type_id::I64,
            Self::F64(_) => type_id::F64,
        }
    }

    /// In words for an error, never longer than a line.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Array(array) => format!("an array of {}", array.len()),
            Self::String(text) => {
                let shown: String = text.chars().take(DESCRIBED_CHARACTERS).collect();
                format!("`{}`", shown.escape_debug())
            }
            Self::Bool(value) => format!("`{value}`"),
            Self::F32(value) => format!("`{value}`"),
            Self::F64(value) => format!("`{value}`"),
            _ => format!("`{}`", self.as_integer().unwrap_or_default()),
        }
    }
}

const DESCRIBED_CHARACTERS: usize = 60;

/// `value` as the f64 that is nearest to its shortest decimal.
pub(super) fn shortest_decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

impl Array {
    /// How many values there are.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(values) => values.len(),
            Self::I8(values) => values.len(),
            Self::U16(values) => values.len(),
            Self::I16(values) => values.len(),
            Self::U32(values) => values.len(),
            Self::I32(values) => values.len(),
            Self::F32(values) => values.len(),
            Self::Bool(values) => values.len(),
            Self::String(values) => values.len(),
            Self::U64(values) => values.len(),
            Self::I64(values) => values.len(),
            Self::F64(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the values' type in a file.
    pub(super) fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => type_id::U8,
            Self::I8(_) => type_id::I8,
            Self::U16(_) => type_id::U16,
            Self::I16(_) => type_id::I16,
            Self::U32(_) => type_id::U32,
            Self::I32(_) => type_id::I32,
            Self::F32(_) => type_id::F32,
            Self::Bool(_) => type_id::BOOL,
            Self::String(_) => type_id::STRING,
            Self::U64(_) => type_id::U64,
            Self::I64(_) => type_id::I64,
            Self::F64(_) => type_id::F64,
        }
    }

    /// Whole numbers, of whatever width.
    pub fn as_integers(&self) -> Option<Vec<i64>> {
        match self {
            Self::U8(values) => Some(values.iter().map(|value| i64::from(*value)).collect()),
            Self::I8(values) => Some(values.iter().map(|value| i64::from(*value)).collect()),
            Self::U16(values) => Some(values.iter().map(|value| i64::from(*value)).collect()),
            Self::I16(values) => Some(values.iter().map(|value| i64::from(*value)).collect()),
            Self::U32(values) => Some(values.iter().map(|value| i64::from(*value)).collect()),
            Self::I32(values) => Some(values.iter().map(|value| i64::from(*value)).collect()),
            Self::U64(values) => values.iter().map(|value| i64::try_from(*value).ok()).collect(),
            Self::I64(values) => Some(values.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_the_decimal_that_its_writer_had() {
        assert_eq!(Value::F32(1e-5).as_number(), Some(1e-5));
        assert_eq!(Value::F32(1e-6).as_number(), Some(1e-6));
        assert_eq!(Value::F32(500_000.0).as_number(), Some(500_000.0));
        assert_eq!(Value::F32(1.190_238_1).as_number(), Some(1.190_238_1));
        assert_eq!(Value::F32(f32::NAN).as_number(), None);
        assert_eq!(Value::F64(f64::INFINITY).as_number(), None);
        assert_eq!(Value::U64(7).as_number(), Some(7.0));
        assert_eq!(Value::Bool(true).as_number(), None);
    }

    #[test]
    fn integers_that_do_not_fit_are_none() {
        assert_eq!(Array::U64(vec![1, u64::MAX]).as_integers(), None);
        assert_eq!(Array::I8(vec![-1, 2]).as_integers(), Some(vec![-1, 2]));
        assert_eq!(Array::F32(vec![1.0]).as_integers(), None);
    }
}
