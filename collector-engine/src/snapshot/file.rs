// SPDX-License-Identifier: Apache-2.0
//! Files: read within a limit, and replaced as a whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read as _};
use std::path::{Path, PathBuf};

/// What stands in a file; `None` when there is none.
///
/// # Errors
/// When it cannot be read, is no regular file (reading another kind may never end), or is larger than
/// `max_bytes`.
pub(super) fn read(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(io::Error::other("it is not a regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other(format!("it is larger than {} MiB", max_bytes >> 20)));
    }
    Ok(Some(bytes))
}

/// Replaces a file by what `write` writes, readable by its owner alone. Until all of it is on the disk
/// the old one stays.
///
/// The new file is written next to the old one, under its name and `.new`. A name of its own for each
/// would leave one behind at each kill in the middle.
pub(super) fn replace<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>,
) -> io::Result<T> {
    let new_path = new_path(path);
    remove(&new_path)?;
    let replaced = write_new(&new_path, write).and_then(|written| {
        fs::rename(&new_path, path)?;
        sync_folder(path)?;
        Ok(written)
    });
    if replaced.is_err() {
        // The error is reported already; a second one would add nothing.
        let _ = remove(&new_path);
    }
    replaced
}

fn write_new<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>,
) -> io::Result<T> {
    let mut options = OpenOptions::new();
    // A file or a link that is already there is refused, not followed.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = BufWriter::new(options.open(path)?);
    let written = write(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(written)
}

fn new_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the new name itself survive a loss of power. Elsewhere folders cannot be opened.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}
