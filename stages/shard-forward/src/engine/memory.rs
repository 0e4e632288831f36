//! Tensors over bytes of others and bytes over tensors, without a copy. The only code here that touches raw memory.
#![allow(unsafe_code)]

use std::ops::Deref;

use bytes::Bytes;
use half::bf16;
use tch::{Device, Kind, Tensor};

/// A CPU tensor over bytes that it does not own, and their owner. For reading only: in-place operations on it or on a
/// shallow clone would write into a mapped file or a received message.
#[derive(Debug)]
pub(super) struct Borrowed<O> {
    // Declared first, so dropped before the bytes.
    tensor: Tensor,
    owner: Box<O>,
}

impl<O: AsRef<[u8]>> Borrowed<O> {
    /// A row-major tensor over all bytes of `owner`; gives `owner` back when their number is not what `shape` takes or
    /// their address does not suit `kind`.
    pub(super) fn new(owner: O, shape: &[i64], kind: Kind) -> Result<Self, O> {
        let owner = Box::new(owner);
        let bytes: &[u8] = (*owner).as_ref();
        let size = kind.elt_size_in_bytes();
        let expected = shape.iter().try_fold(size, |n, &dim| n.checked_mul(usize::try_from(dim).ok()?));
        if expected != Some(bytes.len()) || !bytes.as_ptr().addr().is_multiple_of(size) {
            return Err(*owner);
        }
        // SAFETY: the bytes are as many as the shape takes and aligned for the element. They stay where they are and
        // alive as long as the tensor: `owner` is boxed, only ever lent for reading, and dropped after it.
        let tensor = unsafe { Tensor::from_blob(bytes.as_ptr(), shape, &[], kind, Device::Cpu) };
        Ok(Self { tensor, owner })
    }

    /// The bytes of the tensor.
    pub(super) fn bytes(&self) -> &[u8] {
        (*self.owner).as_ref()
    }
}

impl<O> Deref for Borrowed<O> {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

/// A CPU tensor over bytes of another where those suit it, else one of its own.
#[derive(Debug)]
pub(super) enum Shared<O> {
    /// Lies where the bytes are.
    Borrowed(Borrowed<O>),
    /// Lies in memory of its own.
    Owned(Tensor),
}

impl<O: AsRef<[u8]>> Shared<O> {
    /// A row-major tensor of the bytes of `owner`, as many as `shape` takes, which are copied only when misaligned.
    pub(super) fn new(owner: O, shape: &[i64], kind: Kind) -> Self {
        match Borrowed::new(owner, shape, kind) {
            Ok(borrowed) => Shared::Borrowed(borrowed),
            Err(misaligned) => Shared::Owned(Tensor::from_data_size(misaligned.as_ref(), shape, kind)),
        }
    }

    /// The tensor, on the CPU unless it is owned.
    pub(super) fn tensor(&self) -> &Tensor {
        match self {
            Shared::Borrowed(borrowed) => borrowed,
            Shared::Owned(tensor) => tensor,
        }
    }
}

/// The elements of a contiguous CPU tensor as bytes.
struct Elements(Tensor);

impl AsRef<[u8]> for Elements {
    fn as_ref(&self) -> &[u8] {
        let len = self.0.numel() * self.0.kind().elt_size_in_bytes();
        if len == 0 {
            return &[];
        }
        // SAFETY: `into_bytes` made sure of a contiguous CPU tensor, whose storage has `len` bytes at this address and
        // lives as long as the tensor.
        unsafe { std::slice::from_raw_parts(self.0.data_ptr().cast(), len) }
    }
}

/// The elements of `tensor` in row-major order, shared when it lies on the CPU without gaps, else copied there.
/// The caller gives up the tensor: nobody may write to its storage afterwards.
pub(super) fn into_bytes(tensor: Tensor) -> Bytes {
    Bytes::from_owner(Elements(tensor.to_device(Device::Cpu).contiguous()))
}

/// An element as tensors hold it. (tch's own trait takes bf16 for f16.)
pub(super) trait Stored: Copy + 'static {
    /// The tensors' name for it.
    const KIND: Kind;
}

