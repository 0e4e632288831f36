use std::path::PathBuf;

use pipelines::tools::{Compute, Element};

use super::*;
use crate::tools::Misuse;

fn arguments() -> Bench {
    Bench {
        model: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo")),
        prompt: 40,
        generate: 6,
        batch: vec![1, 3],
        repetitions: 2,
        dtype: Element::Bf16,
        compute: Compute { threads: Some(1), device: "cpu".to_owned() },
        json: false,
    }
}

#[test]
fn each_test_is_measured_at_each_batch_as_often_as_asked() {
    let report = run(&arguments()).unwrap();
    let found: Vec<(&str, u16, u32)> =
        report.rows.iter().map(|row| (row.test.as_str(), row.batch, row.tokens)).collect();
    assert_eq!(found, [("pp40", 1, 40), ("pp40", 3, 40), ("tg6", 1, 6), ("tg6", 3, 6)]);
    assert_eq!(report.threads, 1);
    for row in &report.rows {
        let rate = row.tokens_per_second;
        assert!(
            rate.mean > 0.0 && rate.mean.is_finite() && rate.deviation >= 0.0 && rate.count == 2,
            "{row:?}"
        );
        let alone = row.batch == 1 && row.test == "tg6";
        assert_eq!(row.share_of_read_rate.is_some(), alone);
    }
    let alone = &report.rows[2];
    let bytes_per_second = report.row_bytes as f64 * alone.tokens_per_second.mean;
    let share = bytes_per_second / report.limits.read_bytes_per_second;
    assert!((alone.share_of_read_rate.unwrap() / share - 1.0).abs() < 1e-9 && share > 0.0);
    assert!(report.to_string().contains("tg6"));
}

#[test]
fn a_token_goes_through_every_matrix_once() {
    let bench = arguments();
    let report = run(&Bench { generate: 0, batch: vec![1], repetitions: 1, ..bench }).unwrap();
    let folder = model::open(&arguments().model).unwrap();
    let config = folder.config();
    let (hidden, head_dim) = (config.hidden_size, config.head_dim);
    let attention = 2 * hidden * (config.num_attention_heads + config.num_key_value_heads) * head_dim;
    let layer = attention + 3 * hidden * config.intermediate_size;
    let elements = config.num_hidden_layers * layer + hidden * config.vocab_size;
    assert_eq!(report.row_bytes, 2 * elements as u64);
    assert_eq!(report.rows.len(), 1, "no generation was asked for");
}

#[test]
fn impossible_lengths_and_unreadable_models_are_misuse() {
    let wrong = [
        Bench { prompt: u32::MAX, ..arguments() },
        Bench { generate: 1 << 30, ..arguments() },
        Bench { prompt: 0, generate: 0, ..arguments() },
        Bench { model: "/nowhere".into(), ..arguments() },
        Bench { model: file!().into(), ..arguments() },
        Bench { model: env!("CARGO_MANIFEST_DIR").into(), ..arguments() },
        Bench { compute: Compute { threads: None, device: "cuda:65000".to_owned() }, ..arguments() },
    ];
    for bench in wrong {
        let error = run(&bench).unwrap_err();
        assert!(error.is::<Misuse>() && !error.to_string().contains('\n'), "{error:#}");
    }
}
