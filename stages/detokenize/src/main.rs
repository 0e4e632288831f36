//! The detokenize process.

use std::process::ExitCode;

use detokenize::Detokenize;
use models::ModelFolder;
use pipelines::service::{self, Loaded};
use schemas::Role;

fn main() -> ExitCode {
    service::main(Role::Detokenize, |setup| {
        let folder = ModelFolder::open(&setup.pipeline.path)?;
        let fp = setup.pipeline.fingerprint(folder.hash()?);
        let stage = Detokenize::new(&setup.pipeline, fp, folder.load_tokenizer()?);
        Ok(Loaded {
            fp,
            context_length: folder.context_length(),
            sees: folder.vision().is_some(),
            stage: Box::new(stage),
        })
    })
}