impl Stored for f32 {
    const KIND: Kind = Kind::Float;
}

impl Stored for bf16 {
    const KIND: Kind = Kind::BFloat16;
}

/// Reads the elements of a contiguous CPU tensor of `T`.
pub(super) fn elements<T: Stored>(tensor: &Tensor) -> &[T] {
    assert!(tensor.kind() == T::KIND && tensor.device() == Device::Cpu && tensor.is_contiguous());
    let len = tensor.numel();
    if len == 0 {
        return &[];
    }
    // SAFETY: the tensor holds `T`s, on the CPU and contiguous, so `len` elements lie at this aligned address and live as
    // long as it. Nothing writes to them meanwhile: only the caller's thread has the tensor.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), len) }
}

/// A new CPU tensor of `T` in this shape, whose elements `write` gets as zeros.
pub(super) fn fill<T: Stored>(shape: &[i64], write: impl FnOnce(&mut [T])) -> Tensor {
    let tensor = Tensor::zeros(shape, (T::KIND, Device::Cpu));
    let len = tensor.numel();
    if len > 0 {
        // SAFETY: the tensor has just been made, contiguous and of `len` initialised `T`s; nobody else has it yet.
        write(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), len) });
    }
    tensor
}

/// Takes the pages of a private read-only file mapping that lie wholly inside `bytes` out of this process's memory;
/// whoever reads them again gets them from the file. For weights that have been copied.
pub(super) fn drop_mapped_pages(bytes: &[u8]) {
    const PAGE_BYTES: usize = 4096;
    let start = bytes.as_ptr().addr().next_multiple_of(PAGE_BYTES);
    let end = (bytes.as_ptr().addr() + bytes.len()) / PAGE_BYTES * PAGE_BYTES;
    if start < end {
        let first = bytes.as_ptr().wrapping_add(start - bytes.as_ptr().addr()).cast_mut();
        // SAFETY: the pages belong to a read-only file mapping, which by the contract of this function holds nothing but
        // the file's content: dropping them changes no byte that anybody can read. A refusal is harmless.
        unsafe { libc::madvise(first.cast(), end - start, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_a_tensor_and_come_back() {
        let bytes = Bytes::from_owner(Elements(Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0])));
        let tensor = Borrowed::new(bytes.clone(), &[2, 3], Kind::Float).unwrap();
        assert_eq!(tensor.data_ptr().addr(), bytes.as_ptr().addr(), "shared");
        assert_eq!(tensor.double_value(&[1, 0]), 4.0);
        assert_eq!(elements::<f32>(&tensor), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let transposed = into_bytes(tensor.tr());
        assert_eq!(transposed[4..8], 4.0_f32.to_le_bytes());
        assert_eq!(into_bytes(tensor.shallow_clone()).as_ptr(), bytes.as_ptr(), "shared");
    }

    #[test]
    fn bytes_that_do_not_fit_are_given_back() {
        let bytes = Bytes::from_owner(Elements(Tensor::from_slice(&[0.0_f32; 4])));
        assert!(Borrowed::new(bytes.slice(1..13), &[3], Kind::Float).is_err(), "misaligned");
        assert!(Borrowed::new(bytes.clone(), &[3], Kind::Float).is_err(), "too long");
        assert!(Borrowed::new(bytes.clone(), &[-4], Kind::Float).is_err(), "negative");
        assert!(into_bytes(Tensor::zeros([0, 4], (Kind::Float, Device::Cpu))).is_empty());
    }

    #[test]
    fn a_tensor_is_filled_and_read() {
        let tensor = fill::<f32>(&[2, 2], |out| out.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]));
        assert_eq!(tensor.double_value(&[1, 0]), 3.0);
        assert_eq!(elements::<f32>(&tensor), [1.0, 2.0, 3.0, 4.0]);
        assert!(elements::<f32>(&fill::<f32>(&[0, 2], |_| panic!("no elements"))).is_empty());
    }
}
