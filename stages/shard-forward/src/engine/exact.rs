//! A layer's arithmetic by the `kernels` crate: every row has the same bits however many are computed with it, in whatever
//! chunks it came, and on any number of threads.
//!
//! Between two operations everything is in f32.

use std::marker::PhantomData;
use std::sync::Arc;

use kernels::attention::{Cache, Scoring as Scores, Sight, attend};
use kernels::element::Element;
use kernels::matrix::Matrix;
use kernels::rows::{Angles, Gate, add, gated, rms_norm, rotate, softcap};
use kernels::threads::Threads;
use models::Activation;
use schemas::SequenceId;
use schemas::hidden::Slice;
use tch::{Kind, Tensor};

use super::kv::KvCache;
use super::memory::{Stored, elements, fill};
use super::ops::{Attention, Linear, Ops, Scoring};
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
    scoring: Scores,
    threads: Arc<Threads>,
    element: PhantomData<fn() -> E>,
}

struct Row {
    sequence: SequenceId,
    /// From which token on it sees.
    first: u32,
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
        let (weight, epsilon, threads) = (weight.tensor(), epsilon as f32, &self.threads);
        fill(&x.size(), |out| match (x.kind(), weight.kind()) {
            (Kind::Float, Kind::Float) => {
                rms_norm::<f32, f32>(elements(x), elements(weight), epsilon, out, threads)
            }
            (Kind::Float, _) => rms_norm::<f32, E>(elements(x), elements(weight), epsilon, out, threads),
            (_, Kind::Float) => rms_norm::<E, f32>(elements(x), elements(weight), epsilon, out, threads),
            _ => rms_norm::<E, E>(elements(x), elements(weight), epsilon, out, threads),
        })
    }

    fn rotate(&self, x: &Tensor, rotation: &Rotation) -> Tensor {
        let (cos, sin) = rotation.tables();
        let (head_dim, rotary_dim) = (x.size()[2] as usize, cos.size()[2] as usize);
        let angles = Angles { cos: elements(cos), sin: elements(sin), rotary_dim, head_dim };
        let x = x.contiguous();
        fill(&x.size(), |out| rotate(elements(&x), &angles, out, &self.threads))
    }

    fn attention(
        &self,
        slices: &[Slice],
        _: &KvCache,
        window: Option<u32>,
        scoring: Scoring,
    ) -> Box<dyn Attention> {
        let rows = slices.iter().flat_map(|slice| {
            let end = slice.start + slice.ids.len() as u32;
            let first = |tokens: u32| window.map_or(0, |window| tokens.saturating_sub(window));
            (slice.start + 1..=end).map(move |tokens| Row {
                sequence: slice.sequence,
                first: first(tokens),
                tokens,
            })
        });
        let (rows, threads) = (rows.collect(), self.threads.clone());
        let scoring =
            Scores { scale: scoring.scale as f32, softcap: scoring.softcap.map(|softcap| softcap as f32) };
        Box::new(ExactAttention::<E> { rows, scoring, threads, element: PhantomData })
    }

    fn gated(&self, gate_up: &Tensor, activation: Activation) -> Tensor {
        let [rows, both] = gate_up.size()[..] else { unreachable!("gate and up are a matrix") };
        let width = both / 2;
        let gate = match activation {
            Activation::Silu => Gate::Silu,
            Activation::GeluTanh => Gate::GeluTanh,
            Activation::Relu2 => Gate::Relu2,
        };
        fill(&[rows, width], |out| gated(elements(gate_up), width as usize, gate, out, &self.threads))
    }

    fn add(&self, to: Tensor, y: &Tensor) -> Tensor {
        fill::<E>(&to.size(), |out| add(elements(&to), elements(y), out, &self.threads))
    }

    fn softcap(&self, logits: Tensor, cap: f64) -> Tensor {
        fill(&logits.size(), |out| softcap(elements(&logits), cap as f32, out, &self.threads))
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

    fn bytes(&self) -> u64 {
        (self.matrix.n_out() * self.matrix.n_in() * size_of::<E>()) as u64
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
        let sight = |row: &Row| Sight {
            blocks: kv.blocks.table(row.sequence),
            first: row.first as usize,
            tokens: row.tokens as usize,
        };
        let sights: Vec<Sight<'_>> = self.rows.iter().map(sight).collect();
        let q = q.contiguous();
        let shape = [q.size()[0], q.size()[1] * q.size()[2]];
        fill(&shape, |out| attend(elements(&q), &cache, &sights, &self.scoring, out, &self.threads))
    }
}
