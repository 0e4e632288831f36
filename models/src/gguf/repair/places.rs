//! Where the tensors of a file are whose alignment may be wrong.
//!
//! Tensors say where they begin after the header, so that one number decides over all: where after the header the data begins,
//! which is the next multiple of the alignment. The file's length tells it, as data ends where the file does.

use std::collections::HashSet;
use std::path::Path;

use super::error::RepairError;
use super::fix::Fix;
use crate::gguf::error::GgufError;
use crate::gguf::header::{ALIGNMENT_KEY, ALIGNMENT_USUAL};
use crate::gguf::tensors::{RawTensor, TensorInfo, bytes_of};
use crate::gguf::value::Value;

/// The largest that is looked for, besides the one that the file gives.
const ALIGNMENT_MAX: u64 = 1 << 16;

/// The smallest that a file should have. Source: `docs/gguf.md` of ggml, which wants multiples of 8.
const ALIGNMENT_MIN: u64 = 8;

/// What `general.alignment` says.
struct Declared {
    /// In words.
    found: String,
    /// The number, of whatever type.
    number: Option<u64>,
    /// Whether it is one that may be, of the type that it must have.
    is_sound: bool,
}

/// The tensors as the header has them, and the file.
struct Layout<'a> {
    bytes: &'a [u8],
    /// Length of the header.
    header: u64,
    tensors: &'a [RawTensor],
    /// Bytes of each tensor.
    sizes: Vec<u64>,
    /// Which of them stand at their place in the header already, under the same name.
    repeats: Vec<bool>,
    /// Where the last one ends after the beginning of the data.
    end: u64,
    declared: Declared,
}

/// An alignment that the places of the tensors allow.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    alignment: u64,
    /// Where the data would begin in the file.
    start: u64,
    /// Whether tensors follow each other as closely as it lets them.
    is_packed: bool,
    /// Whether the data ends where the file does.
    is_exact: bool,
}

/// Finds the tensors; `header`: its length. `entries` get the alignment that is written.
pub(super) fn place(
    file: &Path,
    bytes: &[u8],
    (entries, header): (&mut Vec<(String, Value)>, usize),
    tensors: Vec<RawTensor>,
    fixes: &mut Vec<Fix>,
) -> Result<Vec<TensorInfo>, RepairError> {
    let declared = Declared::read(entries);
    let layout = Layout::new(file, bytes, header, &tensors, declared)?;
    let chosen = layout.choose(file)?;
    if !layout.declared.is_sound || layout.declared.number != Some(chosen.alignment) {
        let is_usable = chosen.alignment.is_power_of_two() && chosen.alignment >= ALIGNMENT_MIN;
        let usable = u32::try_from(chosen.alignment).ok().filter(|_| is_usable);
        let written = usable.unwrap_or(ALIGNMENT_USUAL);
        let found = layout.declared.found.clone();
        fixes.push(Fix::Alignment { found, followed: chosen.alignment, written });
        set_alignment(entries, written);
    }
    fixes.extend(layout.fixes_of(&chosen));
    let sizes = layout.sizes;
    let placed = tensors.into_iter().zip(sizes).map(|(tensor, size)| {
        // Within the file, as `choose` made sure.
        let start = (chosen.start + tensor.offset) as usize;
        let RawTensor { name, tensor_type, shape, .. } = tensor;
        TensorInfo { name, tensor_type, shape, part: 0, range: start..start + size as usize }
    });
    Ok(placed.collect())
}

fn set_alignment(entries: &mut Vec<(String, Value)>, written: u32) {
    let value = Value::U32(written);
    match entries.iter_mut().find(|(key, _)| key == ALIGNMENT_KEY) {
        Some((_, old)) => *old = value,
        None => entries.push((ALIGNMENT_KEY.to_owned(), value)),
    }
}

impl Declared {
    fn read(entries: &[(String, Value)]) -> Self {
        let Some((_, value)) = entries.iter().find(|(key, _)| key == ALIGNMENT_KEY) else {
            let usual = u64::from(ALIGNMENT_USUAL);
            return Self { found: "missing".to_owned(), number: Some(usual), is_sound: true };
        };
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let is_sound = matches!(value, Value::U32(alignment) if alignment.is_power_of_two());
        Self { found: value.describe(), number: number.filter(|number| *number > 0), is_sound }
    }

