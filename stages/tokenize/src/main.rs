//! The tokenize process.

use std::process::ExitCode;

use models::ModelFolder;
use pipelines::service::{self, Loaded};
use schemas::Role;
use tokenize::{Model, Tokenize};

fn main() -> ExitCode {
    service::main(Role::Tokenize, |setup| {
        let folder = ModelFolder::open(&setup.pipeline.path)?;
        let fp = setup.pipeline.fingerprint(folder.hash()?);
        let stage = Tokenize::new(fp, Model::load(&folder)?);
        Ok(Loaded {
            fp,
            context_length: folder.context_length(),
            sees: folder.vision().is_some(),
            stage: Box::new(stage),
        })
    })
}
