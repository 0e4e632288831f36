//! Products with quantised weights.

use std::borrow::Borrow;
use std::marker::PhantomData;

use super::activations::{Activations, Row};
#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
use super::block::{BlockFormat, GROUP, Shape, Unpacked};
use super::format::{Format, Visitor};
use super::vectors::{Portable, Vectors};
use crate::cpu::Kernel;
use crate::lanes::{self, LANES, Lanes};
use crate::threads::Threads;

/// Rows of activations whose sums are in registers at once.
const ROWS_MAX: usize = 4;
/// Bytes of weights that one piece of work reads.
const PIECE_BYTES: usize = 128 << 10;
/// Bytes of unpacked weights that all rows go through, one few after the other: they should stay in a core's cache.
const UNPACKED_MAX: usize = 128 << 10;

/// `weights`: `[n_out, row_bytes]`, `sums`: `[n_out, rows]`. Not generic, so that it is compiled in this crate only.
pub(crate) fn transposed_product(
    format: Format,
    weights: &[u8],
    row_bytes: usize,
    x: &Activations,
    sums: &mut [f32],
    threads: &Threads,
) {
    let n_out = weights.len() / row_bytes;
    // Several pieces for each thread.
    let spread = n_out.div_ceil(4 * threads.count());
    let outputs = (PIECE_BYTES / row_bytes).min(spread).max(1);
    threads.chunks(sums, outputs * x.rows(), |piece, sums| {
        let weights = &weights[piece * outputs * row_bytes..][..sums.len() / x.rows() * row_bytes];
        format.visit(Piece { weights, row_bytes, x, sums });
    });
}

/// Some outputs of all rows.
struct Piece<'a> {
    /// `[outputs, row_bytes]`
    weights: &'a [u8],
    row_bytes: usize,
    x: &'a Activations,
    /// `[outputs, rows]`
    sums: &'a mut [f32],
}

impl Visitor for Piece<'_> {
    type Output = ();

    fn visit<F: BlockFormat>(self) {
        #[cfg(target_arch = "x86_64")]
        if let Some(vectors) = Avx2::detect() {
            return vectors.run(Typed::<F, _> { piece: self, vectors, format: PhantomData });
        }
        Portable.run(Typed::<F, _> { piece: self, vectors: Portable, format: PhantomData });
    }
}

/// A piece for a kind of processor.
struct Typed<'a, F, V> {
    piece: Piece<'a>,
    vectors: V,
    format: PhantomData<F>,
}

impl<F: BlockFormat, V: Vectors> Kernel for Typed<'_, F, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { vectors, piece: Piece { weights, row_bytes, x, sums }, .. } = self;
        if x.rows() == 1 {
            for (weights, sum) in weights.chunks_exact(row_bytes).zip(sums) {
                let blocks = weights.chunks_exact(F::BYTES).map(|block| {
                    vectors.prefetch(block);
                    F::unpack(vectors, block)
                });
                [*sum] = some_rows::<F::Shape, V, 1>(vectors, blocks, x, 0);
            }
            return;
        }
        let row_blocks = row_bytes / F::BYTES;
        let outputs = (UNPACKED_MAX / row_blocks / size_of::<Unpacked<F::Shape, V::Numbers>>()).max(1);
        let mut unpacked = Vec::with_capacity(outputs.min(weights.len() / row_bytes) * row_blocks);
        for (weights, sums) in weights.chunks(outputs * row_bytes).zip(sums.chunks_mut(outputs * x.rows())) {
            unpacked.clear();
            for block in weights.chunks_exact(F::BYTES) {
                unpacked.push(F::unpack(vectors, block));
            }
            vectors.run(AllRows { vectors, blocks: &unpacked, row_blocks, x, sums });
        }
    }
}

/// All rows with unpacked weights: compiled for each shape, not for each format.
struct AllRows<'a, S: Shape, V: Vectors> {
    vectors: V,
    /// `[outputs, row_blocks]`
    blocks: &'a [Unpacked<S, V::Numbers>],
    row_blocks: usize,
    x: &'a Activations,
    /// `[outputs, rows]`
    sums: &'a mut [f32],
}

impl<S: Shape, V: Vectors> Kernel for AllRows<'_, S, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { vectors, blocks, row_blocks, x, sums } = self;
        let rows = x.rows();
        // Parts as equal as possible: five rows are two and three, not four and one.
        let parts = rows.div_ceil(ROWS_MAX);
        for part in 0..parts {
            let (from, to) = (rows * part / parts, rows * (part + 1) / parts);
            for (blocks, sums) in blocks.chunks_exact(row_blocks).zip(sums.chunks_exact_mut(rows)) {
                let sums = &mut sums[from..to];
                match to - from {
                    1 => sums.copy_from_slice(&some_rows::<S, V, 1>(vectors, blocks.iter(), x, from)),
                    2 => sums.copy_from_slice(&some_rows::<S, V, 2>(vectors, blocks.iter(), x, from)),
                    3 => sums.copy_from_slice(&some_rows::<S, V, 3>(vectors, blocks.iter(), x, from)),
                    _ => sums.copy_from_slice(&some_rows::<S, V, ROWS_MAX>(vectors, blocks.iter(), x, from)),
                }
            }
        }
    }
}

