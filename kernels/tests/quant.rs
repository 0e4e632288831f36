//! Quantised formats against the gguf Python package, and products against dequantised weights.

use kernels::quant::{Activations, Format, QuantMatrix, QuantMatrixError};
use kernels::threads::Threads;

/// Of one format: see `goldens/make.py`.
struct Golden {
    blocks: Vec<u8>,
    values: Vec<f32>,
    weights: Vec<f32>,
    quantised: Vec<u8>,
}

fn golden(format: Format) -> Golden {
    let path = format!("{}/goldens/quant/{}.bin", env!("CARGO_MANIFEST_DIR"), format.name());
    let file = std::fs::read(path).expect("a golden of each format");
    let size = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes")) as usize;
    let (blocks, weights, quantised) = (size(0), size(4), size(8));
    let mut rest = &file[12..];
    let mut take = |bytes| {
        let (taken, left) = rest.split_at(bytes);
        rest = left;
        taken.to_vec()
    };
    let floats =
        |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let golden = Golden {
        blocks: take(blocks * format.block_bytes()),
        values: floats(take(4 * blocks * format.block_elements())),
        weights: floats(take(4 * weights)),
        quantised: take(quantised),
    };
    assert!(rest.is_empty() && blocks > 0);
    golden
}

/// About Gaussian, with a standard deviation of 1.
fn gaussian(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1_u64 << 24) as f64
    };
    let mut normal = || (-2.0 * (1.0 - next()).ln()).sqrt() * (std::f64::consts::TAU * next()).cos();
    (0..count).map(|_| normal() as f32).collect()
}

fn quantised(format: Format, weights: &[f32]) -> Vec<u8> {
    let mut blocks = vec![0; format.row_bytes(weights.len()).expect("whole blocks")];
    format.quantise(weights, &mut blocks);
    blocks
}

fn dequantised(format: Format, blocks: &[u8]) -> Vec<f32> {
    let mut weights = vec![f32::NAN; blocks.len() / format.block_bytes() * format.block_elements()];
    format.dequantise(blocks, &mut weights);
    weights
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

#[test]
fn weights_are_those_of_the_gguf_package() {
    for &format in Format::ALL {
        let golden = golden(format);
        let found = dequantised(format, &golden.blocks);
        for (i, (found, expected)) in found.iter().zip(&golden.values).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{} {i}: {found} {expected}", format.name());
        }
    }
}

#[test]
fn blocks_are_those_of_the_gguf_package() {
    let mut compared = Vec::new();
    for &format in Format::ALL {
        let golden = golden(format);
        if golden.quantised.is_empty() {
            continue;
        }
        compared.push(format.name());
        let found = quantised(format, &golden.weights);
        let size = format.block_bytes();
        for (i, (found, expected)) in found.chunks(size).zip(golden.quantised.chunks(size)).enumerate() {
            assert_eq!(found, expected, "block {i} of {}", format.name());
        }
    }
    assert_eq!(compared, ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0"]);
}

#[test]
fn little_of_gaussian_weights_is_lost() {
    // Beside each what ggml's own quantiser loses of the same weights, without an importance matrix.
    let bounds = [
        (Format::Q4_0, 0.0852),   // 0.08506
        (Format::Q4_1, 0.0776),   // 0.07743
        (Format::Q5_0, 0.0425),   // 0.04231
        (Format::Q5_1, 0.0376),   // 0.03745
        (Format::Q8_0, 0.0053),   // 0.00528
        (Format::Q2_K, 0.2800),   // 0.29473
        (Format::Q3_K, 0.1460),   // 0.14971
        (Format::Q4_K, 0.0715),   // 0.07080
        (Format::Q5_K, 0.0357),   // 0.03574
        (Format::Q6_K, 0.0175),   // 0.01761
        (Format::IQ4_NL, 0.0750), // 0.07551
        (Format::IQ4_XS, 0.0760), // 0.07611
    ];
    let weights = gaussian(256 * 400, 1);
    for (format, bound) in bounds {
        let found = dequantised(format, &quantised(format, &weights));
        let squares: f64 = found.iter().zip(&weights).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let loss = (squares / weights.len() as f64).sqrt();
        println!("{}: {loss:.5}", format.name());
        assert!(loss < bound, "{}: {loss}", format.name());
    }
}

#[test]
fn what_a_format_holds_exactly_comes_back() {
    for &format in Format::ALL {
        let zeros = vec![0.0; format.block_elements()];
        assert!(dequantised(format, &quantised(format, &zeros)).iter().all(|&weight| weight == 0.0));
        let ternary: Vec<f32> = (0..format.block_elements()).map(|i| ((i * i) % 3) as f32 - 1.0).collect();
        if matches!(format, Format::TQ1_0 | Format::TQ2_0) {
            assert_eq!(dequantised(format, &quantised(format, &ternary)), ternary, "{}", format.name());
        }
    }
}

#[test]
fn weights_that_are_not_finite_spoil_no_other_block() {
    for &format in Format::ALL {
        let elements = format.block_elements();
        let weights = gaussian(3 * elements, 5);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE] {
            let mut spoilt = weights.clone();
            spoilt[elements + 3] = bad;
            let (expected, found) = (quantised(format, &weights), quantised(format, &spoilt));
            let size = format.block_bytes();
            assert!(found[..size] == expected[..size] && found[2 * size..] == expected[2 * size..]);
        }
    }
}

/// Any bytes, in which all bits are sometimes ones.
fn hostile(count: usize) -> Vec<u8> {
    (0..count).map(|i| if i % 7 < 2 { 0xFF } else { (i * 197 % 251) as u8 }).collect()
}

