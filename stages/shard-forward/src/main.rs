//! One shard of a model. The first one admits and schedules.

use std::process::ExitCode;

use schemas::Role;

fn main() -> ExitCode {
    if let Err(error) = shard_forward::threads::settle() {
        eprintln!("shard-forward: {error:#}");
        return ExitCode::FAILURE;
    }
    pipelines::service::main(Role::ShardForward(0), shard_forward::load)
}
