//! Clients that others wrote: openai-python, and a browser on the chat page.

use std::process::Command;

use anyhow::ensure;
use tests::{Cluster, Options, repository};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openai_python_works_against_a_live_gateway() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo()).await?;
    let python = repository().join(".deps/venv/bin/python");
    ensure!(python.is_file(), "`{}` is missing: scripts/setup-test", python.display());
    let script = repository().join("tests/clients/openai_client.py");
    let printed =
        run(Command::new(python).arg(script).arg(format!("{}/v1", cluster.url())).arg(&cluster.model))?;
    assert!(printed.contains("all checks passed"), "{printed}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chat_page_streams_an_answer_in_a_browser() -> anyhow::Result<()> {
    let cluster = Cluster::start(Options::demo()).await?;
    let (node, chromium) = (repository().join(".deps/bin/node"), repository().join(".deps/bin/chromium"));
    for needed in [&node, &chromium] {
        ensure!(
            needed.exists(),
            "`{}` is missing: scripts/setup-test says how to install it",
            needed.display()
        );
    }
    let script = repository().join("tests/clients/chat_page.mjs");
    let picture = repository().join("models/demo").join(PICTURE);
    let mut page = Command::new(node);
    page.arg(script).arg(cluster.url()).arg(chromium).arg(picture).args([QUESTION, ANSWER]);
    let printed = run(&mut page)?;
    assert!(printed.contains("all checks passed"), "{printed}");
    Ok(())
}
