use std::path::{Path, PathBuf};

use pipelines::tools::{Compute, Element};
use serde_json::Value;

use super::*;
use crate::tools::Misuse;

fn arguments(model: &Path, trace: Option<PathBuf>) -> Profile {
    Profile {
        model: model.to_owned(),
        prompt: 64,
        generate: 5,
        batch: 2,
        dtype: Element::Bf16,
        compute: Compute { threads: Some(1), device: "cpu".to_owned() },
        trace,
        json: true,
    }
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_parts_of_a_step_add_up_to_its_whole() {
    for model in ["../../models/demo", "goldens/mixtral", "goldens/gemma2"] {
        let layers = model::open(&root(model)).unwrap().config().num_hidden_layers;
        let report = run(&arguments(&root(model), None)).unwrap();
        let found: Vec<(&str, u32, u32)> =
            report.phases.iter().map(|phase| (phase.name, phase.rows, phase.steps)).collect();
        assert_eq!(found, [("prefill", 64, PROMPTS), ("decode", 2, 5)]);
        for phase in &report.phases {
            let parts: f64 = phase.operations.iter().map(|row| row.seconds_per_step).sum();
            let groups: f64 = phase.groups.iter().map(|row| row.seconds_per_step).sum();
            let shares: f64 = phase.operations.iter().map(|row| row.share).sum();
            // The whole is timed from outside, and has making the rows of a step in it too.
            assert!(parts <= phase.seconds_per_step, "{model}: {phase}");
            assert!(parts > 0.6 * phase.seconds_per_step, "{model}: {phase}");
            assert!((groups / parts - 1.0).abs() < 1e-9 && (shares - 1.0).abs() < 1e-9);
            assert_eq!(phase.layers.len(), layers, "{model}");
            let in_layers: f64 = phase.layers.iter().map(|row| row.seconds_per_step).sum();
            assert!(in_layers < parts);
        }
    }
}

#[test]
fn operations_count_what_the_model_has() {
    let report = run(&arguments(&root("../../models/demo"), None)).unwrap();
    let folder = model::open(&root("../../models/demo")).unwrap();
    let config = folder.config();
    let layers = config.num_hidden_layers as f64;
    for phase in &report.phases {
        let find = |name: &str| phase.operations.iter().find(|row| row.name == name).unwrap();
        for name in
            ["q_proj+k_proj+v_proj", "o_proj", "gate_proj+up_proj", "down_proj", "attention", "rotary"]
        {
            assert_eq!(find(name).calls_per_step, layers, "{name}");
        }
        let down = find("down_proj");
        let flops =
            layers * 2.0 * (config.hidden_size * config.intermediate_size) as f64 * f64::from(phase.rows);
        assert!((down.flops_per_second * down.seconds_per_step / flops - 1.0).abs() < 1e-6, "{phase}");
        assert_eq!(phase.layers.len(), config.num_hidden_layers);
    }
}

#[test]
fn the_trace_is_json_in_which_operations_lie_within_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    run(&arguments(&root("goldens/gqa"), Some(path.clone()))).unwrap();
    let trace: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |category: &str| -> Vec<(u64, f64, f64)> {
        let events = events.iter().filter(|event| event["cat"] == category);
        let range = |event: &Value| {
            let (start, length) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
            assert_eq!(event["ph"], "X");
            (event["pid"].as_u64().unwrap(), start, start + length)
        };
        events.map(range).collect()
    };
    let (parts, operations) = (of("part"), of("operation"));
    assert!(parts.len() > 20 && operations.len() > parts.len());
    for (process, start, end) in operations {
        let within =
            |part: &(u64, f64, f64)| part.0 == process && part.1 <= start + 0.01 && end <= part.2 + 0.01;
        assert!(parts.iter().any(within), "{process} {start}–{end}");
    }
}

#[test]
fn a_trace_that_cannot_be_written_and_a_prompt_that_is_too_long_are_misuse() {
    let demo = root("../../models/demo");
    let absent = arguments(&demo, Some(PathBuf::from("/nowhere/trace.json")));
    let long = Profile { prompt: 1 << 30, ..arguments(&demo, None) };
    for arguments in [absent, long] {
        assert!(run(&arguments).unwrap_err().is::<Misuse>());
    }
}
