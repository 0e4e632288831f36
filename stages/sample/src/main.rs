//! The sample process.

use std::process::ExitCode;

use models::ModelFolder;
use pipelines::service::{self, Loaded};
use sample::Sample;
use schemas::Role;

fn main() -> ExitCode {
    service::main(Role::Sample, |setup| {
        let folder = ModelFolder::open(&setup.pipeline.path)?;
        let fp = setup.pipeline.fingerprint(folder.hash()?);
        Ok(Loaded {
            fp,
            context_length: folder.context_length(),
            sees: folder.vision().is_some(),
            stage: Box::new(Sample::new(&setup.pipeline, fp)),
        })
    })
}
