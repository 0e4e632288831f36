//! The commands that compute with a model, which shard-forward carries out: it is linked to libtorch, this program is not.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use pipelines::tools::{ARGUMENT, Tool};
use schemas::Role;

use crate::exit::misuse;
use crate::locate;
use crate::named;

/// Makes the dynamic loader of glibc print a program's libraries instead of running it (`man ld.so`).
const LIST_LIBRARIES: &str = "LD_TRACE_LOADED_OBJECTS";

/// Becomes shard-forward, with the models that `tool` names found. Returns only if that is not possible.
pub async fn run(mut tool: Tool) -> anyhow::Result<ExitCode> {
    let program = program()?;
    for model in tool.models() {
        *model = named::resolve(model).await?.path;
    }
    let error = command(&program, &tool)?.exec();
    Err(misuse(format!("`{}`: {error}", program.display())))
}

/// How `program`, shard-forward, is run as `tool`.
pub fn command(program: &Path, tool: &Tool) -> anyhow::Result<Command> {
    // Only a path can be impossible to write.
    let tool = serde_json::to_string(tool).map_err(|error| misuse(error.to_string()))?;
    let mut command = Command::new(program);
    command.args([ARGUMENT, &tool]);
    Ok(command)
}

/// Where shard-forward is, with everything that it needs to start.
pub fn program() -> anyhow::Result<PathBuf> {
    let name = Role::ShardForward(0).binary();
    let program = locate::program(name).ok_or_else(|| {
        misuse(format!("`{name}`, which computes, is neither beside this program nor on `PATH`"))
    })?;
    let listed = Command::new(&program).arg("--version").env(LIST_LIBRARIES, "1").output();
    let listed = listed.with_context(|| format!("`{}`", program.display()))?;
    match missing(&String::from_utf8_lossy(&listed.stdout)) {
        Some(library) => Err(misuse(format!(
            "`{}` cannot start without `{library}`, which is not there: `make setup` fetches libtorch, LD_LIBRARY_PATH says where else it is",
            program.display()
        ))),
        None => Ok(program),
    }
}

/// The first library that the loader does not find.
fn missing(listed: &str) -> Option<&str> {
    listed.lines().find_map(|line| line.strip_suffix("=> not found")).map(str::trim)
}

#[cfg(test)]
mod tests {
    use pipelines::tools::{Bench, Compute, Element, Perplexity};

    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let listed =
            "\tlibc10.so => /a/libc10.so (0x1)\n\tlibtorch_cpu.so => not found\n\tlibc.so.6 => /b (0x2)\n";
        assert_eq!(missing(listed), Some("libtorch_cpu.so"));
        assert_eq!(missing("\tlibc10.so => /not found/libc10.so (0x1)\n"), None);
    }

    #[test]
    fn a_tool_arrives_as_it_was_read() {
        let compute = Compute { threads: Some(3), device: "cpu".into() };
        let text = "--it's \"quoted\"".into();
        let mut tool = Tool::Perplexity(Perplexity {
            model: "-m".into(),
            text,
            base: Some("hf:a/b".into()),
            context: 64,
            windows: None,
            dtype: Element::F32,
            compute: compute.clone(),
            json: true,
        });
        assert_eq!(tool.models().count(), 2);
        let command = command(Path::new("shard-forward"), &tool).unwrap();
        let arguments: Vec<_> = command.get_args().collect();
        let read: Tool = serde_json::from_str(arguments[1].to_str().unwrap()).unwrap();
        assert_eq!((arguments[0].to_str(), format!("{read:?}")), (Some(ARGUMENT), format!("{tool:?}")));
        let batch = vec![1];
        let mut tool = Tool::Bench(Bench {
            model: "m".into(),
            prompt: 1,
            generate: 1,
            batch,
            repetitions: 1,
            dtype: Element::Bf16,
            compute,
            json: false,
        });
        assert_eq!(tool.models().collect::<Vec<_>>(), [Path::new("m")]);
    }
}
