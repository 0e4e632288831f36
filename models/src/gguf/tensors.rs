//! The tensors of a GGUF: what they are, and where in the file their bytes lie.

use std::ops::Range;
use std::path::Path;

use super::cursor::Cursor;
use super::error::GgufError;
use super::header::Directory;
use super::tensor_type::TensorType;

/// As `GGML_MAX_DIMS`.
pub(super) const DIMENSIONS_MAX: usize = 4;

/// What a tensor takes in the header at least: a name's length, the number of dimensions and one of them, the type, the offset.
pub(super) fn tensor_bytes_min(cursor: &Cursor<'_>) -> usize {
    cursor.length_bytes() + 4 + cursor.length_bytes() + 4 + 8
}

/// One tensor as the header announces it.
pub(super) struct RawTensor {
    pub(super) name: String,
    pub(super) tensor_type: TensorType,
    /// Outermost first.
    pub(super) shape: Vec<usize>,
    /// Where it begins after the header, in bytes.
    pub(super) offset: u64,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub tensor_type: TensorType,
    /// Sizes, outermost first (a file has them innermost first), each above zero.
    pub shape: Vec<usize>,
    /// Which of the files holds it.
    pub(super) part: usize,
    /// Where in that file its bytes are; where it begins and nothing of the type's blocks is known, an empty range.
    pub(super) range: Range<usize>,
}

pub(super) fn read_tensor(cursor: &mut Cursor<'_>) -> Result<RawTensor, GgufError> {
    let file = cursor.file();
    let name = cursor.string("the name of a tensor")?.to_owned();
    let object = format!("tensor `{name}`");
    let refuse = |problem: String| GgufError::Shape { file: file.to_owned(), tensor: name.clone(), problem };
    let dimensions = cursor.u32(&object)?;
    let dimensions = match usize::try_from(dimensions) {
        Ok(dimensions @ 1..=DIMENSIONS_MAX) => dimensions,
        _ => return Err(refuse(format!("{dimensions} dimensions, not 1 to {DIMENSIONS_MAX}"))),
    };
    let mut shape = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        let size = cursor.length(&object)?;
        match usize::try_from(size) {
            Ok(size) if size > 0 => shape.push(size),
            _ => return Err(refuse(format!("a size of {size}"))),
        }
    }
    shape.reverse();
    let id = cursor.u32(&object)?;
    let Some(tensor_type) = TensorType::from_id(id) else {
        return Err(GgufError::UnknownType { file: file.to_owned(), tensor: name, id });
    };
    let offset = cursor.u64(&object)?;
    Ok(RawTensor { name, tensor_type, shape, offset })
}

/// Places the tensors of a file that is `file_length` bytes long: each lies within it, begins at a multiple of the alignment, and
/// shares no byte with another. They may come in any order and have gaps between them, which ggml does not allow.
pub(super) fn place(
    file: &Path,
    directory: Directory,
    part: usize,
    file_length: usize,
) -> Result<Vec<TensorInfo>, GgufError> {
    let alignment = u64::from(directory.alignment);
    let start = (directory.length as u64).next_multiple_of(alignment);
    let mut placed = Vec::with_capacity(directory.tensors.len());
    for tensor in directory.tensors {
        let range = locate(file, &tensor, (start, alignment), file_length)?;
        let RawTensor { name, tensor_type, shape, .. } = tensor;
        placed.push(TensorInfo { name, tensor_type, shape, part, range });
    }
    refuse_overlap(file, &placed)?;
    Ok(placed)
}

fn locate(
    file: &Path,
    tensor: &RawTensor,
    (start, alignment): (u64, u64),
    file_length: usize,
) -> Result<Range<usize>, GgufError> {
    let bytes = bytes_of(file, tensor)?;
    if !tensor.offset.is_multiple_of(alignment) {
        let (file, tensor, offset) = (file.to_owned(), tensor.name.clone(), tensor.offset);
        return Err(GgufError::Misaligned { file, tensor, offset, alignment });
    }
    let first = start.checked_add(tensor.offset).and_then(|first| usize::try_from(first).ok());
    let range = first.and_then(|first| Some(first..first.checked_add(bytes)?));
    range.filter(|range| range.end <= file_length).ok_or_else(|| {
        let object = format!("tensor `{}`", tensor.name);
        GgufError::Truncated { file: file.to_owned(), object }
    })
}

/// How many bytes it takes; none where the blocks of its type are not known.
pub(super) fn bytes_of(file: &Path, tensor: &RawTensor) -> Result<usize, GgufError> {
    let Some(block) = tensor.tensor_type.block() else { return Ok(0) };
    tensor.tensor_type.bytes(&tensor.shape).ok_or_else(|| {
        let shape = &tensor.shape;
        let problem = match shape.last() {
            Some(row) if !row.is_multiple_of(block.elements) => {
                let (tensor_type, elements) = (tensor.tensor_type, block.elements);
                format!("rows of {row} elements, and {tensor_type} stores {elements} together")
            }
            _ => format!("more bytes than can be addressed: shape {shape:?}"),
        };
        GgufError::Shape { file: file.to_owned(), tensor: tensor.name.clone(), problem }
    })
}

pub(super) fn refuse_overlap(file: &Path, tensors: &[TensorInfo]) -> Result<(), GgufError> {
    let mut by_place: Vec<&TensorInfo> = tensors.iter().collect();
    by_place.sort_by_key(|tensor| (tensor.range.start, tensor.range.end));
    match by_place.windows(2).find(|pair| pair[0].range.end > pair[1].range.start) {
        Some(pair) => Err(GgufError::Overlap {
            file: file.to_owned(),
            first: pair[0].name.clone(),
            second: pair[1].name.clone(),
        }),
        None => Ok(()),
    }
}
