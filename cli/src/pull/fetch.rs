//! One file into the cache.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};

use super::error::PullError;
use super::hub::{Hub, repo};
use super::listing::{Listing, RemoteFile};
use super::part::{Part, disk_error};
use super::progress::Progress;

impl Hub {
    /// Where the content of a file is, once it is whole and checked.
    pub fn blob(&self, listing: &Listing, file: &RemoteFile) -> PathBuf {
        self.cache.repo(repo(&listing.repository, &listing.commit)).blob_path(file.digest.digits())
    }

    /// Bytes of these files that are not here.
    pub fn missing(&self, listing: &Listing, files: &[RemoteFile]) -> u64 {
        let missing = files.iter().map(|file| {
            let blob = self.blob(listing, file);
            let here = fs::metadata(part_of(&blob)).map_or(0, |part| part.len());
            if is_whole(&blob, file.size) { 0 } else { file.size.saturating_sub(here) }
        });
        missing.fold(0, u64::saturating_add)
    }

    /// Refuses what does not fit onto the disk.
    pub fn expect_space(&self, needed: u64) -> Result<(), PullError> {
        fs::create_dir_all(&self.folder).map_err(|source| disk_error(&self.folder, source))?;
        let disk =
            rustix::fs::statvfs(&self.folder).map_err(|error| disk_error(&self.folder, error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed > free {
            return Err(PullError::Space { folder: self.folder.clone(), needed, free });
        }
        Ok(())
    }

    /// Brings a file into the cache unless it is there; returns how many bytes came. What came of it before is kept and gone on
    /// from.
    pub async fn fetch(
        &self,
        listing: &Listing,
        file: &RemoteFile,
        progress: &Progress,
    ) -> Result<u64, PullError> {
        let blob = self.blob(listing, file);
        if is_whole(&blob, file.size) {
            progress.whole(&file.path, file.size, 0);
            return Ok(0);
        }
        let blobs = blob.parent().unwrap_or(&self.folder);
        fs::create_dir_all(blobs).map_err(|source| disk_error(blobs, source))?;
        let _lock = self.lock(listing, file)?;
        let mut part = Part::open(part_of(&blob), file)?;
        let mut tries = self.tries();
        let mut downloaded = 0;
        loop {
            let tried = self.fetch_rest(listing, file, &mut part, progress, &mut downloaded).await;
            let (error, bytes) = match tried {
                Err((error, bytes)) if error.is_transient() => (error, bytes),
                Err((error, _)) => return Err(error),
                Ok(()) => match part.check() {
                    Ok(()) => break,
                    Err((error, true)) => (error, 0),
                    Err((error, false)) => {
                        part.delete()?;
                        return Err(error);
                    }
                },
            };
            progress.say(&format!("{error}; going on from {} bytes", part.length()));
            tries.failed(error, bytes).await?;
        }
        part.finish(&blob)?;
        progress.whole(&file.path, file.size, downloaded);
        Ok(downloaded)
    }

    /// Asks for what is missing and takes it in. An error comes with how many bytes came before it.
    async fn fetch_rest(
        &self,
        listing: &Listing,
        file: &RemoteFile,
        part: &mut Part<'_>,
        progress: &Progress,
        downloaded: &mut u64,
    ) -> Result<(), (PullError, u64)> {
        let mut came = 0;
        let outcome = async {
            let Some(mut response) = self.ask_for_rest(listing, file, part).await? else { return Ok(()) };
            progress.at(&file.path, part.length());
            let what = what(listing, file);
            while let Some(bytes) = Self::piece(&mut response, &what).await? {
                part.push(&bytes)?;
                came += bytes.len() as u64;
                progress.at(&file.path, part.length());
            }
            if part.length() < file.size {
                let got = part.length();
                return Err(PullError::Cut { file: file.path.clone(), got, size: file.size });
            }
            Ok(())
        }
        .await;
        *downloaded += came;
        outcome.map_err(|error| (error, came))
    }

    /// The answer that goes on where the part ends; none where nothing is missing. A server that sends the whole file makes the
    /// part begin anew.
    async fn ask_for_rest(
        &self,
        listing: &Listing,
        file: &RemoteFile,
        part: &mut Part<'_>,
    ) -> Result<Option<Response>, PullError> {
        let length = part.length();
        if length == file.size {
            return Ok(None);
        }
        let request = self.api.client().get(self.url(listing, &file.path)?);
        if length == 0 {
            return self.get(request, &what(listing, file)).await.map(Some);
        }
        let response =
            self.get(request.header(RANGE, format!("bytes={length}-")), &what(listing, file)).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            let begins_here = range.is_some_and(|range| range.starts_with(&format!("bytes {length}-")));
            return if begins_here {
                Ok(Some(response))
            } else {
                Err(PullError::Range { file: file.path.clone() })
            };
        }
        part.restart()?;
        Ok(Some(response))
    }

    /// Keeps other processes from the file, those of huggingface_hub too, until it is dropped.
    fn lock(&self, listing: &Listing, file: &RemoteFile) -> Result<File, PullError> {
        let name = repo(&listing.repository, &listing.commit).folder_name();
        let folder = self.folder.join(".locks").join(name);
        fs::create_dir_all(&folder).map_err(|source| disk_error(&folder, source))?;
        let path = folder.join(format!("{}.lock", file.digest.digits()));
        let lock = File::create(&path).map_err(|source| disk_error(&path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(PullError::Busy { file: file.path.clone() }),
            Err(TryLockError::Error(source)) => Err(disk_error(&path, source)),
        }
    }
}

/// Blobs get their names when they are whole and checked.
fn is_whole(blob: &Path, size: u64) -> bool {
    fs::metadata(blob).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

/// Where a file is while it comes. The name is that of huggingface_hub.
fn part_of(blob: &Path) -> PathBuf {
    blob.with_extension("incomplete")
}

fn what(listing: &Listing, file: &RemoteFile) -> String {
    format!("`{}` in `{}`", file.path, listing.repository)
}
