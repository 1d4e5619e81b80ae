// SPDX-License-Identifier: Apache-2.0
//! Checks of the files that a configuration names, before they are needed.

use std::path::Path;

use collector_config::CollectorConfig;
use rustix::fs::{Access, access};

/// Returns how many targets the target file has, or what is wrong with it; `None` where no chosen
/// backend reads one.
#[cfg(feature = "epp")]
pub(super) async fn targets(config: &CollectorConfig) -> Option<Result<usize, String>> {
    use collector_epp::EppConfig;
    use collector_epp::discover::{Discovery as _, FileTargets};

    let config = config.chosen_settings_of::<EppConfig>()?;
    let targets = FileTargets::new(config.target_file.as_deref()?).targets().await;
    let targets = targets.map(|targets| targets.len());
    Some(targets.map_err(|error| config.with_section(&error.to_string())))
}

/// The same in a build without the backend that reads one.
#[cfg(not(feature = "epp"))]
#[expect(clippy::unused_async, reason = "the other one reads a file")]
pub(super) async fn targets(_: &CollectorConfig) -> Option<Result<usize, String>> {
    None
}

/// Returns why the snapshot cannot be written; `None` where it can, or none is kept. Nothing is written.
pub(super) fn snapshot_problem(config: &CollectorConfig) -> Option<String> {
    let path = config.cache.snapshot_path.as_deref()?;
    let problem = unwritable(path)?;
    Some(format!("cache.snapshot_path: {} cannot be written: {problem}", path.display()))
}

fn unwritable(path: &Path) -> Option<String> {
    if path.is_dir() {
        return Some("it is a directory; name a file in it".to_owned());
    }
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Some("it is not the path of a file".to_owned()),
    };
    match folder.metadata() {
        Err(error) => {
            Some(format!("the directory {} cannot be used: {error}; create it", folder.display()))
        }
        Ok(metadata) if !metadata.is_dir() => {
            Some(format!("{} is not a directory", folder.display()))
        }
        // A snapshot is replaced by a rename, for which the directory must be writable.
        Ok(_) => access(folder, Access::WRITE_OK | Access::EXEC_OK).err().map(|error| {
            format!(
                "the directory {} is not writable: {error}; allow it for this user",
                folder.display()
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_needs_a_directory_that_exists_and_a_name_in_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(unwritable(&folder.path().join("new.snapshot")), None);
        assert_eq!(unwritable(Path::new("new.snapshot")), None);
        let absent = folder.path().join("absent/new.snapshot");
        assert!(unwritable(&absent).is_some_and(|problem| problem.contains("create it")));
        assert!(unwritable(folder.path()).is_some_and(|problem| problem.contains("name a file")));
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let below = unwritable(&file.join("new.snapshot"));
        assert!(below.is_some_and(
            |problem| problem.contains("cannot be used") || problem.contains("not a directory")
        ));
    }
}
