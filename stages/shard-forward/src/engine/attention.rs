//! Causal attention of a step's rows over their sequences' keys and values, by libtorch.
//!
//! Query heads of one KV head are handled together: folded into query rows where a sequence has one row, expanded
//! without a copy where it has many. (`enable_gqa` of libtorch is eight times slower in bf16 on CPUs.)
//!
//! Keys come in whole blocks and, on the CPU, query rows of prefill in steps of `ROWS_STEP`: libtorch's attention compiles code
//! there for every pair of lengths that it meets and keeps it for good, 800 MiB after a few thousand prompts of up to 1,500 tokens.

use std::ops::Range;

use schemas::SequenceId;
use schemas::hidden::Slice;
use tch::{Device, Kind, Tensor};

use super::kv::KvCache;
use super::ops::Attention;

/// Query rows of a prefill are padded to a multiple of this on the CPU.
const ROWS_STEP: usize = 32;

/// How one step's rows attend, the same in every layer.
#[derive(Debug)]
pub(super) struct AttentionPlan {
    parts: Vec<Part>,
    rows: i64,
}

#[derive(Debug)]
enum Part {
    /// One row each of sequences of similar length.
    Decode(Decode),
    /// The first rows of a sequence: they attend to each other only.
    First { rows: Range<i64> },
    /// Later rows of a sequence.
    Chunk {
        rows: Range<i64>,
        /// Where the sequence's keys and values are.
        keys_values: Tensor,
        /// `[padded rows, tokens of whole blocks]`: 0 where a row sees a token, else −∞.
        mask: Tensor,
    },
}

#[derive(Debug)]
struct Decode {
    /// Which rows of the step; none when it is all of them in order.
    rows: Option<Tensor>,
    n_sequences: i64,
    /// Where the sequences' keys and values are.
    keys_values: Tensor,
    /// How many tokens of each are looked at.
    tokens: i64,
    /// `[n_sequences, 1, 1, tokens]`: 0 up to the sequence's end, then −∞; none when all have as many.
    mask: Option<Tensor>,
}

/// A slice of one row: its row in the step, its sequence and that sequence's tokens, its own included.
#[derive(Debug, Clone, Copy)]
struct DecodeRow {
    row: i64,
    sequence: SequenceId,
    tokens: u32,
}

impl AttentionPlan {
    /// Plans a step whose rows `kv` has made room for.
    pub(super) fn new(slices: &[Slice], kv: &KvCache, options: (Kind, Device)) -> Self {
        let mut parts = Vec::new();
        let mut decode = Vec::new();
        let mut row = 0;
        for slice in slices {
            let rows = row..row + slice.ids.len() as i64;
            let tokens = slice.start + slice.ids.len() as u32;
            if slice.ids.len() == 1 {
                decode.push(DecodeRow { row, sequence: slice.sequence, tokens });
            } else if slice.start == 0 {
                parts.push(Part::First { rows: rows.clone() });
            } else {
                let n_blocks = kv.blocks.table(slice.sequence).len();
                parts.push(Part::Chunk {
                    rows: rows.clone(),
                    keys_values: kv.gather_index(&[slice.sequence], n_blocks),
                    mask: causal_mask(slice, n_blocks * kv.blocks.block_tokens() as usize, options),
                });
            }
            row = rows.end;
        }
        let mixed = !parts.is_empty();
        let groups = group_by_length(decode);
        let whole = !mixed && groups.len() == 1;
        parts.extend(groups.iter().map(|group| Part::Decode(Decode::new(group, whole, kv, options))));
        Self { parts, rows: row }
    }
}

impl Attention for AttentionPlan {
    fn forward(&self, layer: usize, kv: &KvCache, q: &Tensor, keys_values: &Tensor) -> Tensor {
        if let [Part::Decode(decode @ Decode { rows: None, .. })] = &self.parts[..] {
            return decode.forward(layer, kv, q).view([self.rows, -1]);
        }
        let out = Tensor::empty(q.size(), (q.kind(), q.device()));
        for part in &self.parts {
            match part {
                Part::Decode(decode) => match &decode.rows {
                    Some(rows) => {
                        let attended = decode.forward(layer, kv, &q.index_select(0, rows));
                        let _ = out.shallow_clone().index_copy_(0, rows, &attended);
                    }
                    None => out.shallow_clone().copy_(&decode.forward(layer, kv, q)),
                },
                Part::First { rows } => {
                    let own = padded(&keys_values.narrow(0, rows.start, rows.end - rows.start));
                    let heads = own.chunk(2, 1);
                    let (k, v) = (heads[0].transpose(0, 1), heads[1].transpose(0, 1));
                    prefill(q, &out, rows, &k, &v, None);
                }
                Part::Chunk { rows, keys_values, mask } => {
                    let cached = kv.gather(layer, keys_values, 1);
                    prefill(q, &out, rows, &cached.get(0).get(0), &cached.get(1).get(0), Some(mask));
                }
            }
        }
        out.view([self.rows, -1])
    }
}

