// SPDX-License-Identifier: Apache-2.0
//! The licence in the first line of each source file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

const HEADER: &str = "// SPDX-License-Identifier: Apache-2.0\n";

/// Whether CI runs [`check`].
pub(crate) const REQUIRED: bool = true;

/// Fails if a source file does not begin with the line.
pub(crate) fn check() -> Result<()> {
    println!("== licence in each source file");
    let without = without(workspace::root())?;
    if let Some(first) = without.first() {
        bail!(
            "{} source files do not begin with {:?}, {} among them: run `cargo xtask headers --fix`",
            without.len(),
            HEADER.trim_end(),
            first.display()
        );
    }
    Ok(())
}

/// Puts the line into the files that lack it.
pub(crate) fn fix() -> Result<()> {
    for path in without(workspace::root())? {
        let text = read(&path)?;
        fs::write(&path, format!("{HEADER}{text}"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The source files in a folder and below it that lack the line.
fn without(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in workspace::files(folder, "rs")? {
        if !read(&path)?.starts_with(HEADER) {
            found.push(path);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_the_line_are_found() {
        let folder = tempfile::tempdir().unwrap();
        for hidden in ["target", ".git", "src"] {
            fs::create_dir(folder.path().join(hidden)).unwrap();
            fs::write(folder.path().join(hidden).join("a.rs"), "//! Text.\n").unwrap();
        }
        fs::write(folder.path().join("b.rs"), format!("{HEADER}//! Text.\n")).unwrap();
        fs::write(folder.path().join("c.txt"), "").unwrap();
        assert_eq!(without(folder.path()).unwrap(), [folder.path().join("src/a.rs")]);
    }
}
