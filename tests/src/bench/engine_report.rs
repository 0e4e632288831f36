//! What the engine reached beside its device.

use std::fmt;

use models::DecoderConfig;
use serde::Serialize;

use super::limits::Limits;
use super::spread::Spread;
use super::table::Table;

const BF16_BYTES: f64 = 2.0;

/// The least that a forward pass must move and compute.
#[derive(Debug, Clone, Copy)]
pub struct Costs {
    /// Parameters of the matrices that every row passes.
    layer_parameters: f64,
    /// Parameters of the matrix that gives logits, which only sampled rows pass.
    head_parameters: f64,
    /// Keys and values of one token in all layers, in bytes.
    kv_bytes_per_token: f64,
}

/// All figures.
#[derive(Debug, Clone, Serialize)]
pub struct EngineReport {
    /// The model folder's name.
    pub model: String,
    /// As users name it.
    pub device: String,
    /// Tokens of each sequence before the first decode step.
    pub context: u32,
    /// Decode steps a round.
    pub steps: u32,
    /// How often each thing was measured.
    pub rounds: u32,
    /// Of the device.
    pub limits: Limits,
    /// By batch.
    pub decode: Vec<DecodeFigures>,
    /// By length of the prompt.
    pub prefill: Vec<PrefillFigures>,
}

/// One batch.
#[derive(Debug, Clone, Serialize)]
pub struct DecodeFigures {
    batch: u32,
    tokens_per_second: Spread,
    /// Bytes of weights, keys and values that a step must read, over the time that copying as many takes.
    fraction_of_bandwidth: f64,
}

/// One prompt.
#[derive(Debug, Clone, Serialize)]
pub struct PrefillFigures {
    tokens: u32,
    tokens_per_second: Spread,
    /// Operations of the matrix products, over those that the device does in the same time.
    fraction_of_matrix_rate: f64,
}

impl Costs {
    /// Of a model in bf16.
    pub fn of(config: &DecoderConfig) -> Self {
        let (hidden, head_dim) = (config.hidden_size as f64, config.head_dim as f64);
        let (heads, kv_heads) = (config.num_attention_heads as f64, config.num_key_value_heads as f64);
        let layers = config.num_hidden_layers as f64;
        let layer = hidden * (2.0 * (heads + kv_heads) * head_dim + 3.0 * config.intermediate_size as f64);
        Self {
            layer_parameters: layers * layer,
            head_parameters: hidden * config.vocab_size as f64,
            kv_bytes_per_token: layers * 2.0 * kv_heads * head_dim * BF16_BYTES,
        }
    }

    fn decode_bytes(&self, batch: u32, context: u32) -> f64 {
        let weights = BF16_BYTES * (self.layer_parameters + self.head_parameters);
        weights + f64::from(batch) * f64::from(context) * self.kv_bytes_per_token
    }

    fn prefill_operations(&self, tokens: u32) -> f64 {
        2.0 * (f64::from(tokens) * self.layer_parameters + self.head_parameters)
    }
}

impl DecodeFigures {
    /// At `context` tokens a sequence.
    pub fn new(batch: u32, rate: Spread, costs: &Costs, context: u32, limits: &Limits) -> Self {
        let bytes_per_second = rate.median / f64::from(batch) * costs.decode_bytes(batch, context);
        let fraction_of_bandwidth = bytes_per_second / limits.copy_bytes_per_second.median;
        Self { batch, tokens_per_second: rate, fraction_of_bandwidth }
    }
}

impl PrefillFigures {
    /// Of a prompt of `tokens`.
    pub fn new(tokens: u32, rate: Spread, costs: &Costs, limits: &Limits) -> Self {
        let operations_per_second = rate.median / f64::from(tokens) * costs.prefill_operations(tokens);
        let fraction_of_matrix_rate = operations_per_second / limits.matrix_flops_per_second.median;
        Self { tokens, tokens_per_second: rate, fraction_of_matrix_rate }
    }
}

impl fmt::Display for EngineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, device, context, steps, rounds, limits, .. } = self;
        let mut table = Table::new(["", "tokens/s", "of the limit"]);
        for it in &self.decode {
            let rate = format!("{:.1}", it.tokens_per_second);
            let share = format!("{:.3} of bandwidth", it.fraction_of_bandwidth);
            table.row([format!("decode, batch {}", it.batch), rate, share]);
        }
        for it in &self.prefill {
            let rate = format!("{:.0}", it.tokens_per_second);
            let share = format!("{:.3} of matrix rate", it.fraction_of_matrix_rate);
            table.row([format!("prefill, {} tokens", it.tokens), rate, share]);
        }
        write!(
            f,
            "\
The engine alone on `{device}` with `{model}`, bf16, greedy; median [least–most] of {rounds} rounds
  device     copies {}B/s (read and written), multiplies bf16 matrices at {}FLOP/s
  decode     {steps} steps from {context} tokens of context; a step must read the weights, keys and values
  prefill    one prompt in one step; two operations a parameter and token

{table}",
            scaled(limits.copy_bytes_per_second.median),
            scaled(limits.matrix_flops_per_second.median),
        )
    }
}

/// With the prefix of its unit: `G` or `T`.
fn scaled(rate: f64) -> String {
    if rate < 1e12 { format!("{:.1} G", rate / 1e9) } else { format!("{:.2} T", rate / 1e12) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_at_full_bandwidth_is_the_whole_of_it() {
        let costs = Costs { layer_parameters: 900.0, head_parameters: 100.0, kv_bytes_per_token: 10.0 };
        let spread = |value| Spread::of([value]);
        let limits =
            Limits { copy_bytes_per_second: spread(4000.0), matrix_flops_per_second: spread(38_000.0) };
        // A step reads 2,000 bytes of weights and 2 · 100 · 10 of keys and values, in one second.
        let decode = DecodeFigures::new(2, spread(2.0), &costs, 100, &limits);
        assert_eq!(decode.fraction_of_bandwidth, 1.0);
        // 2 · (10 · 900 + 100) operations in 18,200 / 38,000 of a second.
        let prefill = PrefillFigures::new(10, spread(10.0), &costs, &limits);
        assert!((prefill.fraction_of_matrix_rate - 18_200.0 / 38_000.0).abs() < 1e-12);
    }
}
