//! A file that is not whole yet: its beginning on disk, and the hash of that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::digest::Hasher;
use super::error::PullError;
use super::listing::RemoteFile;

const READ_BYTES: usize = 1 << 20;

/// A file while it comes.
pub struct Part<'a> {
    remote: &'a RemoteFile,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    length: u64,
    /// Whether some of it came before.
    is_resumed: bool,
}

impl<'a> Part<'a> {
    /// What there is of `remote` at `path`.
    pub fn open(path: PathBuf, remote: &'a RemoteFile) -> Result<Self, PullError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|source| disk_error(&path, source))?;
        let hasher = Hasher::like(&remote.digest, remote.size);
        let mut part = Self { remote, path, file, hasher, length: 0, is_resumed: false };
        part.read_on()?;
        if part.length > remote.size {
            part.restart()?;
        }
        part.is_resumed = part.length > 0;
        Ok(part)
    }

    /// Takes in what is on disk, up to one byte more than there should be.
    fn read_on(&mut self) -> Result<(), PullError> {
        let mut rest = (&self.file).take(self.remote.size.saturating_add(1));
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = rest.read(&mut buffer).map_err(|source| disk_error(&self.path, source))?;
            if count == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer[..count]);
            self.length += count as u64;
        }
    }

    /// Bytes that are here.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Adds the next bytes. More than there should be are refused.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        if bytes.len() as u64 > self.remote.size - self.length {
            return Err(PullError::TooLong { file: self.remote.path.clone(), size: self.remote.size });
        }
        self.file.write_all(bytes).map_err(|source| disk_error(&self.path, source))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Begins anew.
    pub fn restart(&mut self) -> Result<(), PullError> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|source| disk_error(&self.path, source))?;
        self.hasher = Hasher::like(&self.remote.digest, self.remote.size);
        self.length = 0;
        self.is_resumed = false;
        Ok(())
    }

    /// Checks the whole file. A wrong one is emptied; whether it had begun before, so that another try may be right, is the answer.
    pub fn check(&mut self) -> Result<(), (PullError, bool)> {
        let got = self.hasher.digits();
        if got == self.remote.digest.digits() {
            return Ok(());
        }
        let was_resumed = self.is_resumed;
        let error = PullError::Checksum {
            file: self.remote.path.clone(),
            algorithm: self.remote.digest.algorithm(),
            expected: self.remote.digest.digits().to_owned(),
            got,
        };
        self.restart().map_err(|error| (error, false))?;
        Err((error, was_resumed))
    }

    /// Gives the file, which was checked, its name. It is on disk before: a power cut leaves no file of zeros.
    pub fn finish(self, blob: &Path) -> Result<(), PullError> {
        self.file.sync_all().map_err(|source| disk_error(&self.path, source))?;
        fs::rename(&self.path, blob).map_err(|source| disk_error(blob, source))
    }

    /// Deletes it.
    pub fn delete(self) -> Result<(), PullError> {
        fs::remove_file(&self.path).map_err(|source| disk_error(&self.path, source))
    }
}

/// An error of the cache that names the file.
pub fn disk_error(path: &Path, source: io::Error) -> PullError {
    PullError::Io { path: path.to_owned(), source }
}
