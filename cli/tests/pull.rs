//! `tokenway models pull` as a program, against a Hub in this process.

// Helpers of tests unwrap as tests do.
#![allow(clippy::unwrap_used)]

mod hub;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use hub::{Answer, COMMIT, Hub, Repository, Request};
use serde_json::Value;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo");
const WEIGHTS: &str = "model.safetensors";

/// A user's home with an empty cache.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, endpoint: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tokenway"))
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .envs([("HF_ENDPOINT", endpoint), ("NO_PROXY", "*")])
            .env("HOME", self.0.path())
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }

    fn pull(&self, hub: &Hub, more: &[&str]) -> Output {
        self.run(&hub.url(), &[&["models", "pull", "--json"], more].concat(), &[])
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join(".cache/huggingface/hub")
    }

    fn snapshot(&self) -> PathBuf {
        self.cache().join("models--org--x/snapshots").join(COMMIT)
    }

    fn blobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache().join("models--org--x/blobs")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// That there is nothing which would be taken for a model.
    fn assert_empty(&self) {
        assert!(!self.snapshot().exists());
        assert!(!self.cache().join("models--org--x/refs/main").exists());
        let listed = self.run("http://127.0.0.1:9", &["models", "--json"], &[]);
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let names: Vec<&Value> =
            listed["models"].as_array().unwrap().iter().map(|row| &row["name"]).collect();
        assert!(!names.iter().any(|name| name.as_str().unwrap().starts_with("org/")), "{names:?}");
    }
}

fn demo() -> Repository {
    let files =
        ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS];
    let there = files.into_iter().filter_map(|file| Some((file, fs::read(Path::new(DEMO).join(file)).ok()?)));
    there.fold(Repository::default(), |repository, (file, content)| repository.with(file, content))
}

/// A checkpoint whose weights are no weights: a megabyte of numbers.
fn plain() -> Repository {
    let weights: Vec<u8> = (0..1_000_003_u32).map(|number| (number % 251) as u8).collect();
    Repository::default().with("config.json", "{}").with("tokenizer.json", "{}").with(WEIGHTS, weights)
}

fn serve(repository: &Repository, change: impl Fn(&Request, &mut Answer) + Send + Sync + 'static) -> Hub {
    let repository = repository.clone();
    Hub::serve(move |request| {
        let mut answer = repository.answer(request);
        change(request, &mut answer);
        answer
    })
}

/// A Hub that changes its first answer for the weights.
fn at_first(repository: &Repository, change: impl Fn(&mut Answer) + Send + Sync + 'static) -> Hub {
    let times = AtomicUsize::new(0);
    serve(repository, move |request, answer| {
        if request.path.ends_with(WEIGHTS) && times.fetch_add(1, Ordering::SeqCst) == 0 {
            change(answer);
        }
    })
}

fn report(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The last line of standard error, after checking the exit code and that it is the only one about the error.
fn message(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("tokenway: ")).collect();
    let [line] = lines.as_slice() else { panic!("{text}") };
    assert!(text.trim_end().ends_with(line), "{text}");
    (*line).to_owned()
}

fn assert_equal(folder: &Path, repository: &Repository, files: &[&str]) {
    for file in files {
        assert!(fs::read(folder.join(file)).unwrap() == repository.0[*file], "{file}");
    }
}

