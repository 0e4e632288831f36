//! What `tokenway bench` found.

use std::fmt;

use pipelines::tools::Element;
use serde::Serialize;

use crate::tools::limits::Limits;
use crate::tools::sample::Sample;
use crate::tools::table::{percent, scaled, table};

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A prompt of so many tokens.
    Prompt(u32),
    /// A generation of so many tokens.
    Generation(u32),
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct BenchReport {
    /// Name of the model's folder or file.
    pub model: String,
    /// Where it was computed.
    pub device: String,
    /// Of what is not quantised: `f32` or `bf16`.
    pub dtype: Element,
    /// Of the CPU.
    pub threads: usize,
    /// Bytes of the matrices that a token goes through.
    pub row_bytes: u64,
    /// Times that each was measured.
    pub repetitions: u16,
    /// Of the machine.
    pub limits: Limits,
    /// One a test and batch.
    pub rows: Vec<Row>,
}

/// One test at one batch.
#[derive(Debug, Serialize)]
pub struct Row {
    /// `pp512` or `tg128`.
    pub test: String,
    /// Sequences together.
    pub batch: u16,
    /// Tokens of each.
    pub tokens: u32,
    /// Of all sequences together.
    pub tokens_per_second: Sample,
    /// Of generation alone in its batch: bytes of the matrices read a second, over what the machine reads.
    pub share_of_read_rate: Option<f64>,
}

impl Work {
    /// How many tokens.
    pub fn tokens(self) -> u32 {
        match self {
            Work::Prompt(tokens) | Work::Generation(tokens) => tokens,
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Prompt(tokens) => write!(f, "pp{tokens}"),
            Work::Generation(tokens) => write!(f, "tg{tokens}"),
        }
    }
}

impl Row {
    pub(super) fn new(work: Work, batch: u16, rate: Sample, row_bytes: u64, limits: &Limits) -> Self {
        let alone = batch == 1 && matches!(work, Work::Generation(_));
        let share = row_bytes as f64 * rate.mean / limits.read_bytes_per_second;
        Self {
            test: work.to_string(),
            batch,
            tokens: work.tokens(),
            tokens_per_second: rate,
            share_of_read_rate: alone.then_some(share),
        }
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, device, dtype, threads, row_bytes, repetitions, limits, .. } = self;
        writeln!(
            f,
            "{model} on {device}, {dtype}, {threads} threads; mean ± standard deviation of {repetitions}"
        )?;
        writeln!(
            f,
            "a token goes through {}B of matrices; this machine reads {}B/s and multiplies at {}FLOP/s",
            scaled(*row_bytes as f64),
            scaled(limits.read_bytes_per_second),
            scaled(limits.matrix_flops_per_second),
        )?;
        let mut table = table(&["test", "batch", "tokens/s", "of the read rate"], 1);
        for row in &self.rows {
            let rate = &row.tokens_per_second;
            table.add_row([
                row.test.clone(),
                row.batch.to_string(),
                format!("{:.1} ± {:.1}", rate.mean, rate.deviation),
                row.share_of_read_rate.map(percent).unwrap_or_default(),
            ]);
        }
        write!(f, "{table}")
    }
}
