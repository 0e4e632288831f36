//! Sums of products of ternary weights and integers of eight bits. They are exact, so their order is free.

use super::activations::{Int8Activations, Row};
#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;
use super::matrix::PER_BYTE;
use crate::cpu::Kernel;
use crate::threads::Threads;

/// Rows of activations whose sums are in registers at once.
const ROWS_MAX: usize = 2;
/// Bytes of weights that one piece of work reads, once for each `ROWS_MAX` rows: they should stay in a core's cache.
const PIECE_BYTES: usize = 128 << 10;

/// `packed`: `[lines, n_in]`, `sums`: `[lines, 4, rows]`.
pub(super) fn transposed_product(packed: &[u8], x: &Int8Activations, sums: &mut [i32], threads: &Threads) {
    let lines = packed.len() / x.n_in();
    // Several pieces for each thread.
    let spread = lines.div_ceil(4 * threads.count());
    let piece_lines = (PIECE_BYTES / x.n_in()).min(spread).max(1);
    let line_sums = PER_BYTE * x.rows();
    threads.chunks(sums, piece_lines * line_sums, |piece, sums| {
        let packed = &packed[piece * piece_lines * x.n_in()..][..sums.len() / line_sums * x.n_in()];
        Piece { packed, x, sums }.run();
    });
}

/// Some lines of all rows.
struct Piece<'a> {
    /// `[lines, n_in]`
    packed: &'a [u8],
    x: &'a Int8Activations,
    /// `[lines, 4, rows]`
    sums: &'a mut [i32],
}

impl Piece<'_> {
    fn run(self) {
        #[cfg(target_arch = "x86_64")]
        if let Some(dots) = Avx2::detect() {
            return dots.run(Typed { piece: self, dots });
        }
        Portable.run(Typed { piece: self, dots: Portable });
    }
}

/// A kind of processor's way to add products; all give the same.
///
/// A value is the permission to use its instructions.
pub(super) trait Dots: Copy {
    /// Computes with all of the processor's instructions that this is the permission for.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    /// The sums over all inputs of bits `2p` and `2p + 1` of `packed`, from 0 to 3, times `x[r]`: `[p][r]`. All are equally long, and
    /// short enough for the sums.
    fn dots<const R: usize>(self, packed: &[u8], x: [&[i8]; R]) -> [[i32; R]; PER_BYTE];
}

/// A piece for a kind of processor.
struct Typed<'a, D> {
    piece: Piece<'a>,
    dots: D,
}

impl<D: Dots> Kernel for Typed<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { dots, piece: Piece { packed, x, sums } } = self;
        let rows = x.rows();
        for from in (0..rows).step_by(ROWS_MAX) {
            let lines = packed.chunks_exact(x.n_in()).zip(sums.chunks_exact_mut(PER_BYTE * rows));
            for (packed, sums) in lines {
                match rows - from {
                    1 => some_rows::<D, 1>(dots, packed, x, from, sums),
                    _ => some_rows::<D, ROWS_MAX>(dots, packed, x, from, sums),
                }
            }
        }
    }
}

/// One line of `R` rows from row `from` on. `sums`: `[4, rows]`.
#[inline(always)]
fn some_rows<D: Dots, const R: usize>(
    dots: D,
    packed: &[u8],
    x: &Int8Activations,
    from: usize,
    sums: &mut [i32],
) {
    let x_rows: [&Row; R] = std::array::from_fn(|r| x.row(from + r));
    let found = dots.dots::<R>(packed, x_rows.map(|row| &row.numbers[..]));
    for (sums, found) in sums.chunks_exact_mut(x.rows()).zip(found) {
        for r in 0..R {
            // The bits are one more than the weights.
            sums[from + r] = found[r] - x_rows[r].sum;
        }
    }
}

/// Any processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Portable {
    /// Running sums side by side.
    const LANES: usize = 16;
    /// Products of a lane whose sum fits into 16 bits: each is at most 3 * 128.
    const STEPS_MAX: usize = 84;
}

