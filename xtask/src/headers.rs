//! The licence in the first line of each source file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::workspace;

const HEADER: &str = "// SPDX-License-Identifier: Apache-2.0\n";

/// Whether a file without the line fails [`check`].
const REQUIRED: bool = false;

/// Fails if a source file does not begin with the line.
pub(crate) fn check() -> Result<()> {
    println!("== licence in each source file");
    let without = without(workspace::root())?;
    match without.first() {
        Some(first) if REQUIRED => bail!(
            "{} source files do not begin with {:?}, {} among them: run `cargo xtask headers`",
            without.len(),
            HEADER.trim_end(),
            first.display()
        ),
        Some(_) => println!("   {} are without one", without.len()),
        None => {}
    }
    Ok(())
}

/// Puts the line into the files that lack it.
pub(crate) fn add() -> Result<()> {
    for path in without(workspace::root())? {
        let text = read(&path)?;
        fs::write(&path, format!("{HEADER}{text}"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The source files in a folder and below it that lack the line, without what is built or hidden.
fn without(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        // A link leads to a file that is visited anyway.
        let kind = entry.file_type()?;
        if kind.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            found.extend(without(&path)?);
        } else if kind.is_file()
            && path.extension().is_some_and(|end| end == "rs")
            && !read(&path)?.starts_with(HEADER)
        {
            found.push(path);
        }
    }
    found.sort();
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
