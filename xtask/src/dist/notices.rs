// SPDX-License-Identifier: Apache-2.0
//! The licences of what the binary contains.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::tree::{Id, Package};
use crate::workspace;

/// How files begin that have the text of a licence, in capitals.
const NAMES: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"];

/// Returns the text of all licences, each text once, with the crates that come under it.
pub(crate) fn notices(packages: &BTreeMap<Id, Package>) -> Result<String> {
    let foreign: Vec<(&Id, &Package)> =
        packages.iter().filter(|(_, package)| package.checksum.is_some()).collect();
    let mut page = "The collector contains the following libraries.\n\n".to_owned();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, package) in &foreign {
        let name = format!("{} {}", id.0, id.1);
        writeln!(page, "{name}: {}", package.license)?;
        let mut found = licence_files(&package.folder)?;
        if found.is_empty() {
            // A crate of a repository with several is often published without its licence.
            let sibling = foreign.iter().find(|(_, other)| {
                other.repository.is_some()
                    && other.repository == package.repository
                    && other.license == package.license
                    && licence_files(&other.folder).is_ok_and(|files| !files.is_empty())
            });
            found = match sibling {
                Some((_, sibling)) => licence_files(&sibling.folder)?,
                None if package.license.contains("Apache-2.0") => vec![apache()],
                None => bail!("{name} ({}) comes without its licence's text", package.license),
            };
        }
        for file in found {
            add(&mut texts, &file, &name)?;
        }
    }
    let standard_library = "the standard library of Rust";
    writeln!(page, "{standard_library}: MIT OR Apache-2.0")?;
    add(&mut texts, &apache(), standard_library)?;
    let mut texts: Vec<(String, Vec<String>)> = texts.into_iter().collect();
    texts.sort_by(|(_, one), (_, other)| one.cmp(other));
    for (text, users) in texts {
        write!(page, "\n{}\n{}\n\n{text}\n", "-".repeat(100), users.join(", "))?;
    }
    Ok(page)
}

/// The text of Apache-2.0, under which is used what may be and has no text of its own.
fn apache() -> PathBuf {
    workspace::root().join("LICENSE")
}

fn add(texts: &mut BTreeMap<String, Vec<String>>, file: &Path, user: &str) -> Result<()> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    // Ends of lines and spaces at the edges are no difference.
    let text = text.replace('\r', "").trim_matches('\n').trim_end().to_owned();
    let users = texts.entry(text).or_default();
    if users.last().is_none_or(|last| last != user) {
        users.push(user.to_owned());
    }
    Ok(())
}

/// The licences in a folder and below it: a crate may contain code of others.
fn licence_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let is_text = path.extension().is_none_or(|end| end != "rs" && end != "html");
        if path.is_dir() {
            files.extend(licence_files(&path)?);
        } else if is_text
            && (name == "UNLICENSE" || NAMES.iter().any(|begin| name.starts_with(begin)))
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
