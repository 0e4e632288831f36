//! What `tokenway profile` found.

use std::fmt;
use std::path::PathBuf;

use pipelines::tools::Element;
use serde::Serialize;

use super::Phase;
use super::summary::{Total, by_layer, by_operation};
use crate::tools::limits::Limits;
use crate::tools::table::{percent, scaled, table};

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// Token ids to hidden states.
    Embedding,
    /// Root mean squares.
    Norms,
    /// Queries, keys and values, and the output of attention.
    Projections,
    /// Rotary embedding and attention.
    Attention,
    /// Gated MLPs and experts.
    Mlp,
    /// The last norm, logits, and what is wanted of them.
    Head,
    /// What is between them.
    Other,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct ProfileReport {
    /// Name of the model's folder or file.
    pub model: String,
    /// Where it was computed.
    pub device: String,
    /// Of what is not quantised.
    pub dtype: Element,
    /// Of the CPU.
    pub threads: usize,
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Sequences that generated together.
    pub batch: u16,
    /// Of the machine.
    pub limits: Limits,
    /// The trace that was written.
    pub trace: Option<PathBuf>,
    /// Prefill and decode.
    pub phases: Vec<PhaseReport>,
}

/// Steps of one kind.
#[derive(Debug, Serialize)]
pub struct PhaseReport {
    /// `prefill` or `decode`.
    pub name: &'static str,
    /// Rows of a step.
    pub rows: u32,
    /// Recorded steps.
    pub steps: u32,
    /// Of a recorded step.
    pub seconds_per_step: f64,
    /// Of a step that is not recorded.
    pub undisturbed_seconds_per_step: f64,
    /// Undisturbed.
    pub tokens_per_second: f64,
    /// By what they are for.
    pub groups: Vec<GroupRow>,
    /// By operation, that of the most time first.
    pub operations: Vec<OperationRow>,
    /// By layer, in order.
    pub layers: Vec<LayerRow>,
}

/// Operations for one thing.
#[derive(Debug, Serialize)]
pub struct GroupRow {
    /// What they are for.
    pub group: Group,
    /// In a step.
    pub seconds_per_step: f64,
    /// Of the parts of the step.
    pub share: f64,
}

/// One operation.
#[derive(Debug, Serialize)]
pub struct OperationRow {
    /// What it is for.
    pub group: Group,
    /// Its name.
    pub name: String,
    /// In a step.
    pub calls_per_step: f64,
    /// Of all its calls in a step.
    pub seconds_per_step: f64,
    /// Of the parts of the step.
    pub share: f64,
    /// Floating-point operations of its products.
    pub flops_per_second: f64,
    /// Over what the machine multiplies.
    pub share_of_matrix_rate: f64,
    /// Bytes that it must read and write.
    pub bytes_per_second: f64,
    /// Over what the machine reads.
    pub share_of_read_rate: f64,
}

/// One layer.
#[derive(Debug, Serialize)]
pub struct LayerRow {
    /// Its number.
    pub layer: usize,
    /// In a step.
    pub seconds_per_step: f64,
}

impl PhaseReport {
    pub(super) fn new(phase: &Phase, limits: &Limits) -> Self {
        let steps = f64::from(phase.steps);
        let totals = by_operation(&phase.recording);
        let whole = totals.values().map(|total| total.time.as_secs_f64()).sum::<f64>();
        let mut groups: Vec<GroupRow> = Vec::new();
        let mut operations = Vec::with_capacity(totals.len());
        // By group first.
        for ((group, name), total) in totals {
            let row = OperationRow::new((group, name), &total, (steps, whole), limits);
            match groups.last_mut().filter(|last| last.group == group) {
                Some(last) => {
                    last.seconds_per_step += row.seconds_per_step;
                    last.share += row.share;
                }
                None => {
                    let (seconds_per_step, share) = (row.seconds_per_step, row.share);
                    groups.push(GroupRow { group, seconds_per_step, share });
                }
            }
            operations.push(row);
        }
        operations.sort_by(|a, b| b.seconds_per_step.total_cmp(&a.seconds_per_step));
        let layers = by_layer(&phase.recording).into_iter().enumerate();
        Self {
            name: phase.name,
            rows: phase.rows,
            steps: phase.steps,
            seconds_per_step: phase.seconds / steps,
            undisturbed_seconds_per_step: phase.undisturbed_seconds / steps,
            tokens_per_second: f64::from(phase.rows) * steps / phase.undisturbed_seconds,
            groups,
            operations,
            layers: layers
                .map(|(layer, time)| LayerRow { layer, seconds_per_step: time.as_secs_f64() / steps })
                .collect(),
        }
    }
}

