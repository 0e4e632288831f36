use clap::Parser;

use super::*;
use crate::registry::Places;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    plan: Arguments,
}

const TEXT_MODEL: &str = r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 4,
    "num_attention_heads": 2, "vocab_size": 300}"#;

/// A folder with a model in `models/tiny` and a pipeline file that names it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("models/tiny");
    fs::create_dir_all(&model).unwrap();
    fs::write(model.join("config.json"), TEXT_MODEL).unwrap();
    let stages = "[stages.shard-forward]\nlayers = [2, 1, 1]\nin_flight = 2\n[stages.sample]\nreplicas = 2\n";
    fs::write(folder.path().join("p.toml"), format!("model = \"tiny-3\"\npath = \"models/tiny\"\n{stages}"))
        .unwrap();
    folder
}

fn plan(folder: &Path, arguments: &[&str]) -> anyhow::Result<Vec<Planned>> {
    let line = Line::try_parse_from(std::iter::once("up").chain(arguments.iter().copied()))?;
    let places = Places::new(|_| None);
    let model = line.plan.model().map(|model| named::local(model, &places)).transpose()?;
    make(&line.plan, model.as_ref(), folder)
}

#[test]
fn the_resolved_file_says_the_same_as_the_plan() {
    let folder = folder();
    let file = folder.path().join("p.toml");
    let planned =
        plan(folder.path(), &[file.to_str().unwrap(), "--dtype", "f32", "--replicas", "tokenize=3"]).unwrap();
    let read = Pipeline::read(&planned[0].file, Overrides::default()).unwrap();
    assert_eq!(read.roles(), planned[0].roles);
    assert_eq!(read.stages.shard_forward.dtype, pipelines::graph::DTypeName::F32);
    assert_eq!(read.stages.shard_forward.in_flight, pipelines::graph::InFlight::Fixed(2));
    assert_eq!((read.stages.tokenize.replicas, read.stages.sample.replicas), (3, 2));
    assert_eq!(read.path, folder.path().join("models/tiny").canonicalize().unwrap());
}

#[test]
fn deterministic_is_a_flag_and_refused_where_it_is_not_to_be_had() {
    let folder = folder();
    let file = folder.path().join("p.toml");
    let planned = plan(folder.path(), &[file.to_str().unwrap(), "--deterministic"]).unwrap();
    let read = |planned: &Planned| Pipeline::read(&planned.file, Overrides::default()).unwrap();
    let deterministic = read(&planned[0]);
    assert!(deterministic.stages.shard_forward.deterministic);
    let default = read(&plan(folder.path(), &[file.to_str().unwrap()]).unwrap()[0]);
    assert_ne!(default.fingerprint([0; 32]), deterministic.fingerprint([0; 32]), "the modes never mix");
    let on_cuda = ["--deterministic", "--device", "cuda:0"];
    let refused = plan(folder.path(), &[&[file.to_str().unwrap()], &on_cuda[..]].concat()).unwrap_err();
    assert!(refused.to_string().contains("deterministic"), "{refused}");
}

#[test]
fn shards_replace_an_explicit_cut_and_one_shard_can_have_more_processes() {
    let folder = folder();
    let file = folder.path().join("p.toml");
    let flags = ["--shards", "2", "--replicas", "shard-forward.1=4"];
    let planned = plan(folder.path(), &[&[file.to_str().unwrap()], &flags[..]].concat()).unwrap();
    let shards: Vec<_> =
        planned[0].roles.iter().filter(|(role, _)| role.binary() == "shard-forward").collect();
    assert_eq!(shards, [&(Role::ShardForward(0), 1), &(Role::ShardForward(1), 4)]);
}

#[test]
fn a_model_folder_alone_is_a_pipeline_named_after_it() {
    let folder = folder();
    let model = folder.path().join("models/tiny");
    let planned = plan(folder.path(), &["--model", model.to_str().unwrap()]).unwrap();
    assert_eq!(planned[0].model, "tiny");
    assert!(planned[0].roles.iter().all(|(role, _)| *role != Role::VisionEncode), "it does not see");
}

#[test]
fn a_model_that_sees_gets_an_encoder_or_says_how_to_make_one() {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/vision/llava");
    let folder = folder();
    let model = folder.path().join("models/tiny");
    for file in ["config.json", "preprocessor_config.json", "processor_config.json"] {
        fs::copy(goldens.join(file), model.join(file)).unwrap();
    }
    let arguments = ["--model", model.to_str().unwrap()];
    let error = plan(folder.path(), &arguments).unwrap_err();
    assert!(error.to_string().contains("tokenway convert --vision"), "{error}");
    fs::write(model.join("vision.onnx"), "").unwrap();
    assert!(plan(folder.path(), &arguments).unwrap()[0].roles.contains(&(Role::VisionEncode, 1)));
    // A file that does not name the stage does not get it.
    let file = folder.path().join("p.toml");
    let planned = plan(folder.path(), &[file.to_str().unwrap()]).unwrap();
    assert!(planned[0].roles.iter().all(|(role, _)| *role != Role::VisionEncode));
}

#[test]
fn what_cannot_be_served_is_misuse() {
    let folder = folder();
    let file = folder.path().join("p.toml");
    let file = file.to_str().unwrap();
    for arguments in [
        &["absent.toml"][..],
        &["--model", "/absent"],
        &[file, file],
        &[file, file, "--model", "tiny"],
        &[file, "--replicas", "shard-forward.3=1"],
        &[file, "--shards", "0"],
    ] {
        let error = plan(folder.path(), arguments).unwrap_err();
        assert!(error.is::<crate::exit::Misuse>(), "{arguments:?}: {error}");
    }
    assert!(plan(folder.path(), &["--device", "cuda"]).is_err());
}

#[test]
fn the_shipped_pipelines_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines");
    for (file, model) in [("demo.toml", "tokenway-demo"), ("echo.toml", "tokenway-echo")] {
        let pipeline = Pipeline::read(&folder.join(file), Overrides::default()).unwrap();
        assert_eq!((pipeline.model.as_str(), pipeline.shards()), (model, 2));
    }
}
