use std::path::PathBuf;

use pipelines::tools::{Compute, Element};
use schemas::DType;

use super::*;
use crate::engine::RowSpec;
use crate::tools::Misuse;

fn demo() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo").into()
}

fn arguments(text: PathBuf, context: u32) -> Perplexity {
    Perplexity {
        model: demo(),
        text,
        base: None,
        context,
        windows: None,
        dtype: Element::F32,
        compute: Compute { threads: Some(1), device: "cpu".to_owned() },
        json: false,
    }
}

fn text(folder: &tempfile::TempDir, content: &[u8]) -> PathBuf {
    let path = folder.path().join("text");
    std::fs::write(&path, content).unwrap();
    path
}

/// ln of the probabilities that a model in steps of one token gives to each token of `ids` but the first.
fn probabilities(ids: &[u32]) -> Vec<f64> {
    let folder = ModelFolder::open(&demo()).unwrap();
    let compute = Compute { threads: Some(1), device: "cpu".to_owned() };
    let options = model::options(&folder, &compute, Element::F32, (1, 64)).unwrap();
    assert_eq!(options.dtype, DType::F32);
    let mut engine = model::load(&folder, &options).unwrap();
    let complete = RowSpec { candidates: u32::MAX, ..RowSpec::default() };
    let pairs = (0..).zip(ids.windows(2));
    let probability = pairs.map(|(position, pair)| {
        let row = model::step(&mut engine, &[model::slice(1, position, vec![pair[0]])], &complete).unwrap();
        let logits = &row[0].candidates;
        let sum: f64 = logits.iter().map(|(_, logit)| f64::from(*logit).exp()).sum();
        let (_, logit) = logits.iter().find(|(id, _)| *id == pair[1]).unwrap();
        f64::from(*logit) - sum.ln()
    });
    probability.collect()
}

#[test]
fn perplexity_is_that_of_the_second_halves_of_the_windows() {
    let folder = tempfile::tempdir().unwrap();
    let content = "What is 12 + 30? The answer is 42. A second sentence, to have more than one window of it.";
    let arguments = arguments(text(&folder, content.as_bytes()), 16);
    let report = run(&arguments).unwrap();
    let tokenizer = ModelFolder::open(&demo()).unwrap().load_tokenizer().unwrap();
    let ids = ids(&tokenizer, content).unwrap();
    let mut surprises = Vec::new();
    for window in ids.text.chunks_exact(16) {
        let mut window = window.to_vec();
        window[0] = ids.start.unwrap_or(window[0]);
        // The tokens behind rows 8 to 14.
        surprises.extend(probabilities(&window)[8..].iter().map(|probability| -probability));
    }
    let mean = surprises.iter().sum::<f64>() / surprises.len() as f64;
    assert!(report.windows > 1, "{}", report.windows);
    assert_eq!(report.tokens, 7 * report.windows);
    assert_eq!(report.tokens, surprises.len());
    assert!((report.model.perplexity / mean.exp() - 1.0).abs() < 1e-4, "{report}");
    assert!(report.model.perplexity_error > 0.0);
    let fewer = run(&Perplexity { windows: Some(1), ..arguments }).unwrap();
    assert_eq!((fewer.windows, fewer.tokens), (1, 7));
}

#[test]
fn a_model_does_not_diverge_from_itself_and_does_in_a_coarser_type() {
    let folder = tempfile::tempdir().unwrap();
    let text = text(&folder, "What is 12 + 30? It is 42. ".repeat(8).as_bytes());
    let same = Perplexity { base: Some(demo()), ..arguments(text, 64) };
    let report = run(&same).unwrap();
    let it = report.divergence.unwrap();
    assert!(it.nats.abs() < 1e-9 && it.same_top == 1.0 && (it.perplexity_ratio - 1.0).abs() < 1e-9, "{it:?}");
    assert_eq!(report.base.unwrap().perplexity, report.model.perplexity);
}

#[test]
fn what_cannot_be_measured_is_misuse() {
    let folder = tempfile::tempdir().unwrap();
    let fine = "What is 12 + 30? ".repeat(8);
    let fine = text(&folder, fine.as_bytes());
    let wrong = [
        Perplexity { context: 1 << 20, ..arguments(fine.clone(), 16) },
        Perplexity { text: folder.path().join("absent"), ..arguments(fine.clone(), 16) },
        Perplexity { model: folder.path().to_owned(), ..arguments(fine.clone(), 16) },
        Perplexity {
            compute: Compute { threads: None, device: "abacus".to_owned() },
            ..arguments(fine.clone(), 16)
        },
    ];
    for arguments in wrong {
        assert!(run(&arguments).unwrap_err().is::<Misuse>(), "{arguments:?}");
    }
    for content in [&b"short"[..], &b"\xff\xfe"[..], &b""[..]] {
        let short = arguments(text(&folder, content), 16);
        assert!(run(&short).unwrap_err().is::<Misuse>(), "{content:?}");
    }
}
