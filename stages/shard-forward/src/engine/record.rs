//! Where a step's time goes: arithmetic that notes when each of its operations began and ended.
//!
//! It stands around an engine's own [`Ops`] when the engine is loaded to be recorded. An engine that is loaded to serve has none
//! of it, but for one call a layer that does nothing.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use models::Activation;
use schemas::hidden::Slice;
use tch::{Cuda, Device, Kind, Tensor};

use super::kv::KvCache;
use super::ops::{Attention, Linear, Ops, Scoring};
use super::rope::Rotation;
use super::weights::Weight;

/// A part of a step. Between the first and the end of a step every moment belongs to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Token ids become hidden states.
    Embedding,
    /// Room in the cache, rotations, masks: what is the same in every layer.
    Plan,
    /// A decoder layer, by its number in the engine.
    Layer(usize),
    /// The last norm and the logits.
    Head,
    /// Sums and candidates of logits.
    Rows,
    /// No part of a step.
    Outside,
}

/// One part of a step as it was computed.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// Which.
    pub place: Place,
    /// When it began, since the recorder was made.
    pub start: Duration,
    /// How long it took.
    pub length: Duration,
}

/// One operation as it was computed.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Its name; of a linear layer, the names of its matrices in the checkpoint.
    pub name: Arc<str>,
    /// Where it was called.
    pub place: Place,
    /// When it began, since the recorder was made.
    pub start: Duration,
    /// How long it took.
    pub length: Duration,
    /// Floating-point operations of its products; 0 where it has none.
    pub flops: f64,
    /// Bytes that it must read and write: weights, keys and values once, rows in and out.
    pub bytes: f64,
}

/// What was recorded.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// In the order in which they were left.
    pub spans: Vec<Span>,
    /// In the order in which they ended.
    pub operations: Vec<Operation>,
}

/// Notes spans and operations while it is on. Clones are the same recorder.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    device: Device,
    epoch: Instant,
    is_on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    place: Place,
    since: Duration,
    recording: Recording,
}

impl Recorder {
    /// Is off at first. On a GPU it waits for `device` before it looks at the clock, so steps take longer there while it is on.
    pub(super) fn new(device: Device) -> Self {
        let state = State { place: Place::Outside, since: Duration::ZERO, recording: Recording::default() };
        let (epoch, is_on, state) = (Instant::now(), AtomicBool::new(false), Mutex::new(state));
        Self(Arc::new(Inner { device, epoch, is_on, state }))
    }

    /// Notes what comes from now on.
    pub fn start(&self) {
        self.0.is_on.store(true, Ordering::Relaxed);
    }

    /// Notes nothing more, and gives what was noted.
    pub fn stop(&self) -> Recording {
        self.0.is_on.store(false, Ordering::Relaxed);
        let mut state = self.state();
        state.place = Place::Outside;
        std::mem::take(&mut state.recording)
    }

    fn is_on(&self) -> bool {
        self.0.is_on.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        if let Device::Cuda(index) = self.0.device {
            Cuda::synchronize(index as i64);
        }
        self.0.epoch.elapsed()
    }

    /// Leaves the part of the step where it is.
    fn enter(&self, place: Place) {
        if !self.is_on() {
            return;
        }
        let now = self.now();
        let mut state = self.state();
        let (left, start) = (state.place, state.since);
        if left != Place::Outside {
            state.recording.spans.push(Span { place: left, start, length: now.saturating_sub(start) });
        }
        (state.place, state.since) = (place, now);
    }

    /// Does `work`, whose `cost` is floating-point operations and bytes.
    fn time<T>(&self, name: &Arc<str>, work: impl FnOnce() -> T, cost: impl FnOnce(&T) -> (f64, f64)) -> T {
        if !self.is_on() {
            return work();
        }
        let start = self.now();
        let done = work();
        let length = self.now().saturating_sub(start);
        let (flops, bytes) = cost(&done);
        let mut state = self.state();
        let place = state.place;
        let name = Arc::clone(name);
        state.recording.operations.push(Operation { name, place, start, length, flops, bytes });
        done
    }
}

