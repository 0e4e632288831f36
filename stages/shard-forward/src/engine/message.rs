//! Tensors as they travel between shards, and as libtorch has them.

use bytes::Bytes;
use schemas::DType;
use tch::{Kind, Tensor};

use super::memory::{Shared, into_bytes};

/// libtorch's name of `dtype`.
pub(super) fn kind_of(dtype: DType) -> Kind {
    match dtype {
        DType::F32 => Kind::Float,
        DType::Bf16 => Kind::BFloat16,
    }
}

/// A message's tensor on the CPU, in the message where its alignment allows.
pub(super) fn from_message(tensor: &schemas::Tensor) -> Shared<Bytes> {
    let shape: Vec<i64> = tensor.shape().iter().map(|&n| i64::from(n)).collect();
    Shared::new(tensor.data().clone(), &shape, kind_of(tensor.dtype()))
}

/// `tensor`, f32 or bf16, for a message; on the CPU without a copy.
pub(super) fn to_message(tensor: Tensor) -> anyhow::Result<schemas::Tensor> {
    let dtype = if tensor.kind() == Kind::Float { DType::F32 } else { DType::Bf16 };
    let shape = tensor.size().iter().map(|&n| n as u32).collect();
    Ok(schemas::Tensor::new(dtype, shape, into_bytes(tensor))?)
}