impl OperationRow {
    fn new(
        (group, name): (Group, String),
        total: &Total,
        (steps, whole): (f64, f64),
        limits: &Limits,
    ) -> Self {
        let seconds = total.time.as_secs_f64();
        // A place that was left at once has taken no time.
        let rate = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let (flops, bytes) = (rate(total.flops), rate(total.bytes));
        Self {
            group,
            name,
            calls_per_step: total.calls as f64 / steps,
            seconds_per_step: seconds / steps,
            share: if whole > 0.0 { seconds / whole } else { 0.0 },
            flops_per_second: flops,
            share_of_matrix_rate: flops / limits.matrix_flops_per_second,
            bytes_per_second: bytes,
            share_of_read_rate: bytes / limits.read_bytes_per_second,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Group::Embedding => "embedding",
            Group::Norms => "norms",
            Group::Projections => "projections",
            Group::Attention => "attention",
            Group::Mlp => "mlp",
            Group::Head => "head",
            Group::Other => "other",
        })
    }
}

impl fmt::Display for PhaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |seconds: f64| format!("{:.3}", 1e3 * seconds);
        writeln!(
            f,
            "{}: {} rows a step, {} ms, {:.1} tokens/s; recorded {} ms",
            self.name,
            self.rows,
            milliseconds(self.undisturbed_seconds_per_step),
            self.tokens_per_second,
            milliseconds(self.seconds_per_step),
        )?;
        let groups = self.groups.iter().map(|row| format!("{} {}", row.group, percent(row.share)));
        writeln!(f, "  {}", groups.collect::<Vec<_>>().join(", "))?;
        let header =
            ["for", "operation", "calls", "ms", "of the step", "FLOP/s", "of matrix", "B/s", "of read"];
        let mut table = table(&header, 2);
        let rate = |rate: f64| if rate > 0.0 { scaled(rate) } else { String::new() };
        let share = |share: f64| if share > 0.0 { percent(share) } else { String::new() };
        for row in &self.operations {
            table.add_row([
                row.group.to_string(),
                row.name.clone(),
                format!("{:.0}", row.calls_per_step),
                milliseconds(row.seconds_per_step),
                percent(row.share),
                rate(row.flops_per_second),
                share(row.share_of_matrix_rate),
                rate(row.bytes_per_second),
                share(row.share_of_read_rate),
            ]);
        }
        writeln!(f, "{table}")?;
        let layers = self.layers.iter().map(|row| milliseconds(row.seconds_per_step));
        write!(f, "  layers, ms: {}", layers.collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for ProfileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, device, dtype, threads, prompt, batch, limits, .. } = self;
        writeln!(f, "{model} on {device}, {dtype}, {threads} threads; prompt of {prompt}, batch {batch}")?;
        write!(
            f,
            "this machine reads {}B/s and multiplies at {}FLOP/s",
            scaled(limits.read_bytes_per_second),
            scaled(limits.matrix_flops_per_second),
        )?;
        for phase in &self.phases {
            write!(f, "\n\n{phase}")?;
        }
        match &self.trace {
            Some(path) => write!(f, "\n\ntrace in `{}`", path.display()),
            None => Ok(()),
        }
    }
}