/// One output of `R` rows from row `from` on: here is the order that [`super::QuantMatrix`] promises.
#[inline(always)]
fn some_rows<S: Shape, V: Vectors, const R: usize>(
    vectors: V,
    blocks: impl Iterator<Item = impl Borrow<Unpacked<S, V::Numbers>>>,
    x: &Activations,
    from: usize,
) -> [f32; R] {
    let groups = S::ELEMENTS / GROUP;
    let x: [&Row; R] = std::array::from_fn(|r| x.row(from + r));
    let mut sums = [vectors.zeros(); R];
    let mut offsets = [[0.0; LANES]; R];
    for (i, block) in blocks.enumerate() {
        let block = block.borrow();
        let first = i * groups;
        let x_numbers: [&[[i16; GROUP]]; R] = std::array::from_fn(|r| &x[r].numbers[first..][..groups]);
        let mut scales = [Scales::zeros(vectors); R];
        for r in 0..R {
            scales[r] = Scales::new(vectors, block.scales.as_ref(), &x[r].scales[first..][..groups]);
        }
        let count = groups * S::PER_GROUP;
        for (j, numbers) in block.numbers.as_ref().iter().enumerate() {
            let wide = vectors.widen(*numbers);
            for r in 0..R {
                let (scales, x) = (&scales[r], &x_numbers[r][j]);
                sums[r] = if S::PER_GROUP == 1 {
                    vectors.add(sums[r], wide, x, scales.at(vectors, j, count, R))
                } else {
                    let scales =
                        [scales.at(vectors, 2 * j, count, R), scales.at(vectors, 2 * j + 1, count, R)];
                    vectors.add_halves(sums[r], wide, x, scales)
                };
            }
        }
        if S::OFFSETS {
            for r in 0..R {
                let x_sums = if S::PER_GROUP == 1 { &x[r].sums } else { &x[r].half_sums };
                add_offsets(block, &x_sums[first * S::PER_GROUP..], &mut offsets[r]);
            }
        }
    }
    std::array::from_fn(|r| lanes::sum(vectors.lanes(sums[r])) + lanes::sum(offsets[r]))
}

/// The products of the scales of weights and activations, up to 16: in registers for one row, else in memory, from where a number
/// is in all lanes at once.
#[derive(Clone, Copy)]
struct Scales<V: Vectors> {
    registers: [V::Sums; 2],
    memory: [Lanes; 2],
}

impl<V: Vectors> Scales<V> {
    #[inline(always)]
    fn zeros(vectors: V) -> Self {
        Self { registers: [vectors.zeros(); 2], memory: [[0.0; LANES]; 2] }
    }

    /// `weights`: of a block. `x`: one a group.
    #[inline(always)]
    fn new(vectors: V, weights: &[f32], x: &[f32]) -> Self {
        let registers = match (weights.as_chunks().0, x.first_chunk()) {
            ([scales], Some(x)) => [vectors.multiply(vectors.load(scales), vectors.load(x)); 2],
            ([low, high, ..], Some(x)) => [
                vectors.multiply(vectors.load(low), vectors.twice::<false>(vectors.load(x))),
                vectors.multiply(vectors.load(high), vectors.twice::<true>(vectors.load(x))),
            ],
            _ => [vectors.splat(weights[0] * x[0]); 2],
        };
        Self { registers, memory: [vectors.lanes(registers[0]), vectors.lanes(registers[1])] }
    }

    /// Number `i` of `count`, in each lane, for one of `rows` rows.
    #[inline(always)]
    fn at(&self, vectors: V, i: usize, count: usize, rows: usize) -> V::Sums {
        match (count, rows) {
            (1, _) => self.registers[0],
            (_, 1) => vectors.lane(self.registers[i / LANES], i % LANES),
            _ => vectors.splat(self.memory[i / LANES][i % LANES]),
        }
    }
}