#[test]
fn a_whole_pull_equals_the_source_and_is_used_without_the_network() {
    let (home, repository) = (Home::new(), demo());
    let served = repository.clone().with("README.md", "no").with("consolidated.safetensors", "no");
    let hub = serve(&served, |_, _| {});
    let pulled = report(&home.pull(&hub, &["org/x"]));
    let files: Vec<&str> = repository.0.keys().map(String::as_str).collect();
    assert_equal(&home.snapshot(), &repository, &files);
    assert_eq!(fs::read_dir(home.snapshot()).unwrap().count(), files.len(), "and nothing else");
    assert_eq!(pulled["path"], home.snapshot().to_str().unwrap());
    assert_eq!((&pulled["commit"], &pulled["bytes"]), (&COMMIT.into(), &pulled["downloaded_bytes"]));

    let again = report(&home.pull(&hub, &["org/x"]));
    assert_eq!(again["downloaded_bytes"], 0);
    assert_eq!(hub.of_files().len(), files.len(), "each file once");

    for name in ["org/x", "hf:org/x"] {
        let inspected = home.run("http://127.0.0.1:9", &["inspect", "--json", name], &[]);
        assert_eq!(report(&inspected)["served"], true);
    }
    let tokens = home.run("http://127.0.0.1:9", &["tokenize", "--model", "hf:org/x", "--json", "Hi"], &[]);
    assert!(report(&tokens)["ids"].as_array().is_some_and(|ids| !ids.is_empty()));
}

#[test]
fn a_model_of_the_hub_is_pulled_where_it_is_named() {
    let (home, hub) = (Home::new(), serve(&demo(), |_, _| {}));
    let inspected = home.run(&hub.url(), &["inspect", "--json", "hf:org/x"], &[]);
    assert_eq!(report(&inspected)["served"], true);
    let gguf = home.0.path().join("x.gguf");
    let arguments = ["convert", "hf:org/x", gguf.to_str().unwrap(), "--type", "q8_0", "--json"];
    report(&home.run(&hub.url(), &arguments, &[]));
    assert_eq!(hub.requests().iter().filter(|request| request.path.starts_with("/api/")).count(), 1);
    let absent = home.run(&hub.url(), &["inspect", "hf:org/absent"], &[]);
    assert!(message(&absent, 2).contains("org/absent"));
}

#[test]
fn the_files_that_an_index_names_come_and_must_be_there() {
    let index = r#"{"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors", "c": "part-1.safetensors"}}"#;
    let repository = Repository::default()
        .with("config.json", "{}")
        .with("model.safetensors.index.json", index)
        .with("part-1.safetensors", "1")
        .with("part-3.safetensors", "3");
    let home = Home::new();
    let hub = serve(&repository, |_, _| {});
    assert!(message(&home.pull(&hub, &["org/x"]), 2).contains("part-2.safetensors"));
    home.assert_empty();
    let repository = repository.with("part-2.safetensors", "2");
    let hub = serve(&repository, |_, _| {});
    report(&home.pull(&hub, &["org/x"]));
    let files = ["config.json", "model.safetensors.index.json", "part-1.safetensors", "part-2.safetensors"];
    assert_equal(&home.snapshot(), &repository, &files);
    assert!(!home.snapshot().join("part-3.safetensors").exists());
}

#[test]
fn an_index_that_leads_out_of_the_repository_is_refused() {
    for file in ["../../x", "/etc/passwd"] {
        let index = serde_json::json!({ "weight_map": { "a": file } }).to_string();
        let repository =
            Repository::default().with("config.json", "{}").with("model.safetensors.index.json", index);
        let (home, hub) = (Home::new(), serve(&repository, |_, _| {}));
        message(&home.pull(&hub, &["org/x"]), 2);
        home.assert_empty();
    }
}

#[test]
fn a_connection_that_breaks_is_gone_on_from_with_only_the_rest() {
    const CUT: usize = 400_000;
    let (home, repository) = (Home::new(), plain());
    let hub = at_first(&repository, |answer| answer.cut = Some(CUT));
    report(&home.pull(&hub, &["org/x"]));
    let weights: Vec<Request> =
        hub.of_files().into_iter().filter(|request| request.path.ends_with(WEIGHTS)).collect();
    let ranges: Vec<_> = weights.iter().map(|request| (request.range.as_deref(), request.sent)).collect();
    assert_eq!(ranges, [(None, CUT), (Some("bytes=400000-"), repository.0[WEIGHTS].len() - CUT)]);
    assert_equal(&home.snapshot(), &repository, &["config.json", "tokenizer.json", WEIGHTS]);
}

