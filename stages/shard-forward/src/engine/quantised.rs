//! Linear layers of matrices that stay quantised, on the CPU, for either kind of arithmetic: a row has the same bits whatever is
//! computed with it.

use std::sync::Arc;

use kernels::quant::{Activations, QuantMatrix};
use kernels::threads::Threads;
use tch::{Kind, Tensor};

use super::memory::{elements, fill};
use super::ops::Linear;
use super::weights::{MappedBytes, Weight};

/// One matrix.
#[derive(Debug)]
pub(super) struct QuantisedLinear {
    matrix: QuantMatrix<MappedBytes>,
    /// `[out_features]`, f32.
    bias: Option<Tensor>,
    /// Of what it gives: [`Ops::between`](super::ops::Ops::between).
    kind: Kind,
    threads: Arc<Threads>,
}

/// Several of the same input, their outputs side by side.
#[derive(Debug)]
pub(super) struct SideBySide(Vec<Box<dyn Linear>>);

impl QuantisedLinear {
    /// `bias`: `[out_features]`.
    pub(super) fn new(
        matrix: QuantMatrix<MappedBytes>,
        bias: Option<Weight>,
        kind: Kind,
        threads: Arc<Threads>,
    ) -> Self {
        // A copy, since a mapped tensor that is f32 already would outlive its file.
        let bias = bias.map(|bias| bias.tensor().to_kind(Kind::Float).copy());
        Self { matrix, bias, kind, threads }
    }

    /// In f32.
    fn product(&self, x: &Tensor) -> Tensor {
        let x = x.to_kind(Kind::Float).contiguous();
        let x_quantised = Activations::new(elements(&x), self.matrix.n_in(), &self.threads);
        let y = fill(&[x.size()[0], self.matrix.n_out() as i64], |y| {
            self.matrix.product(&x_quantised, y, &self.threads);
        });
        match &self.bias {
            Some(bias) => y + bias,
            None => y,
        }
    }
}

impl Linear for QuantisedLinear {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.product(x).to_kind(self.kind)
    }

    fn add_to(&self, to: Tensor, x: &Tensor) -> Tensor {
        added(to, &self.forward(x))
    }

    fn bytes(&self) -> u64 {
        let row = self.matrix.format().row_bytes(self.matrix.n_in()).unwrap_or_default();
        (row * self.matrix.n_out()) as u64
    }
}

impl SideBySide {
    /// One alone stays as it is.
    pub(super) fn of(mut parts: Vec<Box<dyn Linear>>) -> Box<dyn Linear> {
        match parts.len() {
            1 => parts.remove(0),
            _ => Box::new(Self(parts)),
        }
    }
}

impl Linear for SideBySide {
    fn forward(&self, x: &Tensor) -> Tensor {
        let parts: Vec<Tensor> = self.0.iter().map(|part| part.forward(x)).collect();
        Tensor::cat(&parts, 1)
    }

    fn add_to(&self, to: Tensor, x: &Tensor) -> Tensor {
        added(to, &self.forward(x))
    }

    fn warm_up(&self, rows: i64) {
        self.0.iter().for_each(|part| part.warm_up(rows));
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|part| part.bytes()).sum()
    }
}

/// Rounded once to the kind of `to`.
pub(super) fn added(to: Tensor, y: &Tensor) -> Tensor {
    let kind = to.kind();
    (to.to_kind(y.kind()) + y).to_kind(kind)
}
