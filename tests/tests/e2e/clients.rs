//! Clients over HTTP: openai-python, a browser on the chat page, and our own SDKs.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::ensure;
use serde_json::Value;
use tests::{Cluster, Options, binary, repository};

/// A scene that the chat page is asked about.
const PICTURE: &str = "scenes/01.png";
const QUESTION: &str = "Which shape is orange?";
const ANSWER: &str = "ring";

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output()?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    Ok(out.into_owned())
}

/// What scripts/setup-test installed as `name`.
pub fn installed(name: &str) -> anyhow::Result<PathBuf> {
    let path = repository().join(".deps").join(name);
    ensure!(path.exists(), "`{}` is missing: scripts/setup-test says how to install it", path.display());
    Ok(path)
}

/// A script of `tests/clients` for Node.
pub fn node(script: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(installed("bin/node")?);
    command.arg(repository().join("tests/clients").join(script));
    Ok(command)
}

/// Python with our SDK.
fn python() -> anyhow::Result<Command> {
    let mut command = Command::new(installed("venv/bin/python")?);
    command.arg("-B").env("PYTHONPATH", repository().join("sdk/python/src"));
    Ok(command)
}

/// The script that uses our Python SDK.
pub fn sdk_python() -> anyhow::Result<Command> {
    let mut command = python()?;
    command.arg(repository().join("tests/clients/sdk_python.py"));
    Ok(command)
}

/// The script that uses our TypeScript SDK.
pub fn sdk_typescript() -> anyhow::Result<Command> {
    compile_typescript()?;
    node("sdk_typescript.mjs")
}

/// Compiles our TypeScript SDK, once; that checks its types.
fn compile_typescript() -> anyhow::Result<()> {
    static COMPILED: OnceLock<Result<(), String>> = OnceLock::new();
    let compile = || {
        let compiler = installed("node/node_modules/typescript/bin/tsc")?;
        let mut command = Command::new(installed("bin/node")?);
        run(command.arg(compiler).arg("--project").arg(repository().join("sdk/typescript")))
    };
    let compiled = COMPILED.get_or_init(|| compile().map(drop).map_err(|error| format!("{error:#}")));
    compiled.clone().map_err(anyhow::Error::msg)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_python_works_against_a_live_gateway() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo()).await?;
    let script = repository().join("tests/clients/openai_client.py");
    let printed = run(python()?.arg(script).arg(format!("{}/v1", cluster.url())).arg(&cluster.model))?;
    assert!(printed.contains("all checks passed"), "{printed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_sdks_work_against_a_live_gateway() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo()).await?;
    for mut client in [sdk_python()?, sdk_typescript()?] {
        let printed = run(client.arg(cluster.url()))?;
        assert!(printed.contains("all checks passed"), "{printed}");
    }
    Ok(())
}

#[test]
fn our_sdks_have_each_event_once_whatever_byte_a_connection_breaks_at() -> anyhow::Result<()> {
    let sdk = repository().join("sdk");
    run(python()?.args(["-m", "unittest", "discover", "--start-directory"]).arg(sdk.join("python/tests")))?;
    compile_typescript()?;
    let mut node = Command::new(installed("bin/node")?);
    run(node.arg("--test").arg(sdk.join("typescript/test/stream.test.mjs")))?;
    Ok(())
}

#[test]
fn our_sdks_are_made_from_the_document_that_the_gateway_prints() -> anyhow::Result<()> {
    let printed: Value = serde_json::from_str(&run(Command::new(binary("gateway")?).arg("--openapi"))?)?;
    let kept: Value = serde_json::from_slice(&std::fs::read(repository().join("sdk/openapi.json"))?)?;
    ensure!(printed == kept, "`sdk/openapi.json` is not what the gateway prints: make sdk");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chat_page_streams_an_answer_in_a_browser() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo()).await?;
    let mut page = node("chat_page.mjs")?;
    page.arg(cluster.url()).arg(installed("bin/chromium")?);
    page.arg(repository().join("models/demo").join(PICTURE)).args([QUESTION, ANSWER]);
    let printed = run(&mut page)?;
    assert!(printed.contains("all checks passed"), "{printed}");
    Ok(())
}
