//! Attention of rows over keys and values in blocks.

use std::ops::Range;
use std::slice::ChunksExact;

use crate::cpu::{self, Kernel};
use crate::element::Element;
use crate::exp::{exp, max, tanh};
use crate::lanes::{self, LANES};
use crate::threads::Threads;

/// Products that are worth handing to another thread.
const PIECE_PRODUCTS: usize = 64 << 10;

/// Keys and values of many sequences in one pool of blocks.
#[derive(Debug, Clone, Copy)]
pub struct Cache<'a, E> {
    /// `[n_blocks, 2, n_kv_heads, block_tokens, head_dim]`: keys, then values.
    pub pool: &'a [E],
    /// Heads of keys and values.
    pub n_kv_heads: usize,
    /// Tokens a block.
    pub block_tokens: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// What one row sees: its sequence up to itself, or the last part of that.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The sequence's blocks in the order of positions.
    pub blocks: &'a [u32],
    /// The first of its tokens that is seen.
    pub first: usize,
    /// How many of its tokens there are up to the row, those before the first included.
    pub tokens: usize,
}

/// How products of queries and keys become scores.
#[derive(Debug, Clone, Copy)]
pub struct Scoring {
    /// They are multiplied by this,
    pub scale: f32,
    /// then bent smoothly into ± this.
    pub softcap: Option<f32>,
}

/// Each row's weighted mean of the values that it sees.
///
/// `q` and `out`: `[rows, n_heads, head_dim]`; the query heads of one KV head follow each other. For each row and head, the
/// scores' exponentials are summed in eight lanes by position, and the weighted values are added in the order of positions.
pub fn attend<E: Element>(
    q: &[f32],
    cache: &Cache<'_, E>,
    rows: &[Sight<'_>],
    scoring: &Scoring,
    out: &mut [f32],
    threads: &Threads,
) {
    assert_eq!(q.len(), out.len());
    let group = out.len() / (rows.len() * cache.n_kv_heads).max(1);
    let work: usize = rows.iter().map(|row| 2 * row.seen() * group * cache.n_kv_heads).sum();
    let pieces = (work / PIECE_PRODUCTS).clamp(1, rows.len() * cache.n_kv_heads);
    let heads = (rows.len() * cache.n_kv_heads).div_ceil(pieces);
    threads.chunks(out, heads * group, |piece, out| {
        let mut scores = Vec::new();
        for (i, out) in out.chunks_mut(group).enumerate() {
            let head = piece * heads + i;
            let (row, kv_head) = (&rows[head / cache.n_kv_heads], head % cache.n_kv_heads);
            let q = &q[head * group..][..group];
            cpu::run(Group { q, cache, kv_head, row, scoring, scores: &mut scores, out });
        }
    });
}

/// The query heads of one row that share a KV head.
struct Group<'a, E> {
    /// `[heads, head_dim]`
    q: &'a [f32],
    cache: &'a Cache<'a, E>,
    kv_head: usize,
    row: &'a Sight<'a>,
    scoring: &'a Scoring,
    /// Memory for `[heads, tokens seen]`.
    scores: &'a mut Vec<f32>,
    /// `[heads, head_dim]`
    out: &'a mut [f32],
}

impl<E: Element> Kernel for Group<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Group { q, cache, kv_head, row, scoring, scores, out } = self;
        let (head_dim, Scoring { scale, softcap }) = (cache.head_dim, *scoring);
        scores.clear();
        let seen = row.seen();
        scores.resize(q.len() / head_dim * seen, 0.0);
        let mut vector = vec![0.0; head_dim];
        for part in row.parts(cache.block_tokens) {
            for (key, i) in cache.vectors(&part, 0, kv_head).zip(part.at..) {
                widen(key, &mut vector);
                for (q, scores) in q.chunks_exact(head_dim).zip(scores.chunks_exact_mut(seen)) {
                    scores[i] = lanes::dot(q, &vector) * scale;
                }
            }
        }
        for scores in scores.chunks_exact_mut(seen) {
            if let Some(cap) = softcap {
                scores.iter_mut().for_each(|score| *score = cap * tanh(*score / cap));
            }
            softmax(scores);
        }
        out.fill(0.0);
        for part in row.parts(cache.block_tokens) {
            for (value, i) in cache.vectors(&part, 1, kv_head).zip(part.at..) {
                widen(value, &mut vector);
                for (out, scores) in out.chunks_exact_mut(head_dim).zip(scores.chunks_exact(seen)) {
                    let weight = scores[i];
                    for (out, value) in out.iter_mut().zip(&vector) {
                        *out = weight.mul_add(*value, *out);
                    }
                }
            }
        }
    }
}

impl Sight<'_> {
    /// How many tokens the row sees.
    #[inline(always)]
    fn seen(&self) -> usize {
        self.tokens - self.first
    }

    /// What it sees, block by block.
    #[inline(always)]
    fn parts(&self, block_tokens: usize) -> impl Iterator<Item = Part> {
        let (first, tokens, blocks) = (self.first, self.tokens, self.blocks);
        (first / block_tokens..tokens.div_ceil(block_tokens)).map(move |i| {
            let start = i * block_tokens;
            let from = first.max(start);
            let within = from - start..tokens.min(start + block_tokens) - start;
            Part { block: blocks[i], within, at: from - first }
        })
    }
}

/// Tokens of one block.
struct Part {
    block: u32,
    within: Range<usize>,
    /// The place of the first among those that the row sees.
    at: usize,
}

