//! A layer's arithmetic by the `kernels` crate: every row has the same bits however many are computed with it, in whatever
//! chunks it came, and on any number of threads.
//!
//! Between two operations everything is in f32.

use std::marker::PhantomData;
use std::sync::Arc;

use kernels::attention::{Cache, Sight, attend};
use kernels::element::Element;
use kernels::matrix::Matrix;
use kernels::rows::{Angles, add, rms_norm, rotate, swiglu};
use kernels::threads::Threads;
use schemas::SequenceId;
use schemas::hidden::Slice;
use tch::{Kind, Tensor};

use super::kv::KvCache;
use super::memory::{Stored, elements, fill};
use super::ops::{Attention, Linear, Ops};
use super::rope::Rotation;
use super::weights::{Weight, drop_pages};

/// The kernels for weights, hidden states and KV cache of `E`, on the CPU.
#[derive(Debug)]
pub(super) struct Exact<E> {
    threads: Arc<Threads>,
    element: PhantomData<fn() -> E>,
}

#[derive(Debug)]
struct ExactLinear<E: Element> {
    matrix: Matrix<E>,
    threads: Arc<Threads>,
}

/// What each row of the step sees.
struct ExactAttention<E> {
    rows: Vec<Row>,
    threads: Arc<Threads>,
    element: PhantomData<fn() -> E>,
}

struct Row {
    sequence: SequenceId,
    /// Up to the row's own.
    tokens: u32,
}

impl<E> Exact<E> {
    pub(super) fn new(threads: usize) -> Self {
        Self { threads: Arc::new(Threads::new(threads)), element: PhantomData }
    }
}

impl<E: Element + Stored> Ops for Exact<E> {
    fn between(&self) -> Kind {
        Kind::Float
    }

    fn linear(&self, weight: Weight, bias: Option<Weight>) -> Box<dyn Linear> {
        let n_in = weight.tensor().size()[1] as usize;
        let bias = bias.as_ref().map_or(&[][..], |bias| elements::<E>(bias.tensor()));
        let matrix = Matrix::new(elements(weight.tensor()), bias, n_in);
        drop_pages(&weight);
        Box::new(ExactLinear { matrix, threads: self.threads.clone() })
    }

    fn rms_norm(&self, x: &Tensor, weight: &Weight, epsilon: f64) -> Tensor {
        let weight = elements::<E>(weight.tensor());
        fill(&x.size(), |out| rms_norm(elements(x), weight, epsilon as f32, out, &self.threads))
    }

    fn rotate(&self, x: &Tensor, heads: i64, rotation: &Rotation) -> Tensor {
        let (cos, sin) = rotation.tables();
        let head_dim = x.size()[2] as usize;
        let angles = Angles { cos: elements(cos), sin: elements(sin), head_dim };
        fill(&[x.size()[0], heads, x.size()[2]], |out| rotate(elements(x), &angles, out, &self.threads))
    }

    fn attention(&self, slices: &[Slice], _: &KvCache) -> Box<dyn Attention> {
        let rows = slices.iter().flat_map(|slice| {
            let end = slice.start + slice.ids.len() as u32;
            (slice.start + 1..=end).map(|tokens| Row { sequence: slice.sequence, tokens })
        });
        let (rows, threads) = (rows.collect(), self.threads.clone());
        Box::new(ExactAttention::<E> { rows, threads, element: PhantomData })
    }

    fn swiglu(&self, gate_up: &Tensor) -> Tensor {
        let [rows, both] = gate_up.size()[..] else { unreachable!("gate and up are a matrix") };
        let width = both / 2;
        fill(&[rows, width], |out| swiglu(elements(gate_up), width as usize, out, &self.threads))
    }
}

impl<E: Element + Stored> Linear for ExactLinear<E> {
    fn forward(&self, x: &Tensor) -> Tensor {
        let rows = x.size()[0];
        fill(&[rows, self.matrix.n_out() as i64], |y| self.matrix.product(elements(x), y, &self.threads))
    }

    fn add_to(&self, to: Tensor, x: &Tensor) -> Tensor {
        let y = self.forward(x);
        fill::<E>(&to.size(), |out| add(elements(&to), elements(&y), out, &self.threads))
    }
}

impl<E: Element + Stored> Attention for ExactAttention<E> {
    fn forward(&self, layer: usize, kv: &KvCache, q: &Tensor, _: &Tensor) -> Tensor {
        let cache = Cache {
            pool: elements::<E>(kv.pool(layer)),
            n_kv_heads: kv.n_kv_heads() as usize,
            block_tokens: kv.blocks.block_tokens() as usize,
            head_dim: q.size()[2] as usize,
        };
        let sight = |row: &Row| Sight { blocks: kv.blocks.table(row.sequence), tokens: row.tokens as usize };
        let sights: Vec<Sight<'_>> = self.rows.iter().map(sight).collect();
        let q = q.contiguous();
        let shape = [q.size()[0], q.size()[1] * q.size()[2]];
        fill(&shape, |out| attend(elements(&q), &cache, &sights, out, &self.threads))
    }
}
