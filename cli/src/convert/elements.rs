//! Elements of tensors, from and to numbers of 32 bits.

use half::{bf16, f16};
use kernels::quant::Format;
use models::gguf::TensorType;

/// A type that numbers are read from and written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elements {
    /// IEEE 754, 32 bits.
    F32,
    /// IEEE 754, 16 bits.
    F16,
    /// The upper half of an F32.
    Bf16,
    /// Blocks that share scales.
    Quantised(Format),
}

impl Elements {
    /// None for a type of other numbers, such as integers.
    pub fn of(tensor_type: TensorType) -> Option<Self> {
        match tensor_type {
            TensorType::F32 => Some(Self::F32),
            TensorType::F16 => Some(Self::F16),
            TensorType::BF16 => Some(Self::Bf16),
            other => {
                Format::ALL.iter().find(|format| format.name() == other.name()).copied().map(Self::Quantised)
            }
        }
    }

    /// Reads a row. `bytes`: as many as `numbers` take.
    pub fn read(self, bytes: &[u8], numbers: &mut [f32]) {
        match self {
            Self::F32 => each(bytes, numbers, f32::from_le_bytes),
            Self::F16 => each(bytes, numbers, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Self::Bf16 => each(bytes, numbers, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Self::Quantised(format) => format.dequantise(bytes, numbers),
        }
    }

    /// Writes a row, rounded to the nearest. `bytes`: as many as `numbers` take.
    pub fn write(self, numbers: &[f32], bytes: &mut [u8]) {
        match self {
            Self::F32 => each_mut(numbers, bytes, f32::to_le_bytes),
            Self::F16 => each_mut(numbers, bytes, |number| f16::from_f32(number).to_le_bytes()),
            Self::Bf16 => each_mut(numbers, bytes, |number| bf16::from_f32(number).to_le_bytes()),
            Self::Quantised(format) => format.quantise(numbers, bytes),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], numbers: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    for (bytes, number) in bytes.as_chunks().0.iter().zip(numbers) {
        *number = read(*bytes);
    }
}

fn each_mut<const N: usize>(numbers: &[f32], bytes: &mut [u8], write: impl Fn(f32) -> [u8; N]) {
    for (number, bytes) in numbers.iter().zip(bytes.as_chunks_mut().0) {
        *bytes = write(*number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_each_type_as_well_as_it_can_hold_them() {
        let numbers: Vec<f32> = (0..256).map(|i| (i as f32 - 100.0) / 64.0).collect();
        let mut kinds = 0;
        for tensor_type in TensorType::ALL {
            let Some(elements) = Elements::of(*tensor_type) else { continue };
            let mut bytes = vec![0; tensor_type.bytes(&[256]).unwrap()];
            let mut back = vec![f32::NAN; 256];
            elements.write(&numbers, &mut bytes);
            elements.read(&bytes, &mut back);
            let worst = numbers.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Ternary types have nothing between zero and the largest.
            assert!(worst <= 1.3, "{tensor_type}: {worst}");
            if matches!(elements, Elements::F32 | Elements::F16 | Elements::Bf16) {
                assert_eq!(worst, 0.0, "{tensor_type}");
            }
            kinds += 1;
        }
        assert_eq!(kinds, 17);
        assert_eq!(Elements::of(TensorType::I32), None);
    }
}
