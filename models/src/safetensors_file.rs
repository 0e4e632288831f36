//! What a safetensors file says it holds, whatever the types of its tensors: for looking at files, not for computing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::SafeTensors;

use crate::mapped_file::MappedFile;
use crate::weights::WeightsError;

/// One tensor as a header announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its name.
    pub name: String,
    /// The type of its elements, as the file writes it: `BF16`, `F8_E4M3`, `I64`.
    pub dtype: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// How many bytes it takes.
    pub bytes: usize,
}

/// The header of a safetensors file, checked: the tensors fill the rest of the file without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetensorsFile {
    path: PathBuf,
    bytes: usize,
    metadata: BTreeMap<String, String>,
    tensors: Vec<StoredTensor>,
}

impl SafetensorsFile {
    /// Reads the header. Errors have the path in place of the name of the file.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let file = || path.display().to_string();
        let map = MappedFile::open(path).map_err(|source| WeightsError::Io { file: file(), source })?;
        let (_, header) = SafeTensors::read_metadata(&map)
            .map_err(|source| WeightsError::Format { file: file(), source })?;
        let stored = |name: String| {
            let info = header.info(&name)?;
            let (start, end) = info.data_offsets;
            let (dtype, shape) = (info.dtype.to_string(), info.shape.clone());
            Some(StoredTensor { name, dtype, shape, bytes: end - start })
        };
        Ok(Self {
            path: path.to_owned(),
            bytes: map.len(),
            metadata: header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            tensors: header.offset_keys().into_iter().filter_map(stored).collect(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its `__metadata__`, such as `format`.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Its tensors, in the order in which their bytes lie.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

    use super::*;

    #[test]
    fn tensors_of_every_type_are_listed_and_damage_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.safetensors");
        let ids = TensorView::new(Dtype::I64, vec![2], &[0; 16]).unwrap();
        let halves = TensorView::new(Dtype::F8_E4M3, vec![2, 3], &[0; 6]).unwrap();
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        serialize_to_file([("ids", ids), ("w", halves)], Some(metadata), &path).unwrap();
        let file = SafetensorsFile::open(&path).unwrap();
        let listed: Vec<_> =
            file.tensors().iter().map(|t| (t.name.as_str(), t.dtype.as_str(), t.bytes)).collect();
        assert_eq!(listed, [("ids", "I64", 16), ("w", "F8_E4M3", 6)]);
        assert_eq!(file.tensors()[1].shape, [2, 3]);
        assert_eq!(file.metadata().collect::<Vec<_>>(), [("format", "pt")]);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = SafetensorsFile::open(&path).unwrap_err();
            assert!(error.to_string().contains("some.safetensors"), "{error}");
        }
    }
}
