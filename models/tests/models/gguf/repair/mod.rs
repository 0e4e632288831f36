//! Files that are damaged in one way, and what becomes of them.

mod draft;

mod alignment;
mod hostile;
mod keys;
mod structure;

use std::path::Path;

use models::ModelFolder;
use models::gguf::convert::{Content, Plan};
use models::gguf::repair::{Fix, Repair, RepairError};
use models::gguf::{Gguf, TensorType};

use draft::{Draft, Tensor};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// In memory where that is a file system, since there are many.
fn folder() -> tempfile::TempDir {
    match Path::new("/dev/shm").is_dir() {
        true => tempfile::tempdir_in("/dev/shm").unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

/// A converted checkpoint of some kilobytes: all its keys, and of its tensors one column.
fn golden(name: &str) -> Draft {
    Draft::of(&Gguf::open(&Path::new(CRATE).join(format!("goldens/gguf_converted/{name}.gguf"))).unwrap())
}

/// The demo model.
fn demo() -> Draft {
    of_folder(&Path::new(CRATE).join("demo"))
}

/// A model folder. Weights are as they are stored there, which is not the order of rows of a GGUF.
fn of_folder(folder: &Path) -> Draft {
    let plan = Plan::of_folder(&ModelFolder::open(folder).unwrap(), None).unwrap();
    let tensor = |tensor: &models::gguf::convert::PlannedTensor| match &tensor.content {
        Content::Stored { parts, .. } => Tensor {
            name: tensor.name.clone(),
            tensor_type: parts[0].tensor_type,
            shape: tensor.shape.clone(),
            bytes: parts.iter().flat_map(|part| part.bytes()).copied().collect(),
        },
        Content::Numbers(numbers) => Tensor {
            name: tensor.name.clone(),
            tensor_type: TensorType::F32,
            shape: tensor.shape.clone(),
            bytes: numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        },
    };
    Draft { tensors: plan.tensors.iter().map(tensor).collect(), entries: plan.metadata, ..Draft::default() }
}

/// What is changed of a file of these bytes, and what the strict reader has of the file that is written; the source stays as it is.
fn repair(bytes: &[u8]) -> Result<(Vec<Fix>, Draft), RepairError> {
    let folder = folder();
    let (from, to) = (folder.path().join("from.gguf"), folder.path().join("to.gguf"));
    std::fs::write(&from, bytes).unwrap();
    let repair = Repair::plan(&from)?;
    let (fixes, expected) = (repair.fixes().to_vec(), repair.bytes());
    let mut copied = 0;
    repair.write(&to, |bytes| copied += bytes as u64).unwrap();
    assert_eq!(copied, expected);
    assert!(std::fs::read(&from).unwrap() == bytes);
    let found = Draft::of(&Gguf::open(&to).unwrap());
    // What is written is whole.
    assert!(Repair::plan(&to).unwrap().fixes().is_empty());
    Ok((fixes, found))
}

fn kinds(fixes: &[Fix]) -> Vec<&'static str> {
    fixes.iter().map(Fix::kind).collect()
}

/// That a file of these bytes is repaired to the original by changes of these kinds.
fn assert_repaired(original: &Draft, damaged: &[u8], expected: &[&str]) {
    let (fixes, found) = repair(damaged).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(kinds(&fixes), expected, "{fixes:?}");
    found.assert_is(original);
}