impl Dots for Portable {
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run()
    }

    #[inline(always)]
    fn dots<const R: usize>(self, packed: &[u8], x: [&[i8]; R]) -> [[i32; R]; PER_BYTE] {
        const STEP: usize = Portable::LANES;
        let (packed, rest) = packed.as_chunks::<STEP>();
        let x_rest = x.map(|x| &x[packed.len() * STEP..]);
        let x = x.map(|x| &x.as_chunks::<STEP>().0[..packed.len()]);
        let mut sums = rest_dots(rest, x_rest);
        for start in (0..packed.len()).step_by(Self::STEPS_MAX) {
            let end = (start + Self::STEPS_MAX).min(packed.len());
            let mut lanes = [[[0_i16; STEP]; R]; PER_BYTE];
            for i in start..end {
                for (p, lanes) in lanes.iter_mut().enumerate() {
                    for (lanes, x) in lanes.iter_mut().zip(x) {
                        for (lane, sum) in lanes.iter_mut().enumerate() {
                            let bits = packed[i][lane] >> (2 * p) & 3;
                            *sum += i16::from(bits) * i16::from(x[i][lane]);
                        }
                    }
                }
            }
            for (sums, lanes) in sums.iter_mut().zip(&lanes) {
                for (sum, lanes) in sums.iter_mut().zip(lanes) {
                    *sum += lanes.iter().copied().map(i32::from).sum::<i32>();
                }
            }
        }
        sums
    }
}

/// The same, one at a time: for what is left of a row.
#[inline(always)]
pub(super) fn rest_dots<const R: usize>(packed: &[u8], x: [&[i8]; R]) -> [[i32; R]; PER_BYTE] {
    let mut sums = [[0; R]; PER_BYTE];
    for (i, byte) in packed.iter().enumerate() {
        for (p, sums) in sums.iter_mut().enumerate() {
            for r in 0..R {
                sums[r] += i32::from(byte >> (2 * p) & 3) * i32::from(x[r][i]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of all kinds.
    fn bytes(count: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        (0..count).map(|_| next()).collect()
    }

    /// By portable code, by the same compiled for this processor, and by its own instructions.
    fn each_way<const R: usize>(packed: &[u8], x: [&[i8]; R]) -> [[[i32; R]; PER_BYTE]; 3] {
        struct Compiled<'a, const R: usize>(&'a [u8], [&'a [i8]; R]);
        impl<const R: usize> Kernel for Compiled<'_, R> {
            type Output = [[i32; R]; PER_BYTE];

            #[inline(always)]
            fn run(self) -> Self::Output {
                Portable.dots(self.0, self.1)
            }
        }
        let compiled = crate::cpu::run(Compiled(packed, x));
        #[cfg(target_arch = "x86_64")]
        let own = Avx2::detect().map_or(compiled, |avx2| avx2.dots(packed, x));
        #[cfg(not(target_arch = "x86_64"))]
        let own = compiled;
        [Portable.dots(packed, x), compiled, own]
    }

    #[test]
    fn every_way_to_add_gives_the_sum() {
        for length in [1, 15, 16, 31, 32, 33, 64, 100, 42 * 32, 42 * 32 + 31, 84 * 16 + 1, 10_000] {
            let packed = bytes(length, 1);
            let (a, b) = (bytes(length, 2), bytes(length, 3));
            let (a, b): (Vec<i8>, Vec<i8>) =
                (a.into_iter().map(u8::cast_signed).collect(), b.into_iter().map(u8::cast_signed).collect());
            let expected = rest_dots(&packed, [&a[..], &b[..]]);
            assert_eq!(each_way(&packed, [&a, &b]), [expected; 3], "{length}");
            assert_eq!(each_way(&packed, [&b]), [expected.map(|[_, b]| [b]); 3], "{length}");
        }
    }

    #[test]
    fn the_largest_products_do_not_overflow() {
        for number in [i8::MIN, i8::MAX] {
            let (packed, x) = (vec![u8::MAX; 20_000], vec![number; 20_000]);
            let expected = [[3 * 20_000 * i32::from(number)]; PER_BYTE];
            assert_eq!(each_way(&packed, [&x]), [expected; 3]);
        }
    }
}