#[test]
fn an_interrupted_pull_is_no_model_and_the_next_one_goes_on() {
    const CUT: usize = 123_457;
    let (home, repository) = (Home::new(), plain());
    let hub = at_first(&repository, |answer| answer.cut = Some(CUT));
    message(&home.pull(&hub, &["org/x", "--retries", "0"]), 1);
    home.assert_empty();
    let before = hub.requests().len();
    let pulled = report(&home.pull(&hub, &["org/x"]));
    let rest = repository.0[WEIGHTS].len() - CUT;
    let asked = &hub.requests()[before..];
    let weights: Vec<&Request> = asked.iter().filter(|request| request.path.ends_with(WEIGHTS)).collect();
    assert_eq!(weights.len(), 1, "{asked:?}");
    assert_eq!((weights[0].range.as_deref(), weights[0].sent), (Some("bytes=123457-"), rest));
    // `config.json` is the last to come.
    assert_eq!(pulled["downloaded_bytes"], rest + repository.0["config.json"].len());
    assert_equal(&home.snapshot(), &repository, &["config.json", "tokenizer.json", WEIGHTS]);
}

#[test]
fn a_server_that_sends_the_whole_file_again_is_understood() {
    let (home, repository) = (Home::new(), plain());
    let whole = repository.0[WEIGHTS].clone();
    let times = AtomicUsize::new(0);
    let hub = serve(&repository, move |request, answer| {
        if request.path.ends_with(WEIGHTS) {
            let cut = (times.fetch_add(1, Ordering::SeqCst) == 0).then_some(1000);
            *answer = Answer { cut, ..Answer::new(200, whole.clone()) };
        }
    });
    report(&home.pull(&hub, &["org/x"]));
    assert_equal(&home.snapshot(), &repository, &[WEIGHTS]);
}

#[test]
fn an_answer_that_is_another_range_is_never_taken_for_the_rest() {
    let (home, repository) = (Home::new(), plain());
    let times = AtomicUsize::new(0);
    let hub = serve(&repository, move |request, answer| match request.path.ends_with(WEIGHTS) {
        true if times.fetch_add(1, Ordering::SeqCst) == 0 => answer.cut = Some(1000),
        true => answer.headers = vec![("Content-Range", "bytes 0-1000002/1000003".to_owned())],
        false => {}
    });
    message(&home.pull(&hub, &["org/x", "--retries", "1"]), 1);
    home.assert_empty();
}

#[test]
fn a_wrong_checksum_is_refused_and_leaves_nothing() {
    for file in [WEIGHTS, "tokenizer.json"] {
        let (home, repository) = (Home::new(), plain());
        let hub = serve(&repository, move |request, answer| {
            if request.path.ends_with(file) {
                answer.body[0] ^= 1;
            }
        });
        assert!(message(&home.pull(&hub, &["org/x"]), 1).contains(file));
        home.assert_empty();
        let listing = repository.listing();
        let entry =
            listing["siblings"].as_array().unwrap().iter().find(|entry| entry["rfilename"] == file).unwrap();
        let hashes = [entry["blobId"].as_str(), entry["lfs"]["sha256"].as_str()];
        let left = home.blobs();
        assert!(
            !left.iter().any(|blob| hashes.iter().flatten().any(|hash| blob.starts_with(hash))),
            "{left:?}"
        );
    }
}

#[test]
fn a_wrong_beginning_from_before_is_thrown_away_once() {
    let (home, repository) = (Home::new(), plain());
    let hub = at_first(&repository, |answer| answer.cut = Some(5000));
    message(&home.pull(&hub, &["org/x", "--retries", "0"]), 1);
    let part = home.blobs().into_iter().find(|blob| blob.ends_with(".incomplete")).unwrap();
    fs::write(home.cache().join("models--org--x/blobs").join(part), [7; 5000]).unwrap();
    report(&home.pull(&hub, &["org/x"]));
    assert_equal(&home.snapshot(), &repository, &[WEIGHTS]);
}