impl Decode {
    fn new(group: &[DecodeRow], whole: bool, kv: &KvCache, options: (Kind, Device)) -> Self {
        let sequences: Vec<SequenceId> = group.iter().map(|row| row.sequence).collect();
        let tokens = group.iter().map(|row| row.tokens).max().unwrap_or(0);
        let n_blocks = tokens.div_ceil(kv.blocks.block_tokens()) as usize;
        // Whole blocks on the CPU. Elsewhere equally long sequences go without a mask, which makes a quicker kernel possible.
        let equal = group.iter().all(|row| row.tokens == tokens);
        let whole_blocks = n_blocks as u32 * kv.blocks.block_tokens();
        let tokens = if equal && options.1 != Device::Cpu { tokens } else { whole_blocks };
        let full = group.iter().all(|row| row.tokens == tokens);
        let rows: Vec<i64> = group.iter().map(|row| row.row).collect();
        Self {
            rows: (!whole).then(|| Tensor::from_slice(&rows).to_device(options.1)),
            n_sequences: group.len() as i64,
            keys_values: kv.gather_index(&sequences, n_blocks),
            tokens: i64::from(tokens),
            mask: (!full).then(|| length_mask(group, tokens as usize, options)),
        }
    }

    /// `q`: `[n_sequences, n_heads, head_dim]` → the same shape.
    fn forward(&self, layer: usize, kv: &KvCache, q: &Tensor) -> Tensor {
        let cached = kv.gather(layer, &self.keys_values, self.n_sequences).narrow(3, 0, self.tokens);
        let (k, v) = (cached.get(0), cached.get(1));
        let (n_kv_heads, head_dim) = (k.size()[1], k.size()[3]);
        let folded = q.reshape([self.n_sequences, n_kv_heads, -1, head_dim]);
        let mask = self.mask.as_ref();
        let out = Tensor::scaled_dot_product_attention(&folded, &k, &v, mask, 0.0, false, None, false);
        out.reshape([self.n_sequences, -1, head_dim])
    }
}

/// Rows of one sequence: `q` and `out` are the step's, `[rows, n_heads, head_dim]`; `k` and `v` are
/// `[n_kv_heads, tokens, head_dim]`. Without a mask the rows are the sequence's first, padded in `k` and `v` too, and see
/// what is not after them.
fn prefill(q: &Tensor, out: &Tensor, rows: &Range<i64>, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) {
    let n_rows = rows.end - rows.start;
    let (n_kv_heads, head_dim) = (k.size()[0], k.size()[2]);
    let group = q.size()[1] / n_kv_heads;
    let q = padded(&q.narrow(0, rows.start, n_rows)).unflatten(1, [n_kv_heads, group]).permute([1, 2, 0, 3]);
    let expand = |heads: &Tensor| heads.unsqueeze(1).expand([n_kv_heads, group, -1, head_dim], false);
    let (k, v) = (expand(k), expand(v));
    let attended = Tensor::scaled_dot_product_attention(&q, &k, &v, mask, 0.0, mask.is_none(), None, false);
    let own = attended.permute([2, 0, 1, 3]).narrow(0, 0, n_rows);
    out.narrow(0, rows.start, n_rows).view([n_rows, n_kv_heads, group, head_dim]).copy_(&own);
}

/// To how many rows a prefill of `rows` rows is padded.
fn padded_rows(rows: usize, device: Device) -> usize {
    if device == Device::Cpu { rows.next_multiple_of(ROWS_STEP) } else { rows }
}

/// `rows`: `[rows, heads, head_dim]` → the same with rows of zeros up to `padded_rows`.
fn padded(rows: &Tensor) -> Tensor {
    if rows.device() != Device::Cpu {
        return rows.shallow_clone();
    }
    let n_rows = rows.size()[0] as usize;
    let missing = padded_rows(n_rows, Device::Cpu) - n_rows;
    rows.constant_pad_nd([0, 0, 0, 0, 0, missing as i64])
}

/// `[padded rows, tokens]` for the rows of `slice`: 0 where a row sees a token, else −∞.
fn causal_mask(slice: &Slice, tokens: usize, options: (Kind, Device)) -> Tensor {
    let rows = padded_rows(slice.ids.len(), options.1);
    Tensor::full([rows as i64, tokens as i64], f64::NEG_INFINITY, options).triu(i64::from(slice.start) + 1)
}

fn length_mask(group: &[DecodeRow], tokens: usize, options: (Kind, Device)) -> Tensor {
    let lengths: Vec<i64> = group.iter().map(|row| i64::from(row.tokens)).collect();
    let lengths = Tensor::from_slice(&lengths).to_device(options.1).view([-1, 1, 1, 1]);
    let behind = Tensor::arange(tokens as i64, (Kind::Int64, options.1)).ge_tensor(&lengths);
    Tensor::zeros(behind.size(), options).masked_fill(&behind, f64::NEG_INFINITY)
}

/// Groups in which none is more than twice as long as another: all of a group are padded to its longest.
fn group_by_length(mut rows: Vec<DecodeRow>) -> Vec<Vec<DecodeRow>> {
    let shortest = rows.iter().map(|row| row.tokens).min().unwrap_or(0);
    if rows.iter().all(|row| row.tokens <= 2 * shortest) {
        return if rows.is_empty() { Vec::new() } else { vec![rows] };
    }
    rows.sort_by_key(|row| row.tokens);
    let mut groups: Vec<Vec<DecodeRow>> = Vec::new();
    for row in rows {
        match groups.last_mut() {
            Some(group) if row.tokens <= 2 * group[0].tokens => group.push(row),
            _ => groups.push(vec![row]),
        }
    }
    groups
}
