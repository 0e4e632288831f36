//! A dense tensor as bytes: dtype, shape, little-endian elements in row-major order.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use crate::wire::SharedBytes;

/// Element type of a [`Tensor`].
#[derive(Archive, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// bfloat16.
    Bf16,
}

impl DType {
    /// Bytes an element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::Bf16 => 2,
        }
    }
}

/// The bytes of a tensor do not match its shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("shape {shape:?} of {dtype:?} does not take {bytes} bytes")]
pub struct ShapeError {
    /// The element type.
    pub dtype: DType,
    /// The shape, outermost dimension first.
    pub shape: Vec<u32>,
    /// The length of the data, in bytes.
    pub bytes: usize,
}

/// A dense row-major tensor whose data length always equals its shape's product times its element size.
#[derive(Archive, Serialize, Deserialize, Debug, Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<u32>,
    #[rkyv(with = SharedBytes)]
    data: Bytes,
}

impl Tensor {
    /// A tensor over `data`, which is shared, not copied. Fails when the length does not fit the shape.
    pub fn new(dtype: DType, shape: Vec<u32>, data: Bytes) -> Result<Self, ShapeError> {
        let tensor = Self { dtype, shape, data };
        tensor.check()?;
        Ok(tensor)
    }

    /// Checks the invariant on a tensor that came from outside.
    pub(crate) fn check(&self) -> Result<(), ShapeError> {
        let expected =
            self.shape.iter().try_fold(self.dtype.size(), |bytes, &n| bytes.checked_mul(n as usize));
        if expected == Some(self.data.len()) {
            return Ok(());
        }
        Err(ShapeError { dtype: self.dtype, shape: self.shape.clone(), bytes: self.data.len() })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape, outermost dimension first.
    pub fn shape(&self) -> &[u32] {
        &self.shape
    }

    /// The elements' bytes. After decoding they lie inside the message, at any alignment.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_of_another_length_is_refused() {
        assert!(Tensor::new(DType::Bf16, vec![2, 3], Bytes::from_static(&[0; 12])).is_ok());
        assert!(Tensor::new(DType::F32, vec![2, 3], Bytes::from_static(&[0; 12])).is_err());
        assert!(Tensor::new(DType::F32, vec![u32::MAX; 3], Bytes::new()).is_err());
    }
}
