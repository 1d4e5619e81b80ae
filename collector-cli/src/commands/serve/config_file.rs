// SPDX-License-Identifier: Apache-2.0
//! Notices that the configuration file has changed.
//!
//! The file is looked at twice a second, through any symbolic links: Kubernetes replaces a mounted ConfigMap by a link
//! to another folder. Unlike notifications of the kernel, this works on every file system and has no limits.

use std::path::Path;
use std::time::Duration;

use collector_transport::{NamedFile, Section, Stamp};
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The configuration file.
pub(super) struct ConfigFile {
    /// `None`: the environment and flags are all there is.
    file: Option<NamedFile>,
    /// When the configuration was last read.
    read: Option<Stamp>,
    /// At the last look.
    seen: Option<Stamp>,
    looks: Interval,
}

impl ConfigFile {
    /// Watches this file. Call it before the file is read.
    pub(super) fn new(path: Option<&Path>) -> Self {
        // The section only matters for errors, of which there are none here.
        let section = Section { name: "", variables: None };
        let file = path.map(|path| NamedFile::new(section, "configuration file", path));
        let stamp = file.as_ref().and_then(NamedFile::stamp);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { file, read: stamp, seen: stamp, looks }
    }

    /// Resolves when the file is another than the one that was read, and has been the same for a moment: an editor may
    /// still be writing it. Never without a file. Cancel safe.
    pub(super) async fn changed(&mut self) {
        let Some(file) = &self.file else { return std::future::pending().await };
        loop {
            self.looks.tick().await;
            let looked_at = file.clone();
            // If the task panics, the file counts as unchanged.
            let Ok(stamp) = spawn_blocking(move || looked_at.stamp()).await else { continue };
            let is_settled = std::mem::replace(&mut self.seen, stamp) == stamp;
            if is_settled && stamp != self.read {
                return;
            }
        }
    }

    /// The file is about to be read. If it has changed since the last look, it is read once more.
    pub(super) fn is_read(&mut self) {
        self.read = self.seen;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    const MOMENT: Duration = Duration::from_secs(10);

    async fn changes(file: &mut ConfigFile) -> bool {
        let changed = timeout(MOMENT, file.changed()).await.is_ok();
        file.is_read();
        changed
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_once_also_behind_links_that_are_swapped() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["..v1", "..v2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("c.toml"), "[cache]\n").unwrap();
        }
        symlink("..v1", at("..data")).unwrap();
        symlink("..data/c.toml", at("c.toml")).unwrap();
        let path = at("c.toml");
        let mut file = ConfigFile::new(Some(&path));
        assert!(!changes(&mut file).await);
        symlink("..v2", at("..new")).unwrap();
        fs::rename(at("..new"), at("..data")).unwrap();
        assert!(changes(&mut file).await);
        assert!(!changes(&mut file).await);
        fs::write(&path, "[cache]\nttl = \"20s\"\n").unwrap();
        assert!(changes(&mut file).await);
        fs::remove_file(&path).unwrap();
        assert!(changes(&mut file).await, "it is gone, which is an error to report");
        assert!(!changes(&mut file).await);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_file_nothing_changes() {
        assert!(!changes(&mut ConfigFile::new(None)).await);
    }
}
