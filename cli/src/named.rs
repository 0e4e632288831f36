//! A model as it is named on the command line: a path, a name that `tokenway models` shows, or `hf:ORG/NAME`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::exit::misuse;
use crate::locate;
use crate::printable::{escaped, shortened};
use crate::pull::{self, Reference};
use crate::registry::{self, Known, Places};

/// What stands before a repository of the Hub.
const HUB: &str = "hf:";

/// How near a name must be to be shown for one that there is not. Of what is 0 for nothing alike, 1 for equal.
const SIMILARITY: f64 = 0.7;

/// How many near names are shown.
const NEAR_MAX: usize = 3;

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The name under which it is served.
    pub id: String,
    /// Folder or file; absolute. A link in the cache to a file is kept: what it leads to has neither name nor neighbours.
    pub path: PathBuf,
}

/// The model named. One of the Hub that is not here is downloaded first.
pub async fn resolve(model: &Path) -> anyhow::Result<Model> {
    let places = Places::of_environment();
    if let Some(reference) = reference(model)?
        && cached(&places, &reference).is_none()
    {
        pull::pull_main(&reference, &places).await?;
    }
    local(model, &places)
}

/// The model named, as far as it is on this machine.
pub fn local(model: &Path, places: &Places) -> anyhow::Result<Model> {
    if let Some(reference) = reference(model)? {
        let path = cached(places, &reference);
        let path = path.ok_or_else(|| misuse(format!("`{}` is not in the cache", model.display())))?;
        return Ok(Model { id: registry::name(&path), path });
    }
    if model.exists() {
        let path = absolute(model)?;
        return Ok(Model { id: registry::name(&path), path });
    }
    let name = model.to_str().ok_or_else(|| misuse(format!("`{}` is not UTF-8", model.display())))?;
    named(name, places)
}

/// Where a folder or file is, from the root on. Links are followed but for the last, if that is a file's.
pub fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let found = match (path.is_dir(), path.parent(), path.file_name()) {
        (false, Some(folder), Some(name)) => {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            fs::metadata(path).and_then(|_| Ok(folder.canonicalize()?.join(name)))
        }
        _ => path.canonicalize(),
    };
    found.map_err(|error| misuse(format!("model `{}`: {error}", path.display())))
}

/// None where the name does not begin with `hf:`.
fn reference(model: &Path) -> anyhow::Result<Option<Reference>> {
    let name = model.to_str().filter(|name| name.starts_with(HUB) && !model.exists());
    name.map(str::parse).transpose().map_err(pull::PullError::into_command_error)
}

fn cached(places: &Places, reference: &Reference) -> Option<PathBuf> {
    pull::cached(&std::path::absolute(places.hub.as_ref()?).ok()?, reference)
}

/// By its name: of a folder under models/ here, as `tokenway models` shows it, or of a repository in the cache.
fn named(name: &str, places: &Places) -> anyhow::Result<Model> {
    if let Some(folder) = locate::in_repository(&Path::new("models").join(name)).filter(|path| path.is_dir())
    {
        return Ok(Model { id: registry::name(Path::new(name)), path: absolute(&folder)? });
    }
    let (known, _) = registry::known(places, &[])?;
    let found: Vec<&Known> = known.iter().filter(|(_, other, _)| other == name).collect();
    if let [(_, id, path)] = found.as_slice() {
        return Ok(Model { id: id.clone(), path: absolute(path)? });
    }
    // Of several snapshots, that of the branch; and of a GGUF's name, a part is enough.
    let in_cache = name.parse().ok().and_then(|reference| cached(places, &reference));
    if let Some(path) = in_cache {
        return Ok(Model { id: registry::name(&path), path });
    }
    Err(misuse(match found.as_slice() {
        [] => unknown(name, &known),
        several => {
            let paths: Vec<String> =
                several.iter().map(|(.., path)| format!("`{}`", path.display())).collect();
            format!("`{name}` is the name of several models: {}", paths.join(", "))
        }
    }))
}

