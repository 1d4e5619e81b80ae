// SPDX-License-Identifier: Apache-2.0
//! A configuration file as a tree whose every node knows its line, whatever the syntax.
//!
//! Nothing is interpreted here: what a value means is decided by the type of its key.

mod toml;
mod yaml;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::error::ConfigError;
use crate::origin::Origin;
use crate::text::printable;

/// A configuration is written by hand; a longer file is another one.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A value and the line it stands on, from 1.
#[derive(Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) content: Content,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    /// No key needs more than 128 bits.
    Integer(i128),
    Float(f64),
    Text(String),
    /// A TOML date or time.
    Date,
    List(Vec<Node>),
    Table(Vec<Pair>),
}

/// One key of a table, at the line of its name.
#[derive(Clone, PartialEq)]
pub(crate) struct Pair {
    pub(crate) line: usize,
    pub(crate) name: String,
    pub(crate) node: Node,
}

impl Content {
    /// The kind of value, for messages that must not show the value itself.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::Date => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// What is wrong with the syntax, and the line if it is known.
struct SyntaxError {
    line: Option<usize>,
    message: String,
}

/// A key that a table has more than once.
#[derive(PartialEq, Eq, Debug)]
struct Duplicate {
    /// Its path, with `[0]` for the first entry of a list.
    path: String,
    /// Where it stands first.
    first: usize,
    /// Where it stands again.
    again: usize,
}

/// A file's tree, in which each key stands once.
struct Parsed {
    pairs: Vec<Pair>,
    duplicates: Vec<Duplicate>,
}

/// Reads a file: `.yaml` and `.yml` are YAML, everything else is TOML. Where a key is set
/// twice, the tree has the first value, and there is an error.
pub(crate) fn read(path: &Path) -> Result<(Vec<Pair>, Vec<ConfigError>), ConfigError> {
    let text = read_text(path).map_err(|message| {
        ConfigError::new(format!("the configuration file {message}")).at(Origin::file(path, None))
    })?;
    let is_yaml = path.extension().is_some_and(|extension| {
        extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
    });
    let (syntax, parsed) =
        if is_yaml { ("YAML", yaml::parse(&text)) } else { ("TOML", toml::parse(&text)) };
    let Parsed { pairs, duplicates } = parsed.map_err(|error| {
        let is_named_so =
            is_yaml || path.extension().is_some_and(|it| it.eq_ignore_ascii_case("toml"));
        let hint = if is_named_so {
            ""
        } else {
            "; a file is read as YAML if its name ends in .yaml or .yml"
        };
        ConfigError::new(format!("not valid {syntax}: {}{hint}", error.message))
            .at(Origin::file(path, error.line))
    })?;
    let errors = duplicates.into_iter().map(|Duplicate { path: key, first, again }| {
        let place = if first == again {
            format!("twice in line {first}")
        } else {
            format!("twice, in lines {first} and {again}")
        };
        ConfigError::new(format!("the key is set {place}: remove one of the two"))
            .key(printable(&key))
            .at(Origin::file(path, Some(again)))
    });
    let errors = errors.collect();
    Ok((pairs, errors))
}

/// A value in one piece of text, in YAML, of which JSON is a part.
pub(crate) fn inline(text: &str) -> Result<Content, serde_saphyr::Error> {
    serde_saphyr::from_str(text)
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if metadata.is_dir() {
        return Err("is a directory: name a file in it".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("is longer than 1 MiB: is it the right file?".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text: is it the right file?".to_owned())
}
