//! Models that are known by name: the demo, and those of the user's `models.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::places::Places;
use super::row::Source;
use crate::checkpoint::one_line;
use crate::exit::misuse;
use crate::locate;

const DEMO: &str = "models/demo";

/// The name under which pipelines serve it.
const DEMO_NAME: &str = "tokenway-demo";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelsToml {
    #[serde(default)]
    models: BTreeMap<String, Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: PathBuf,
}

/// The demo model, where the repository is.
pub fn demo() -> Vec<(Source, String, PathBuf)> {
    let folder = locate::in_repository(&Path::new(DEMO).join("config.json"));
    let folder = folder.and_then(|file| Some(file.parent()?.to_owned()));
    folder.map(|folder| (Source::Demo, DEMO_NAME.to_owned(), folder)).into_iter().collect()
}

/// The models of `models.toml`; none when there is no such file.
pub fn named(places: &Places) -> anyhow::Result<Vec<(Source, String, PathBuf)>> {
    let Some(path) = &places.models_toml else { return Ok(Vec::new()) };
    let content = match fs::read_to_string(path) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(misuse(format!("`{}`: {error}", path.display()))),
    };
    let file: ModelsToml = toml::from_str(&content)
        .map_err(|error| misuse(format!("`{}`: {}", path.display(), one_line(error))))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let resolve = |(name, entry): (String, Entry)| (Source::Named, name, places.resolve(&entry.path, folder));
    Ok(file.models.into_iter().map(resolve).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> anyhow::Result<Vec<(Source, String, PathBuf)>> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tokenway")).unwrap();
        fs::write(folder.path().join("tokenway/models.toml"), content).unwrap();
        let config = folder.path().as_os_str().to_owned();
        named(&Places::new(|name| Some(if name == "XDG_CONFIG_HOME" { config.clone() } else { "/h".into() })))
    }

    #[test]
    fn names_and_paths_are_read_and_mistakes_name_the_file() {
        let models = read("[models.a]\npath = \"~/a\"\n[models.\"b c\"]\npath = \"/b.gguf\"\n").unwrap();
        let names: Vec<_> = models.iter().map(|(_, name, path)| (name.as_str(), path.as_path())).collect();
        assert_eq!(names, [("a", Path::new("/h/a")), ("b c", Path::new("/b.gguf"))]);
        assert!(read("").unwrap().is_empty());
        for wrong in ["[models.a]\npth = \"x\"\n", "models = 3", "[models.a]\n", "["] {
            let error = read(wrong).unwrap_err();
            let text = format!("{error:#}");
            assert!(error.is::<crate::exit::Misuse>(), "{text}");
            assert!(text.contains("models.toml") && !text.contains('\n'), "{text}");
        }
    }
}