#[test]
fn more_bytes_than_listed_are_refused() {
    let (home, hub) = (
        Home::new(),
        serve(&plain(), |request, answer| {
            if request.path.ends_with(WEIGHTS) {
                answer.body.push(0);
            }
        }),
    );
    assert!(message(&home.pull(&hub, &["org/x"]), 1).contains(WEIGHTS));
    home.assert_empty();
}

#[test]
fn what_is_absent_or_refused_says_so_in_one_line() {
    let home = Home::new();
    let hub = serve(&plain(), |_, _| {});
    assert!(message(&home.pull(&hub, &["org/absent"]), 2).contains("org/absent"));
    assert!(message(&home.pull(&hub, &["org/x", "--revision", "v9"]), 2).contains("v9"));
    for status in [401, 403] {
        let hub = Hub::serve(move |_| Answer::new(status, "{}"));
        assert!(message(&home.pull(&hub, &["org/x"]), 2).contains("set HF_TOKEN"));
        assert_eq!(hub.requests().len(), 1, "it is not asked again");
        let with = home.run(&hub.url(), &["models", "pull", "org/x"], &[("HF_TOKEN", "secret")]);
        let text = message(&with, 2);
        assert!(text.contains("terms") && !text.contains("secret"), "{text}");
    }
    assert_eq!(home.pull(&hub, &["../x"]).status.code(), Some(2));
    assert_eq!(home.pull(&hub, &["org/x", "--revision", "../x"]).status.code(), Some(2));
}

#[test]
fn the_token_goes_to_the_endpoint_and_to_no_other_host() {
    let (home, repository) = (Home::new(), plain());
    let storage = serve(&repository, |_, _| {});
    let elsewhere = storage.url();
    let hub = serve(&repository, move |request, answer| {
        if request.path.ends_with(WEIGHTS) {
            *answer = Answer::new(302, "");
            answer.headers.push(("Location", format!("{elsewhere}{}", request.path)));
        }
    });
    let pull = |variables: &[(&str, &str)]| {
        let pulled = home.run(&hub.url(), &["models", "pull", "org/x", "--json"], variables);
        report(&pulled);
        fs::remove_dir_all(home.cache()).unwrap();
    };
    pull(&[("HF_TOKEN", " hf_variable\n")]);
    assert!(
        hub.requests().iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_variable"))
    );
    fs::create_dir_all(home.cache().parent().unwrap()).unwrap();
    fs::write(home.cache().with_file_name("token"), "hf_file\n").unwrap();
    let before = hub.requests().len();
    pull(&[]);
    let asked = &hub.requests()[before..];
    assert!(
        asked.iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_file")),
        "{asked:?}"
    );
    let stored = storage.requests();
    assert_eq!(stored.len(), 2);
    assert!(stored.iter().all(|request| request.authorization.is_none()), "{stored:?}");
}

#[test]
fn hostile_names_in_a_listing_are_refused_before_anything_is_written() {
    for name in ["../x.gguf", "/tmp/x.gguf", "a/../../x.gguf", "a\\..\\x.gguf", "a\n.gguf", ""] {
        let home = Home::new();
        let hub = serve(&plain().with(name, "x"), |_, _| {});
        message(&home.pull(&hub, &["org/x"]), 2);
        assert!(hub.of_files().is_empty());
        assert!(!home.cache().exists());
    }
}

#[test]
fn a_listing_has_an_end() {
    let home = Home::new();
    let hub = Hub::serve(|_| Answer::new(200, vec![b' '; 64 << 20]));
    assert!(message(&home.pull(&hub, &["org/x"]), 2).contains("16 MiB"));
    assert!(hub.requests()[0].sent < 40 << 20, "{}", hub.requests()[0].sent);
}

