//! Looking at a model folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use models::{ModelFolder, SafetensorsFile, Weights, WeightsError};
use serde_json::{Map, Value as Json};

use super::{Checkpoint, Facts, Format, Tensor, damaged, metadata, one_line, stored};
use crate::exit::misuse;

/// Reads `config.json` and the headers of the weights, where there are any.
pub fn read(path: &Path) -> anyhow::Result<Checkpoint> {
    let config = read_config_json(path)?;
    let mut facts = Facts::of_config_json(&config);
    let mut refusal = match ModelFolder::open(path) {
        Ok(folder) => {
            facts.fill(folder.config());
            None
        }
        Err(error) => Some(one_line(error)),
    };
    let (tensors, file_bytes) = match Weights::open(path) {
        Ok(weights) => {
            refusal = refusal.or_else(|| refusal_of_the_rest(path, &weights));
            read_tensors(path, &weights)?
        }
        Err(error @ WeightsError::NoWeights { .. }) => {
            refusal.get_or_insert_with(|| one_line(error));
            (Vec::new(), 0)
        }
        Err(error) => return Err(misuse(format!("`{}`: {}", path.display(), one_line(error)))),
    };
    let metadata: Map<String, Json> = match metadata::shortened(config) {
        Json::Object(fields) => fields,
        _ => Map::new(),
    };
    let (path, format) = (path.to_owned(), Format::Folder);
    Ok(Checkpoint { path, format, facts, metadata, tensors, file_bytes, refusal })
}

fn read_config_json(folder: &Path) -> anyhow::Result<Json> {
    let path = folder.join("config.json");
    let content = fs::read(&path).map_err(|error| misuse(format!("`{}`: {error}", path.display())))?;
    serde_json::from_slice(&content).map_err(|error| misuse(format!("`{}`: {error}", path.display())))
}

/// What, after the configuration, would keep the model from being served.
fn refusal_of_the_rest(folder: &Path, weights: &Weights) -> Option<String> {
    // Buffers, such as positions, may be of other types: they are not read.
    let names = weights.names().into_iter().filter(|name| name.ends_with(".weight"));
    let unread = names.filter_map(|name| weights.get_shared(name).err()).next();
    unread.map(one_line).or_else(|| {
        let there = folder.join("tokenizer.json").is_file();
        (!there).then(|| format!("there is no `tokenizer.json` in `{}`", folder.display()))
    })
}

/// The tensors that the index names, or all of a single file; and the length of the files.
fn read_tensors(folder: &Path, weights: &Weights) -> anyhow::Result<(Vec<Tensor>, u64)> {
    let files: BTreeSet<&str> =
        weights.names().into_iter().filter_map(|name| weights.file_of(name)).collect();
    let (mut tensors, mut bytes) = (Vec::new(), 0);
    for name in files {
        let file = SafetensorsFile::open(&folder.join(name)).map_err(damaged)?;
        bytes += file.bytes() as u64;
        let used = file.tensors().iter().filter(|tensor| weights.file_of(&tensor.name) == Some(name));
        tensors.extend(used.map(stored));
    }
    Ok((tensors, bytes))
}
