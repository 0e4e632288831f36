//! What `tokenway perplexity` found.

use std::fmt;

use pipelines::tools::Element;
use serde::Serialize;

use super::score::Scored;
use crate::tools::table::scaled;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub struct PerplexityReport {
    /// Tokens of a window.
    pub context: u32,
    /// How many windows.
    pub windows: usize,
    /// Tokens scored in all of them.
    pub tokens: usize,
    /// Of what is not quantised.
    pub dtype: Element,
    /// Of the CPU.
    pub threads: usize,
    /// The model.
    pub model: Predicted,
    /// The one that it is compared with.
    pub base: Option<Predicted>,
    /// Between them.
    pub divergence: Option<Divergence>,
}

/// One model.
#[derive(Debug, Serialize)]
pub struct Predicted {
    /// Name of its folder or file.
    pub name: String,
    /// Bytes of the matrices that a token goes through.
    pub row_bytes: u64,
    /// e to the mean surprise of a token.
    pub perplexity: f64,
    /// One standard error.
    pub perplexity_error: f64,
}

/// How far a model is from its base. Every error is one standard error over the scored tokens.
#[derive(Debug, Serialize)]
pub struct Divergence {
    /// Mean Kullback-Leibler divergence from the base's predictions, in nats a token.
    pub nats: f64,
    /// Of `nats`.
    pub nats_error: f64,
    /// At the token where it is largest.
    pub nats_max: f64,
    /// Perplexity over the base's.
    pub perplexity_ratio: f64,
    /// Of the ratio, from the differences token by token.
    pub perplexity_ratio_error: f64,
    /// Share of tokens where both find the same most probable.
    pub same_top: f64,
    /// Of the share.
    pub same_top_error: f64,
}

impl Predicted {
    pub(super) fn new(name: String, row_bytes: u64, scored: &Scored) -> Self {
        let (perplexity, perplexity_error) = scored.perplexity();
        Self { name, row_bytes, perplexity, perplexity_error }
    }
}

impl fmt::Display for Predicted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, row_bytes, perplexity, perplexity_error } = self;
        let bytes = scaled(*row_bytes as f64);
        write!(f, "perplexity {perplexity:.4} ± {perplexity_error:.4}  {name}, {bytes}B of matrices a token")
    }
}

impl fmt::Display for PerplexityReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { context, windows, tokens, dtype, model, .. } = self;
        writeln!(
            f,
            "{tokens} tokens scored in {windows} windows of {context}, {dtype}; ± one standard error"
        )?;
        if let Some(base) = &self.base {
            writeln!(f, "{base}")?;
        }
        write!(f, "{model}")?;
        let Some(it) = &self.divergence else { return Ok(()) };
        write!(
            f,
            "\ndivergence {:.6} ± {:.6} nats a token, at most {:.4}; perplexity × {:.5} ± {:.5}; same most probable token {:.2} ± {:.2} %",
            it.nats,
            it.nats_error,
            it.nats_max,
            it.perplexity_ratio,
            it.perplexity_ratio_error,
            100.0 * it.same_top,
            100.0 * it.same_top_error,
        )
    }
}