#[test]
fn what_the_disk_has_no_room_for_is_not_begun() {
    let (home, repository) = (Home::new(), plain());
    let mut listing = repository.listing();
    let weights = listing["siblings"].as_array_mut().unwrap().iter_mut().find(|file| !file["lfs"].is_null());
    weights.unwrap()["lfs"]["size"] = (1_u64 << 60).into();
    let hub = Hub::serve(move |_| Answer::new(200, listing.to_string()));
    assert!(message(&home.pull(&hub, &["org/x"]), 1).contains("free"));
    assert!(hub.of_files().is_empty());
}

#[test]
fn a_busy_hub_is_asked_again_so_often_and_no_more() {
    let home = Home::new();
    let hub = at_first(&plain(), |answer| *answer = Answer::new(503, ""));
    report(&home.pull(&hub, &["org/x"]));
    for status in [429, 500] {
        let hub = Hub::serve(move |_| Answer::new(status, ""));
        message(&home.pull(&hub, &["org/x", "--retries", "1"]), 1);
        assert_eq!(hub.requests().len(), 2);
    }
}

#[test]
fn without_a_network_it_ends_at_once() {
    let home = Home::new();
    let away = home.run("http://127.0.0.1:9", &["models", "pull", "org/x"], &[]);
    assert!(message(&away, 1).contains("no answer"));
    let hub = serve(&plain(), |_, _| {});
    let offline = home.run(&hub.url(), &["inspect", "hf:org/x"], &[("HF_HUB_OFFLINE", "1")]);
    assert!(message(&offline, 1).contains("HF_HUB_OFFLINE"));
    assert!(hub.requests().is_empty());
    let wrong = home.run("ftp://x", &["models", "pull", "org/x"], &[]);
    assert!(message(&wrong, 2).contains("HF_ENDPOINT"));
}

#[test]
fn a_gguf_comes_alone_with_all_its_parts_and_any_name() {
    let repository = plain()
        .with("big/x-Q8_0-00001-of-00002.gguf", "first")
        .with("big/x-Q8_0-00002-of-00002.gguf", "second")
        .with("x 100%#1?-Q4_K_M.gguf", "odd");
    let (home, hub) = (Home::new(), serve(&repository, |_, _| {}));
    let pulled = report(&home.pull(&hub, &["org/x:q8_0"]));
    let parts = ["big/x-Q8_0-00001-of-00002.gguf", "big/x-Q8_0-00002-of-00002.gguf"];
    assert_eq!(pulled["path"], home.snapshot().join(parts[0]).to_str().unwrap());
    assert_equal(&home.snapshot(), &repository, &parts);
    report(&home.pull(&hub, &["hf:org/x:q4_k_m"]));
    assert_equal(&home.snapshot(), &repository, &["x 100%#1?-Q4_K_M.gguf"]);
    assert!(!home.snapshot().join("config.json").exists());
    let none = message(&home.pull(&hub, &["org/x:q2_k"]), 2);
    assert!(none.contains("Q4_K_M") && none.contains("Q8_0"), "{none}");
}

#[test]
fn two_at_once_do_not_write_one_file() {
    let (home, repository) = (Home::new(), plain());
    let hub = serve(&repository, |_, _| {});
    let listing = repository.listing();
    let weights = listing["siblings"].as_array().unwrap().iter().find(|file| !file["lfs"].is_null()).unwrap();
    let locks = home.cache().join(".locks/models--org--x");
    fs::create_dir_all(&locks).unwrap();
    let lock =
        fs::File::create(locks.join(format!("{}.lock", weights["lfs"]["sha256"].as_str().unwrap()))).unwrap();
    lock.lock().unwrap();
    assert!(message(&home.pull(&hub, &["org/x"]), 1).contains("another process"));
    drop(lock);
    report(&home.pull(&hub, &["org/x"]));
}