impl<'a, E> Cache<'a, E> {
    /// The keys (0) or values (1) of these tokens.
    #[inline(always)]
    fn vectors(&self, part: &Part, key_or_value: usize, kv_head: usize) -> ChunksExact<'a, E> {
        let run = (part.block as usize * 2 + key_or_value) * self.n_kv_heads + kv_head;
        let first = run * self.block_tokens + part.within.start;
        self.pool[first * self.head_dim..][..part.within.len() * self.head_dim].chunks_exact(self.head_dim)
    }
}

#[inline(always)]
fn widen<E: Element>(from: &[E], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.to_f32();
    }
}

/// Turns scores into weights that add up to 1.
#[inline(always)]
fn softmax(scores: &mut [f32]) {
    let max = max(scores);
    let mut sums = [0.0; LANES];
    let (chunks, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - max);
            sums[lane] += chunk[lane];
        }
    }
    for (score, sum) in rest.iter_mut().zip(&mut sums) {
        *score = exp(*score - max);
        *sum += *score;
    }
    let scale = 1.0 / lanes::sum(sums);
    for score in scores {
        *score *= scale;
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    const HEADS: usize = 4;
    const KV_HEADS: usize = 2;
    const HEAD_DIM: usize = 20;
    const BLOCK: usize = 4;
    const BLOCKS: usize = 16;
    const SCORING: Scoring = Scoring { scale: 0.2, softcap: Some(30.0) };

    fn numbers(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin() * 2.0).collect()
    }

    fn cache<E>(pool: &[E]) -> Cache<'_, E> {
        Cache { pool, n_kv_heads: KV_HEADS, block_tokens: BLOCK, head_dim: HEAD_DIM }
    }

    #[test]
    fn a_row_is_the_softmax_of_what_it_sees() {
        let pool: Vec<bf16> = numbers(BLOCKS * 2 * KV_HEADS * BLOCK * HEAD_DIM, 0.77)
            .into_iter()
            .map(Element::from_f32)
            .collect();
        let blocks = [3, 9, 0, 15];
        let q = numbers(HEADS * HEAD_DIM, 0.31);
        let at = |key_or_value, kv_head, position: usize, i| -> f64 {
            let block = blocks[position / BLOCK] as usize;
            let vector = ((block * 2 + key_or_value) * KV_HEADS + kv_head) * BLOCK + position % BLOCK;
            f64::from(Element::to_f32(pool[vector * HEAD_DIM + i]))
        };
        for (first, softcap) in [(0, None), (3, None), (4, Some(1.5)), (13, None)] {
            let row = Sight { blocks: &blocks, first, tokens: 14 };
            let mut out = vec![0.0; q.len()];
            let scoring = Scoring { scale: 0.3, softcap };
            attend(&q, &cache(&pool), &[row], &scoring, &mut out, &Threads::new(1));
            for head in 0..HEADS {
                let kv_head = head / (HEADS / KV_HEADS);
                let q = &q[head * HEAD_DIM..][..HEAD_DIM];
                let weight = |p| {
                    let score: f64 = (0..HEAD_DIM).map(|i| f64::from(q[i]) * at(0, kv_head, p, i)).sum();
                    let cap = f64::from(softcap.unwrap_or(1e6));
                    ((score * 0.3 / cap).tanh() * cap).exp()
                };
                let sum: f64 = (first..row.tokens).map(weight).sum();
                for i in 0..HEAD_DIM {
                    let expected: f64 =
                        (first..row.tokens).map(|p| weight(p) / sum * at(1, kv_head, p, i)).sum();
                    let found = f64::from(out[head * HEAD_DIM + i]);
                    assert!((found - expected).abs() < 1e-5, "head {head}: {found} for {expected}");
                }
            }
        }
    }

    #[test]
    fn neither_company_nor_blocks_nor_what_lies_behind_change_a_bit() {
        let mut pool = numbers(BLOCKS * 2 * KV_HEADS * BLOCK * HEAD_DIM, 0.77);
        let q = numbers(40 * HEADS * HEAD_DIM, 0.31);
        let (one, other) = ([3, 9, 0, 15, 1, 2, 4, 5, 6, 7], [8, 10, 11]);
        let sights: Vec<Sight<'_>> = (1..=40)
            .map(|tokens| match tokens % 4 {
                3 => Sight { blocks: &other, first: 0, tokens: tokens.min(12) },
                _ => Sight { blocks: &one, first: tokens.saturating_sub(9), tokens },
            })
            .collect();
        let mut together = vec![0.0; q.len()];
        attend(&q, &cache(&pool), &sights, &SCORING, &mut together, &Threads::new(3));
        // Another place for block 15, whose last token is not seen by the rows before it.
        let run = 2 * KV_HEADS * BLOCK * HEAD_DIM;
        pool.copy_within(15 * run..16 * run, 14 * run);
        pool[15 * run..].fill(f32::NAN);
        let moved = [3, 9, 0, 14, 1, 2, 4, 5, 6, 7];
        for (row, sight) in sights.iter().enumerate() {
            let sight = Sight { blocks: if sight.blocks == one { &moved } else { sight.blocks }, ..*sight };
            let width = HEADS * HEAD_DIM;
            let mut alone = vec![0.0; width];
            attend(
                &q[row * width..][..width],
                &cache(&pool),
                &[sight],
                &SCORING,
                &mut alone,
                &Threads::new(1),
            );
            assert_eq!(alone, together[row * width..][..width], "row {row}");
        }
    }
}