    /// The number, where a reader could take it.
    fn usable(&self) -> Option<u64> {
        self.number.filter(|number| number.is_power_of_two())
    }
}

impl<'a> Layout<'a> {
    fn new(
        file: &Path,
        bytes: &'a [u8],
        header: usize,
        tensors: &'a [RawTensor],
        declared: Declared,
    ) -> Result<Self, GgufError> {
        let mut sizes = Vec::with_capacity(tensors.len());
        let mut end = 0;
        for tensor in tensors {
            if tensor.tensor_type.block().is_none() {
                let (file, tensor, tensor_type) = (file.to_owned(), tensor.name.clone(), tensor.tensor_type);
                return Err(GgufError::UnreadType { file, tensor, tensor_type });
            }
            let size = bytes_of(file, tensor)? as u64;
            let ends = tensor.offset.checked_add(size).filter(|end| *end <= bytes.len() as u64);
            let Some(ends) = ends else { return Err(truncated(file, tensor)) };
            end = end.max(ends);
            sizes.push(size);
        }
        let mut seen = HashSet::with_capacity(tensors.len());
        let repeats = tensors.iter().map(|tensor| !seen.insert((&tensor.name, tensor.offset))).collect();
        Ok(Self { bytes, header: header as u64, tensors, sizes, repeats, end, declared })
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Those that are looked at, the likely ones first.
    fn alignments(&self) -> impl Iterator<Item = u64> + use<> {
        let usual = u64::from(ALIGNMENT_USUAL);
        let powers = |from: u64, to: u64| {
            (from.ilog2()..=to.ilog2()).map(|exponent| 1_u64 << exponent).collect::<Vec<_>>()
        };
        let (larger, smaller) = (powers(usual, ALIGNMENT_MAX), powers(1, usual / 2));
        self.declared.usable().into_iter().chain(larger).chain(smaller.into_iter().rev()).chain(
            // Such as 48: a multiple of 8, which a writer may have followed.
            self.declared.number.filter(|number| *number <= ALIGNMENT_MAX),
        )
    }

    /// Where the data would begin.
    fn start(&self, alignment: u64) -> Option<u64> {
        self.header.checked_next_multiple_of(alignment)
    }

    fn allows(&self, alignment: u64) -> bool {
        self.tensors.iter().all(|tensor| tensor.offset.is_multiple_of(alignment))
    }

    /// None where the tensors would not lie in the file, or where other bytes than zeros would stand before them.
    fn candidate(&self, alignment: u64) -> Option<Candidate> {
        let start = self.start(alignment).filter(|_| self.allows(alignment))?;
        let data_end = start.checked_add(self.end).filter(|end| *end <= self.length())?;
        let padded_end = start.checked_add(self.end.checked_next_multiple_of(alignment)?)?;
        let is_exact = self.length() <= padded_end;
        let is_packed = self.is_packed(alignment);
        let is_declared = self.declared.usable() == Some(alignment);
        let is_padded = self.is_zero(self.header, start) && (!is_exact || self.is_zero(data_end, padded_end));
        (is_padded || (is_declared && is_packed && is_exact)).then_some(Candidate {
            alignment,
            start,
            is_packed,
            is_exact,
        })
    }

    fn is_packed(&self, alignment: u64) -> bool {
        let mut next = Some(0_u64);
        let once = self.tensors.iter().zip(&self.sizes).zip(&self.repeats).filter(|(_, repeats)| !**repeats);
        for ((tensor, size), _) in once {
            if next != Some(tensor.offset) {
                return false;
            }
            let end = tensor.offset.checked_add(*size);
            next = end.and_then(|end| end.checked_next_multiple_of(alignment));
        }
        true
    }

    /// Whether the file has nothing but zeros there, as far as it goes.
    fn is_zero(&self, from: u64, to: u64) -> bool {
        let place = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes[place(from)..place(to)].iter().all(|byte| *byte == 0)
    }

    /// The alignment that the file follows: the declared one, unless only another explains where tensors are and how long the file
    /// is.
    fn choose(&self, file: &Path) -> Result<Candidate, RepairError> {
        if self.tensors.is_empty() {
            let alignment = self.declared.usable().unwrap_or(u64::from(ALIGNMENT_USUAL));
            let start = self.start(alignment).unwrap_or(u64::MAX).min(self.length());
            return Ok(Candidate { alignment, start, is_packed: true, is_exact: true });
        }
        let candidates: Vec<Candidate> =
            self.alignments().filter_map(|alignment| self.candidate(alignment)).collect();
        let declared =
            candidates.iter().find(|candidate| Some(candidate.alignment) == self.declared.usable());
        let explains = |candidate: &&Candidate| candidate.is_packed && candidate.is_exact;
        if let Some(declared) = declared.filter(explains) {
            return Ok(*declared);
        }
        if let Some(found) = candidates.iter().find(explains) {
            return self.believed(file, found, declared);
        }
        if let Some(declared) = declared.filter(|declared| declared.is_packed) {
            return Ok(*declared);
        }
        let packed = candidates.iter().filter(|candidate| candidate.is_packed);
        if let Some(found) = self.agreed(file, packed)? {
            return self.believed(file, &found, declared);
        }
        // Gaps, and nothing else that is wrong.
        declared.filter(|declared| declared.is_exact).copied().ok_or_else(|| self.refusal(file))
    }

    /// The first, where all have the data begin at one place.
    fn agreed<'c>(
        &self,
        file: &Path,
        mut candidates: impl Iterator<Item = &'c Candidate>,
    ) -> Result<Option<Candidate>, RepairError> {
        let Some(first) = candidates.next() else { return Ok(None) };
        if candidates.all(|other| other.start == first.start) {
            Ok(Some(*first))
        } else {
            Err(self.refusal(file))
        }
    }

