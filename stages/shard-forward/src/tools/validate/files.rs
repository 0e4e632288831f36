//! The files of a model and the numbers in them.

use std::path::Path;

use anyhow::bail;
use kernels::quant::Format;
use models::gguf::{Gguf, TensorType};
use models::{WeightDtype, Weights, WeightsError};

use super::Finding;

/// Files of weights. Opening them checks that each is as long as its header says.
pub(super) enum Files {
    Folder(Weights),
    Gguf(Box<Gguf>),
}

/// How elements of a tensor are stored.
#[derive(Debug, Clone, Copy)]
enum Stored {
    F32,
    F16,
    Bf16,
    Quantised(Format),
}

impl Files {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(match path.is_dir() {
            true => Self::Folder(Weights::open(path)?),
            false => Self::Gguf(Box::new(Gguf::open(path)?)),
        })
    }

    /// Whether every number is one.
    pub(super) fn finite(&self) -> anyhow::Result<Finding> {
        let (mut numbers, mut others) = (0, 0);
        for name in self.names() {
            let found = match self {
                Self::Folder(weights) => in_folder(weights, name)?,
                Self::Gguf(gguf) => in_gguf(gguf, name)?,
            };
            match found {
                Some((0, count)) => numbers += count,
                Some((not_finite, count)) => {
                    bail!("{not_finite} of the {count} numbers of `{name}` are NaN or infinite")
                }
                None => others += 1,
            }
        }
        let left_out =
            if others > 0 { format!(", {others} tensors of other types left out") } else { String::new() };
        Ok(Finding::Passed(format!("{numbers} numbers{left_out}")))
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Self::Folder(weights) => weights.names(),
            Self::Gguf(gguf) => gguf.tensors().map(|tensor| tensor.name.as_str()).collect(),
        }
    }
}

/// How many numbers are not finite, and how many there are; none where the tensor holds others.
fn in_folder(weights: &Weights, name: &str) -> anyhow::Result<Option<(usize, usize)>> {
    let shared = match weights.get_shared(name) {
        Ok(shared) => shared,
        Err(WeightsError::Dtype { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stored = match shared.dtype {
        WeightDtype::F32 => Stored::F32,
        WeightDtype::F16 => Stored::F16,
        WeightDtype::Bf16 => Stored::Bf16,
        WeightDtype::U8 | WeightDtype::Quantised(_) => return Ok(None),
    };
    Ok(Some(stored.count(shared.bytes())))
}

fn in_gguf(gguf: &Gguf, name: &str) -> anyhow::Result<Option<(usize, usize)>> {
    let shared = gguf.get_shared(name)?;
    let stored = match shared.tensor_type {
        TensorType::F32 => Stored::F32,
        TensorType::F16 => Stored::F16,
        TensorType::BF16 => Stored::Bf16,
        other => match Format::ALL.iter().find(|format| format.name() == other.name()) {
            Some(format) => Stored::Quantised(*format),
            None => return Ok(None),
        },
    };
    Ok(Some(stored.count(shared.bytes())))
}

impl Stored {
    /// How many are not finite, and how many there are.
    fn count(self, bytes: &[u8]) -> (usize, usize) {
        /// Bits of the exponent: all are set in NaN and infinities only.
        const F32: u32 = 0x7f80_0000;
        const F16: u16 = 0x7c00;
        const BF16: u16 = 0x7f80;
        let halves = |mask: u16| {
            let (numbers, _) = bytes.as_chunks();
            let not_finite = numbers.iter().filter(|bytes| u16::from_le_bytes(**bytes) & mask == mask);
            (not_finite.count(), numbers.len())
        };
        match self {
            Self::F32 => {
                let (numbers, _) = bytes.as_chunks();
                let not_finite = numbers.iter().filter(|bytes| u32::from_le_bytes(**bytes) & F32 == F32);
                (not_finite.count(), numbers.len())
            }
            Self::F16 => halves(F16),
            Self::Bf16 => halves(BF16),
            Self::Quantised(format) => count_quantised(format, bytes),
        }
    }
}

fn count_quantised(format: Format, bytes: &[u8]) -> (usize, usize) {
    const BLOCKS: usize = 256;
    let (block_bytes, block_elements) = (format.block_bytes(), format.block_elements());
    let mut numbers = vec![0.0; BLOCKS * block_elements];
    let (mut not_finite, mut count) = (0, 0);
    for blocks in bytes.chunks(BLOCKS * block_bytes) {
        let whole = blocks.len() / block_bytes;
        let numbers = &mut numbers[..whole * block_elements];
        format.dequantise(&blocks[..whole * block_bytes], numbers);
        not_finite += numbers.iter().filter(|number| !number.is_finite()).count();
        count += numbers.len();
    }
    (not_finite, count)
}