#[inline(always)]
fn add_offsets<S: Shape, N: Copy + Send + Sync>(block: &Unpacked<S, N>, x: &[f32], lanes: &mut Lanes) {
    let offsets = block.offsets.as_ref();
    let (whole, rest) = offsets.as_chunks::<LANES>();
    for (offsets, x) in whole.iter().zip(x.as_chunks::<LANES>().0) {
        for lane in 0..LANES {
            lanes[lane] = offsets[lane].mul_add(x[lane], lanes[lane]);
        }
    }
    for ((lane, offset), x) in lanes.iter_mut().zip(rest).zip(x) {
        *lane = offset.mul_add(*x, *lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::QuantMatrix;

    /// Bytes of all kinds, with the scales that come of them: some are not finite.
    fn bytes(count: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        (0..count).map(|_| next()).collect()
    }

    struct Compute<'a> {
        weights: &'a [u8],
        row_bytes: usize,
        x: &'a Activations,
    }

    /// Bits of the products by portable code, by the same compiled for this processor, and by its own instructions.
    impl Visitor for Compute<'_> {
        type Output = [Vec<u32>; 3];

        fn visit<F: BlockFormat>(self) -> [Vec<u32>; 3] {
            let compute = |run: fn(Piece<'_>)| {
                let Self { weights, row_bytes, x } = self;
                let mut sums = vec![0.0; weights.len() / row_bytes * x.rows()];
                run(Piece { weights, row_bytes, x, sums: &mut sums });
                // A NaN's sign and payload are not defined.
                sums.into_iter().map(|sum| if sum.is_nan() { u32::MAX } else { sum.to_bits() }).collect()
            };
            [
                compute(|piece| Typed::<F, _> { piece, vectors: Portable, format: PhantomData }.run()),
                compute(|piece| {
                    crate::cpu::run(Typed::<F, _> { piece, vectors: Portable, format: PhantomData })
                }),
                compute(|piece| piece.visit::<F>()),
            ]
        }
    }

    #[test]
    fn vector_instructions_do_not_change_a_bit() {
        let threads = Threads::new(1);
        for &format in Format::ALL {
            let n_in = 2 * 256;
            let row_bytes = format.row_bytes(n_in).unwrap();
            let weights = bytes(40 * row_bytes);
            for rows in [1, 2, 3, 4, 5, 11] {
                let x: Vec<f32> =
                    (0..rows * n_in).map(|i| (i as f32 * 0.7).sin() * (i as f32 * 0.01).exp2()).collect();
                let x = Activations::new(&x, n_in, &threads);
                let [plain, compiled, own] = format.visit(Compute { weights: &weights, row_bytes, x: &x });
                let finite = plain.iter().filter(|&&bits| bits != u32::MAX).count();
                assert!(finite > plain.len() / 8, "{} has {finite} finite outputs", format.name());
                assert!(plain == compiled && plain == own, "{} with {rows} rows", format.name());
            }
        }
    }

    #[test]
    fn an_output_is_summed_in_the_promised_order() {
        let threads = Threads::new(1);
        for &format in Format::ALL {
            let n_in = 2 * 256;
            let weights: Vec<f32> = (0..n_in).map(|i| (i as f32 * 1.9).sin()).collect();
            let mut bytes = vec![0; format.row_bytes(n_in).unwrap()];
            format.quantise(&weights, &mut bytes);
            let x: Vec<f32> =
                (0..n_in).map(|i| (i as f32 * 0.7).cos() * 2.0_f32.powi(i as i32 % 12)).collect();
            let x = Activations::new(&x, n_in, &threads);
            let expected = format.visit(Promised { bytes: &bytes, x: x.row(0) });
            let mut y = [0.0];
            QuantMatrix::new(format, 1, n_in, bytes).unwrap().product(&x, &mut y, &threads);
            assert_eq!(y[0].to_bits(), expected.to_bits(), "{}", format.name());
        }
    }

    /// The sum as the documentation of the matrix says it.
    struct Promised<'a> {
        bytes: &'a [u8],
        x: &'a Row,
    }

    impl Visitor for Promised<'_> {
        type Output = f32;

        fn visit<F: BlockFormat>(self) -> f32 {
            let (mut lanes, mut offsets) = ([0.0_f32; LANES], [0.0_f32; LANES]);
            let width = GROUP / F::Shape::PER_GROUP;
            for (i, block) in self.bytes.chunks(F::BYTES).enumerate() {
                let block = F::unpack(Portable, block);
                let numbers = block.numbers.as_ref().as_flattened();
                for (part, w) in numbers.chunks(width).enumerate() {
                    let at = i * F::Shape::ELEMENTS + part * width;
                    let x = &self.x.numbers.as_flattened()[at..][..width];
                    let x_scale = self.x.scales[at / GROUP];
                    for (lane, sum) in lanes.iter_mut().enumerate() {
                        let products: i32 = (0..width)
                            .filter(|i| i % 16 / 2 == lane)
                            .map(|i| i32::from(w[i]) * i32::from(x[i]))
                            .sum();
                        let scale = block.scales.as_ref()[part] * x_scale;
                        *sum = (products as f32).mul_add(scale, *sum);
                    }
                    let sum: i32 = x.iter().map(|&x| i32::from(x)).sum();
                    let offset = block.offsets.as_ref()[part];
                    let lane = &mut offsets[part % LANES];
                    *lane = offset.mul_add(sum as f32 * x_scale, *lane);
                }
            }
            lanes::sum(lanes) + lanes::sum(offsets)
        }
    }
}
