//! One shard of a model. The first one admits and schedules. As `shard-forward tool …` it computes without a pipeline.

use std::process::ExitCode;

use schemas::Role;

fn main() -> ExitCode {
    if let Err(error) = shard_forward::threads::settle() {
        eprintln!("shard-forward: {error:#}");
        return ExitCode::FAILURE;
    }
    if let Some(tool) = shard_forward::tools::arguments() {
        return shard_forward::tools::main(&tool);
    }
    pipelines::service::main(Role::ShardForward(0), shard_forward::load)
}