/// `inner`, recorded.
#[derive(Debug)]
pub(super) struct Recorded {
    inner: Box<dyn Ops>,
    recorder: Recorder,
    names: Names,
}

#[derive(Debug)]
struct Names {
    norm: Arc<str>,
    rotary: Arc<str>,
    attention: Arc<str>,
    activation: Arc<str>,
    add: Arc<str>,
    softcap: Arc<str>,
}

#[derive(Debug)]
struct RecordedLinear {
    name: Arc<str>,
    inner: Box<dyn Linear>,
    recorder: Recorder,
}

struct RecordedAttention {
    inner: Box<dyn Attention>,
    recorder: Recorder,
    name: Arc<str>,
    /// Pairs of a row and a token that it sees.
    seen: f64,
    /// Tokens whose keys and values are needed.
    tokens: f64,
}

impl Recorded {
    pub(super) fn new(inner: Box<dyn Ops>, recorder: Recorder) -> Self {
        let names = Names {
            norm: "norm".into(),
            rotary: "rotary".into(),
            attention: "attention".into(),
            activation: "activation".into(),
            add: "add".into(),
            softcap: "softcap".into(),
        };
        Self { inner, recorder, names }
    }
}

impl Ops for Recorded {
    fn between(&self) -> Kind {
        self.inner.between()
    }

    fn linear(&self, weight: Weight, bias: Option<Weight>) -> Box<dyn Linear> {
        self.inner.linear(weight, bias)
    }

    fn named(&self, name: &str, linear: Box<dyn Linear>) -> Box<dyn Linear> {
        Box::new(RecordedLinear { name: name.into(), inner: linear, recorder: self.recorder.clone() })
    }

    fn enter(&self, place: Place) {
        self.recorder.enter(place);
    }

    fn rms_norm(&self, x: &Tensor, weight: &Weight, epsilon: f64) -> Tensor {
        let work = || self.inner.rms_norm(x, weight, epsilon);
        self.recorder.time(&self.names.norm, work, |y| (0.0, bytes(x) + bytes(y)))
    }

    fn rotate(&self, x: &Tensor, rotation: &Rotation) -> Tensor {
        let work = || self.inner.rotate(x, rotation);
        self.recorder.time(&self.names.rotary, work, |y| (0.0, bytes(x) + bytes(y)))
    }

    fn attention(
        &self,
        slices: &[Slice],
        kv: &KvCache,
        window: Option<u32>,
        scoring: Scoring,
    ) -> Box<dyn Attention> {
        let inner = self.inner.attention(slices, kv, window, scoring);
        let (recorder, name) = (self.recorder.clone(), Arc::clone(&self.names.attention));
        let (seen, tokens) = sight(slices, window);
        Box::new(RecordedAttention { inner, recorder, name, seen, tokens })
    }

    fn gated(&self, gate_up: &Tensor, activation: Activation) -> Tensor {
        let work = || self.inner.gated(gate_up, activation);
        self.recorder.time(&self.names.activation, work, |y| (0.0, bytes(gate_up) + bytes(y)))
    }

    fn add(&self, to: Tensor, y: &Tensor) -> Tensor {
        let work = || self.inner.add(to, y);
        self.recorder.time(&self.names.add, work, |sum| (0.0, bytes(y) + 2.0 * bytes(sum)))
    }

    fn softcap(&self, logits: Tensor, cap: f64) -> Tensor {
        let work = || self.inner.softcap(logits, cap);
        self.recorder.time(&self.names.softcap, work, |bent| (0.0, 2.0 * bytes(bent)))
    }
}

