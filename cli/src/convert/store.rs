//! Reads a planned tensor, changes it and writes it, some rows at a time.

use std::num::NonZero;
use std::thread;

use models::gguf::convert::{Change, Content, PlannedTensor};
use models::gguf::{GgufError, SharedTensor, TensorType, TensorWriter};

use super::elements::Elements;

/// Numbers that are in memory at once, 128 MiB.
const STEP: usize = 1 << 25;

/// Writes a tensor in the type that [`FileType::of_tensor`](models::gguf::convert::FileType::of_tensor) gave; `written` hears of the bytes as they go out.
pub fn store(
    tensor: &PlannedTensor,
    tensor_type: TensorType,
    out: &mut TensorWriter,
    mut written: impl FnMut(usize),
) -> Result<(), GgufError> {
    match &tensor.content {
        Content::Stored { parts, change: Change::Nothing }
            if parts.iter().all(|part| part.tensor_type == tensor_type) =>
        {
            for part in parts {
                out.write(part.bytes())?;
                written(part.bytes().len());
            }
            return Ok(());
        }
        _ => {}
    }
    let row = tensor.row_length();
    let bytes_of_row = tensor_type.bytes(&[row]).unwrap_or_default();
    let rows_at_once = (STEP / row.max(1)).clamp(1, tensor.rows().max(1));
    let mut buffer = vec![0; rows_at_once * bytes_of_row];
    for first in (0..tensor.rows()).step_by(rows_at_once) {
        let rows = rows_at_once.min(tensor.rows() - first);
        let bytes = &mut buffer[..rows * bytes_of_row];
        convert_rows(tensor, tensor_type, first, bytes);
        out.write(bytes)?;
        written(bytes.len());
    }
    Ok(())
}

/// Fills `bytes` with the rows from `first` on, each thread with some of them.
fn convert_rows(tensor: &PlannedTensor, tensor_type: TensorType, first: usize, bytes: &mut [u8]) {
    let bytes_of_row = tensor_type.bytes(&[tensor.row_length()]).unwrap_or_default().max(1);
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let rows_of_thread = (bytes.len() / bytes_of_row).div_ceil(threads).max(1);
    thread::scope(|scope| {
        for (i, share) in bytes.chunks_mut(rows_of_thread * bytes_of_row).enumerate() {
            let first = first + i * rows_of_thread;
            scope.spawn(move || {
                let mut numbers = vec![0.0; tensor.row_length()];
                for (row, bytes) in (first..).zip(share.chunks_mut(bytes_of_row)) {
                    read_row(tensor, row, &mut numbers);
                    if let Some(elements) = Elements::of(tensor_type) {
                        elements.write(&numbers, bytes);
                    }
                }
            });
        }
    });
}

fn read_row(tensor: &PlannedTensor, row: usize, numbers: &mut [f32]) {
    match &tensor.content {
        Content::Numbers(all) => numbers.copy_from_slice(&all[row * numbers.len()..][..numbers.len()]),
        Content::Stored { parts, change } => {
            let rows_of_part = tensor.rows() / parts.len().max(1);
            let part = &parts[row / rows_of_part.max(1)];
            read_stored_row(part, change.source_row(row % rows_of_part.max(1)), numbers);
            if *change == Change::AddOne {
                numbers.iter_mut().for_each(|number| *number += 1.0);
            }
        }
    }
}

fn read_stored_row(part: &SharedTensor, row: usize, numbers: &mut [f32]) {
    let bytes_of_row = part.tensor_type.bytes(&[numbers.len()]).unwrap_or_default();
    if let Some(elements) = Elements::of(part.tensor_type) {
        elements.read(&part.bytes()[row * bytes_of_row..][..bytes_of_row], numbers);
    }
}
