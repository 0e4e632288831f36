//! Where models and the file that names them are looked for.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Folders that environment variables decide.
#[derive(Debug)]
pub struct Places {
    home: Option<PathBuf>,
    /// The file that names models.
    pub models_toml: Option<PathBuf>,
    /// The Hugging Face cache.
    pub hub: Option<PathBuf>,
    /// The file with the token for the Hub.
    pub token_file: Option<PathBuf>,
}

impl Places {
    /// Those of this process.
    pub fn of_environment() -> Self {
        Self::new(|name| env::var_os(name))
    }

    /// Source of the cache's place: `constants.py` of huggingface_hub.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = folder("HOME");
        let below_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let config = folder("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let cache = folder("XDG_CACHE_HOME").or_else(|| below_home(".cache"));
        let hugging_face = folder("HF_HOME").or_else(|| Some(cache?.join("huggingface")));
        let below_hugging_face = |name: &str| hugging_face.as_ref().map(|folder| folder.join(name));
        let hub = folder("HF_HUB_CACHE").or_else(|| below_hugging_face("hub"));
        let token_file = folder("HF_TOKEN_PATH").or_else(|| below_hugging_face("token"));
        let models_toml = config.map(|config| config.join("tokenway/models.toml"));
        Self { models_toml, hub, token_file, home }
    }

    /// `~/models` and the Hugging Face cache.
    pub fn usual_folders(&self) -> Vec<PathBuf> {
        self.home.iter().map(|home| home.join("models")).chain(self.hub.clone()).collect()
    }

    /// A path with `~/` at its beginning, or else from `folder` on.
    pub fn resolve(&self, path: &Path, folder: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => folder.join(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(variables: &[(&str, &str)]) -> Places {
        Places::new(|name| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_nearest_variable_decides() {
        let hub = |variables: &[(&str, &str)]| places(variables).usual_folders().pop();
        let is = |path: &str| Some(PathBuf::from(path));
        assert_eq!(hub(&[("HOME", "/h")]), is("/h/.cache/huggingface/hub"));
        assert_eq!(hub(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), is("/x/huggingface/hub"));
        assert_eq!(hub(&[("HOME", "/h"), ("HF_HOME", "/f")]), is("/f/hub"));
        assert_eq!(hub(&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")]), is("/c"));
        assert_eq!(hub(&[]), None);
        assert_eq!(places(&[("HOME", "/h")]).models_toml, is("/h/.config/tokenway/models.toml"));
        let both = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")];
        assert_eq!(places(&both).models_toml, is("/x/tokenway/models.toml"));
    }

    #[test]
    fn a_tilde_is_home_and_other_paths_start_at_the_file() {
        let places = places(&[("HOME", "/h")]);
        let resolve = |path: &str| places.resolve(Path::new(path), Path::new("/f"));
        assert_eq!(resolve("~/m"), Path::new("/h/m"));
        assert_eq!(resolve("m"), Path::new("/f/m"));
        assert_eq!(resolve("/m"), Path::new("/m"));
        assert_eq!(resolve("~m"), Path::new("/f/~m"));
    }
}