#[test]
fn any_bytes_are_weights() {
    let threads = Threads::new(1);
    for &format in Format::ALL {
        let n_in = 512;
        for fill in [0_u8, 0x7C, 0xFC, 0x80, 0xFF] {
            let bytes = vec![fill; 3 * format.row_bytes(n_in).unwrap()];
            dequantised(format, &bytes);
            let x = Activations::new(&gaussian(6 * n_in, 1), n_in, &threads);
            QuantMatrix::new(format, 3, n_in, bytes).unwrap().product(&x, &mut [0.0; 18], &threads);
        }
        dequantised(format, &hostile(50 * format.block_bytes()));
    }
}

#[test]
fn other_numbers_of_bytes_are_no_matrix() {
    for &format in Format::ALL {
        let size = format.block_bytes();
        for found in 0..2 * size {
            let error = QuantMatrix::new(format, 2, format.block_elements(), vec![0; found]).unwrap_err();
            assert_eq!(error, QuantMatrixError::Bytes { n_out: 2, row_bytes: size, found });
        }
        for n_in in [0, 1, 31, 33, usize::MAX] {
            let error = QuantMatrix::new(format, 2, n_in, Vec::new()).unwrap_err();
            assert_eq!(error, QuantMatrixError::Inputs { format, n_in });
        }
        assert_eq!(format.row_bytes(format.block_elements() - 1), None);
        let huge = usize::MAX / 256 * 256;
        assert_eq!(format.row_bytes(huge).is_none(), size > format.block_elements());
        assert!(QuantMatrix::new(format, usize::MAX, 256, Vec::new()).is_err());
    }
}

fn product<B: AsRef<[u8]>>(matrix: &QuantMatrix<B>, x: &[f32], threads: &Threads) -> Vec<f32> {
    let activations = Activations::new(x, matrix.n_in(), threads);
    let mut y = vec![f32::NAN; activations.rows() * matrix.n_out()];
    matrix.product(&activations, &mut y, threads);
    y
}

#[test]
fn a_product_is_near_that_of_the_dequantised_weights() {
    let threads = Threads::new(2);
    let (n_out, n_in, rows) = (24, 4096, 5);
    let weights = gaussian(n_out * n_in, 2);
    let x = gaussian(rows * n_in, 3);
    for &format in Format::ALL {
        let bytes = quantised(format, &weights);
        let weights = dequantised(format, &bytes);
        let y = product(&QuantMatrix::new(format, n_out, n_in, bytes).unwrap(), &x, &threads);
        let mut worst = 0.0_f64;
        for (i, y) in y.iter().enumerate() {
            let (x, w) = (&x[i / n_out * n_in..][..n_in], &weights[i % n_out * n_in..][..n_in]);
            let products = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
            let (sum, size): (f64, f64) = (products().sum(), products().map(f64::abs).sum());
            worst = worst.max((f64::from(*y) - sum).abs() / size);
        }
        println!("{}: {worst:.2e}", format.name());
        assert!(worst < 1e-5, "{}: {worst}", format.name());
    }
}

#[test]
fn a_row_has_the_same_bits_with_others_and_with_more_threads() {
    let threads = [Threads::new(1), Threads::new(3)];
    let (n_out, n_in) = (70, 768);
    for &format in Format::ALL {
        let bytes = quantised(format, &gaussian(n_out * n_in, 4));
        let matrix = QuantMatrix::new(format, n_out, n_in, &bytes).unwrap();
        let x = gaussian(21 * n_in, 5);
        let alone: Vec<u32> = x.chunks(n_in).flat_map(|x| bits(&product(&matrix, x, &threads[0]))).collect();
        for rows in [0, 1, 2, 3, 4, 5, 8, 21] {
            for threads in &threads {
                let together = bits(&product(&matrix, &x[..rows * n_in], threads));
                assert_eq!(together, alone[..rows * n_out], "{} {rows} {}", format.name(), threads.count());
            }
        }
    }
}

#[test]
fn a_matrix_without_outputs_has_an_empty_product() {
    let matrix = QuantMatrix::new(Format::Q8_0, 0, 32, []).unwrap();
    for rows in 0..6 {
        assert!(product(&matrix, &vec![1.0; rows * 32], &Threads::new(2)).is_empty());
    }
}

#[test]
fn a_row_that_is_not_finite_spoils_no_other() {
    let threads = Threads::new(1);
    for &format in Format::ALL {
        let bytes = quantised(format, &gaussian(4 * 256, 6));
        let matrix = QuantMatrix::new(format, 4, 256, bytes).unwrap();
        let x = gaussian(3 * 256, 7);
        let expected = product(&matrix, &x, &threads);
        let mut spoilt = x.clone();
        spoilt[256 + 100] = f32::NAN;
        let found = product(&matrix, &spoilt, &threads);
        assert!(found[4..8].iter().all(|y| y.is_nan()), "{}", format.name());
        assert_eq!(bits(&found[..4]), bits(&expected[..4]));
        assert_eq!(bits(&found[8..]), bits(&expected[8..]));
    }
}

#[test]
fn a_row_of_weights_is_that_of_the_whole() {
    let bytes = hostile(3 * Format::Q4_K.block_bytes());
    let all = dequantised(Format::Q4_K, &bytes);
    let matrix = QuantMatrix::new(Format::Q4_K, 3, 256, &bytes).unwrap();
    let mut row = [0.0; 256];
    matrix.dequantise_row(1, &mut row);
    assert_eq!(bits(&row), bits(&all[256..512]));
}