fn unknown(name: &str, known: &[Known]) -> String {
    let wanted = name.to_lowercase();
    let similarity = |other: &str| {
        let other = other.to_lowercase();
        if other.contains(&wanted) { 1.0 } else { strsim::jaro_winkler(&wanted, &other) }
    };
    let mut near: Vec<(f64, &str)> =
        known.iter().map(|(_, other, _)| (similarity(other), other.as_str())).collect();
    near.retain(|(similarity, _)| *similarity > SIMILARITY);
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.dedup_by_key(|(_, name)| *name);
    let names: Vec<String> =
        near.iter().take(NEAR_MAX).map(|(_, name)| format!("`{}`", escaped(name))).collect();
    let hint = match (names.as_slice(), name.parse::<Reference>()) {
        ([_, ..], _) => format!("near ones are {}", names.join(", ")),
        ([], Ok(_)) => format!("`{HUB}{name}` downloads it from the Hugging Face Hub"),
        ([], Err(_)) => "`tokenway models` lists those that there are".to_owned(),
    };
    format!("`{}` is neither a path nor the name of a model; {hint}", shortened(name, 200))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const COMMIT: &str = "0123456789012345678901234567890123456789";

    /// A home with a named model, two below ~/models that share a name, and a repository in the cache.
    fn home() -> (tempfile::TempDir, Places) {
        let home = tempfile::tempdir().unwrap();
        let write = |path: &str, content: &str| {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let config = r#"{"model_type": "llama"}"#;
        write(".config/tokenway/models.toml", "[models.mine]\npath = \"~/elsewhere\"\n");
        write("elsewhere/config.json", config);
        for folder in ["models/a/twin", "models/b/twin", "models/only"] {
            write(&format!("{folder}/config.json"), config);
        }
        let repository = "hub/models--org--x";
        write(&format!("{repository}/refs/main"), COMMIT);
        write(&format!("{repository}/blobs/0123"), config);
        let snapshot = home.path().join(repository).join("snapshots").join(COMMIT);
        fs::create_dir_all(&snapshot).unwrap();
        for file in ["config.json", "model.safetensors", "x-Q4_K_M.gguf"] {
            symlink("../../blobs/0123", snapshot.join(file)).unwrap();
        }
        write(&format!("{repository}/snapshots/old/config.json"), config);
        write(&format!("{repository}/snapshots/old/model.safetensors"), config);
        let root = home.path().to_owned();
        let places = Places::new(move |name| match name {
            "HOME" => Some(root.clone().into()),
            "HF_HUB_CACHE" => Some(root.join("hub").into()),
            _ => None,
        });
        (home, places)
    }

    fn find(name: &str, places: &Places) -> (String, PathBuf) {
        let model = local(Path::new(name), places).unwrap();
        (model.id, model.path)
    }

    #[test]
    fn a_path_or_a_name_of_the_list_is_the_model() {
        let (home, places) = home();
        let root = home.path().canonicalize().unwrap();
        let path = root.join("elsewhere");
        assert_eq!(find(path.to_str().unwrap(), &places), ("elsewhere".to_owned(), path.clone()));
        assert_eq!(find("mine", &places), ("mine".to_owned(), path));
        assert_eq!(find("only", &places).1, root.join("models/only"));
        let (id, path) = find("tokenway-demo", &places);
        assert!(id == "tokenway-demo" && path.ends_with("models/demo"), "{path:?}");
    }

    #[test]
    fn a_repository_in_the_cache_is_its_branch_and_a_gguf_keeps_its_name() {
        let (home, places) = home();
        let snapshot = home.path().join("hub/models--org--x/snapshots").join(COMMIT);
        for name in ["org/x", "hf:org/x"] {
            assert_eq!(find(name, &places), ("org/x".to_owned(), snapshot.clone()));
        }
        for name in ["org/x:x-Q4_K_M", "org/x:q4_k_m", "hf:org/x:x-Q4_K_M.gguf"] {
            let (id, path) = find(name, &places);
            assert_eq!((id.as_str(), path), ("org/x:x-Q4_K_M", snapshot.join("x-Q4_K_M.gguf")), "{name}");
        }
        let link = snapshot.join("x-Q4_K_M.gguf");
        assert_eq!(absolute(&link).unwrap().file_name(), link.file_name());
    }

    #[test]
    fn an_unknown_or_ambiguous_name_is_one_line_of_misuse_that_names_near_ones() {
        let (_home, places) = home();
        let message = |name: &str| {
            let error = local(Path::new(name), &places).unwrap_err();
            assert!(error.is::<crate::exit::Misuse>(), "{error:#}");
            let text = format!("{error:#}");
            assert!(!text.contains('\n'), "{text}");
            text
        };
        assert!(message("onyl").contains("`only`"));
        assert!(message("org/x:q8_0").contains("`org/x"));
        assert!(message("zzz/yyy").contains("hf:zzz/yyy"));
        assert!(message("/absent").contains("tokenway models"));
        let twins = message("twin");
        assert!(twins.contains("models/a/twin") && twins.contains("models/b/twin"), "{twins}");
        message("hf:org");
        message("hf:org/absent");
    }
}