    /// Refuses an alignment other than the declared one where zeros may be padding as well as data: bytes could be missing at the
    /// end of the file, or be too many there.
    fn believed(
        &self,
        file: &Path,
        found: &Candidate,
        declared: Option<&Candidate>,
    ) -> Result<Candidate, RepairError> {
        let elsewhere = declared.filter(|declared| declared.start != found.start);
        if declared.is_some() && elsewhere.is_none() {
            return Ok(*found);
        }
        let larger = self.alignments().filter(|other| *other > found.alignment && self.allows(*other));
        let later = larger.filter_map(|other| self.start(other)).filter(|start| *start > found.start).min();
        let may_be_short = later.is_some_and(|later| self.is_zero(found.start, later));
        let may_be_long = elsewhere.is_some_and(|declared| {
            declared.is_packed && self.is_zero(declared.start + self.end, self.length())
        });
        if may_be_short || may_be_long { Err(self.refusal(file)) } else { Ok(*found) }
    }

    fn refusal(&self, file: &Path) -> RepairError {
        let start = self.declared.usable().and_then(|alignment| self.start(alignment));
        let last = self.tensors.iter().zip(&self.sizes).max_by_key(|(tensor, size)| tensor.offset + *size);
        match (start.unwrap_or(self.header).checked_add(self.end), last) {
            (Some(end), _) if end <= self.length() => {
                RepairError::Alignment { file: file.to_owned(), found: self.declared.found.clone() }
            }
            (_, Some((tensor, _))) => truncated(file, tensor).into(),
            (_, None) => RepairError::Alignment { file: file.to_owned(), found: self.declared.found.clone() },
        }
    }

    /// What besides the alignment is changed.
    fn fixes_of(&self, chosen: &Candidate) -> Vec<Fix> {
        let mut fixes = Vec::new();
        if !chosen.is_packed {
            fixes.push(Fix::Places);
        }
        let data_end = chosen.start + self.end;
        let end = data_end.checked_next_multiple_of(chosen.alignment).unwrap_or(data_end);
        if self.length() > end {
            fixes.push(Fix::Trailing { bytes: self.length() - end });
        } else if self.length() < end && !self.tensors.is_empty() {
            fixes.push(Fix::Padding { bytes: end - self.length() });
        }
        fixes
    }
}

fn truncated(file: &Path, tensor: &RawTensor) -> GgufError {
    GgufError::Truncated { file: file.to_owned(), object: format!("tensor `{}`", tensor.name) }
}
