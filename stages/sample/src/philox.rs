//! Counter-based random numbers: a pure function of (seed, choice, index), so any instance can draw any token.
//!
//! Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), Philox4x32-10.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// A number in [0, 1), uniform over the multiples of 2⁻⁵³.
///
/// `choice` tells the answers of one request apart, `index` counts the tokens of an answer from 0.
pub fn uniform(seed: u64, choice: u32, index: u32) -> f64 {
    let key = [seed as u32, (seed >> 32) as u32];
    let [first, second, ..] = philox([index, choice, 0, 0], key);
    let bits = (u64::from(first) << 32) | u64::from(second);
    (bits >> 11) as f64 * (0.5_f64).powi(53)
}

/// Philox4x32-10 of one counter under one key.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let (high0, low0) = multiply(MULTIPLIERS[0], counter[0]);
        let (high1, low1) = multiply(MULTIPLIERS[1], counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    counter
}

/// High and low half of a product.
fn multiply(a: u32, b: u32) -> (u32, u32) {
    let product = u64::from(a) * u64::from(b);
    ((product >> 32) as u32, product as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of `philox4x32 10` in `tests/kat_vectors` of the authors' Random123 library, 1.14.
    #[test]
    fn the_authors_test_vectors_come_out() {
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (pi, [0xa409_3822, 0x299f_31d0], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn every_part_of_the_key_changes_the_number() {
        let base = uniform(7, 0, 0);
        assert_eq!(base, uniform(7, 0, 0));
        for other in [uniform(8, 0, 0), uniform(7 | 1 << 40, 0, 0), uniform(7, 1, 0), uniform(7, 0, 1)] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn numbers_are_in_the_unit_interval_and_spread_evenly() {
        let mut tenths = [0; 10];
        for index in 0..100_000 {
            let number = uniform(42, 3, index);
            assert!((0.0..1.0).contains(&number));
            tenths[(number * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|&n| (9_500..10_500).contains(&n)), "{tenths:?}");
    }
}