impl RecordedLinear {
    /// Of `x` as rows that give `y`.
    fn cost(&self, x: &Tensor, y: &Tensor) -> (f64, f64) {
        let flops = 2.0 * elements(x) * y.size().last().map_or(0.0, |&n_out| n_out as f64);
        (flops, self.inner.bytes() as f64 + bytes(x) + bytes(y))
    }
}

impl Linear for RecordedLinear {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.recorder.time(&self.name, || self.inner.forward(x), |y| self.cost(x, y))
    }

    fn add_to(&self, to: Tensor, x: &Tensor) -> Tensor {
        self.recorder.time(&self.name, || self.inner.add_to(to, x), |y| self.cost(x, y))
    }

    fn warm_up(&self, rows: i64) {
        self.inner.warm_up(rows);
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
}

impl Attention for RecordedAttention {
    fn forward(&self, layer: usize, kv: &KvCache, q: &Tensor, keys_values: &Tensor) -> Tensor {
        let work = || self.inner.forward(layer, kv, q, keys_values);
        self.recorder.time(&self.name, work, |y| {
            let width = y.size().last().map_or(0.0, |&width| width as f64);
            // A product with the keys and one with the values.
            let flops = 4.0 * self.seen * width;
            let token_bytes =
                bytes(keys_values) / keys_values.size().first().map_or(1.0, |&rows| rows as f64);
            (flops, self.tokens * token_bytes + bytes(q) + bytes(y))
        })
    }
}

/// Pairs of a row and a token that it sees, and tokens that some row sees.
fn sight(slices: &[Slice], window: Option<u32>) -> (f64, f64) {
    let (mut seen, mut tokens) = (0.0, 0.0);
    for slice in slices {
        let end = slice.start + slice.ids.len() as u32;
        let own = |position: u32| window.map_or(position + 1, |window| window.min(position + 1));
        seen += (slice.start..end).map(|position| f64::from(own(position))).sum::<f64>();
        tokens += f64::from(end - slice.start + own(slice.start) - 1);
    }
    (seen, tokens)
}

fn elements(tensor: &Tensor) -> f64 {
    tensor.numel() as f64
}

fn bytes(tensor: &Tensor) -> f64 {
    elements(tensor) * tensor.kind().elt_size_in_bytes() as f64
}

#[cfg(test)]
mod tests {
    use schemas::SequenceId;

    use super::*;

    #[test]
    fn a_row_sees_what_is_before_it_and_no_more_than_its_window() {
        let slice = |start: u32, rows: usize| Slice {
            sequence: SequenceId(1),
            start,
            ids: vec![0; rows],
            sample: true,
        };
        assert_eq!(sight(&[slice(0, 3)], None), (6.0, 3.0));
        assert_eq!(sight(&[slice(0, 3)], Some(2)), (5.0, 3.0));
        assert_eq!(sight(&[slice(9, 1), slice(4, 2)], None), (10.0 + 5.0 + 6.0, 16.0));
        assert_eq!(sight(&[slice(9, 2)], Some(4)), (8.0, 5.0));
    }

    #[test]
    fn every_moment_of_a_step_belongs_to_one_place() {
        let recorder = Recorder::new(Device::Cpu);
        recorder.enter(Place::Head);
        assert!(recorder.stop().spans.is_empty(), "it is off at first");
        recorder.start();
        for place in [Place::Embedding, Place::Layer(0), Place::Layer(1), Place::Outside, Place::Outside] {
            recorder.enter(place);
        }
        let name: Arc<str> = "nothing".into();
        assert_eq!(recorder.time(&name, || 7, |_| (1.0, 2.0)), 7);
        let recording = recorder.stop();
        let places: Vec<Place> = recording.spans.iter().map(|span| span.place).collect();
        assert_eq!(places, [Place::Embedding, Place::Layer(0), Place::Layer(1)]);
        assert!(recording.spans.windows(2).all(|pair| pair[0].start + pair[0].length == pair[1].start));
        assert_eq!(recording.operations[0].place, Place::Outside);
    }
}
