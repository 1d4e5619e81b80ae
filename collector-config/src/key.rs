// SPDX-License-Identifier: Apache-2.0
//! Keys and their kinds: a value is read by the kind of its key, never by what it looks like.
//!
//! `00123` is a token where a token is expected, and `1e3` is no count where a count is.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use collector_core::duration;
use figment::value::{Dict, Value};

use crate::document::{self, Content};

/// One key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The path in a configuration file: `cache.ttl`.
    pub path: &'static str,
    /// How its value is read.
    pub kind: Kind,
    /// The default as a user would write it; `None` when there is none.
    pub default: Option<&'static str>,
    /// Environment variables that set it besides its own, by which other tools know it.
    pub aliases: &'static [&'static str],
    /// What it does, in one or two sentences.
    pub doc: &'static str,
}

/// A table of keys: what each does, its path behind the prefix, its kind, its default and its aliases.
macro_rules! keys {
    ($prefix:literal; $(
        $(#[doc = $doc:literal])+
        $path:literal: $kind:ident $(($words:expr))? $(= $default:literal)?
        $(, aliases $($alias:literal),+)?;
    )*) => {
        &[$(
            $crate::key::Key::new(
                concat!($prefix, $path),
                $crate::key::Kind::$kind $(($words))?,
                concat!($($doc),+).trim_ascii_start(),
            )
            $(.default($default))?
            $(.aliases(&[$($alias),+]))?
        ),*]
    };
}
pub(crate) use keys;

/// How the value of a key is read and written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Text, as it is.
    Text,
    /// Text, as it is, that is never shown.
    Secret,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A URL; user information in it is never shown.
    Url,
    /// A path; a relative one in a file starts at that file.
    Path,
    /// An IP address with a port.
    Address,
    /// True or false.
    Bool,
    /// A whole number, from 0.
    Count,
    /// A whole number, from 1.
    Positive,
    /// A number.
    Number,
    /// A duration, in Go's or Rust's form.
    Duration,
    /// One text or a list of them; in the environment separated by commas.
    Texts,
    /// A list of tables; in the environment as JSON.
    Tables,
    /// A table of texts under names of the user's; in the environment as JSON.
    NamedTexts,
    /// The same with texts that are never shown.
    NamedSecrets,
    /// The same with paths.
    NamedPaths,
}

impl Key {
    /// A key of the backend `acme` has a path such as `acme.url`. It has no default and no aliases.
    pub const fn new(path: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { path, kind, default: None, aliases: &[], doc }
    }

    /// The same with this default, for the reference and for `config show`; the type has it as well.
    pub const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// The same with these environment variables besides its own.
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The environment variable of the key itself: `COLLECTOR_CACHE__TTL`.
    pub fn variable(&self) -> String {
        let path = self.path.replace('.', "__").replace('-', "_");
        format!("COLLECTOR_{}", path.to_uppercase())
    }

    /// The value as it may be shown.
    pub(crate) fn shown(&self, value: &Value) -> String {
        if self.kind == Kind::Tables {
            return shown_tables(value);
        }
        let text = show(value);
        match self.kind {
            Kind::Secret => "***".to_owned(),
            Kind::Url => without_user(&text),
            Kind::NamedTexts | Kind::NamedPaths => shown_pairs(value, show),
            Kind::NamedSecrets => shown_pairs(value, |_| "***".to_owned()),
            _ => text,
        }
    }
}

impl Kind {
    /// What to write, for messages and the reference.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Text | Self::Secret => "text",
            Self::OneOf(_) => "one of its words",
            Self::Url => "a URL",
            Self::Path => "a path",
            Self::Address => "an address such as 127.0.0.1:9464",
            Self::Bool => "true or false",
            Self::Count => "a whole number, 0 or more",
            Self::Positive => "a whole number, 1 or more",
            Self::Number => "a number",
            Self::Duration => "a duration such as 30s, 1m30s or 0",
            Self::Texts => "text or a list of texts",
            Self::Tables => "a list of tables; in the environment as JSON",
            Self::NamedTexts | Self::NamedSecrets => {
                "a table of names, each with a text; in the environment as JSON"
            }
            Self::NamedPaths => "a table of names, each with a path; in the environment as JSON",
        }
    }

    /// Reads text from the environment or the command line.
    ///
    /// # Errors
    /// What is wrong with it, with the text: a [`Secret`](Self::Secret) is never wrong.
    pub(crate) fn read_text(self, text: &str) -> Result<Value, String> {
        let trimmed = text.trim();
        match self {
            Self::Text | Self::Url | Self::Path => Ok(text.into()),
            // `$(cat secret)` leaves the end of the line off, and most other ways to fill a variable
            // do not. No secret that is sent in a header has one.
            Self::Secret => Ok(text.trim_end_matches(['\r', '\n']).into()),
            Self::Duration => match duration::parse(text) {
                Ok(_) => Ok(trimmed.into()),
                Err(error) => Err(error.to_string()),
            },
            Self::OneOf(words) => one_of(trimmed, words),
            Self::Address => address(trimmed).map(|_| trimmed.into()),
            // The words of Go's strconv.ParseBool, which the aliases have always been read with.
            Self::Bool => match trimmed.to_ascii_lowercase().as_str() {
                "1" | "t" | "true" => Ok(true.into()),
                "0" | "f" | "false" => Ok(false.into()),
                _ => Err(self.refuse(text)),
            },
            Self::Count | Self::Positive => {
                trimmed.parse().map_err(|_| self.refuse(text)).and_then(|number| self.whole(number))
            }
            Self::Number => match trimmed.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number.into()),
                _ => Err(self.refuse(text)),
            },
            Self::Texts => Ok(texts(trimmed.split(',').map(str::trim))),
            Self::Tables | Self::NamedTexts | Self::NamedSecrets | Self::NamedPaths => {
                let is_list = self == Self::Tables;
                let example =
                    if is_list { r#"[{"key": "value"}]"# } else { r#"{"name": "value"}"# };
                let content = document::inline(trimmed)
                    .map_err(|_| format!("it is not JSON: write {example} for example"))?;
                self.read_content(&content, Path::new(""))
            }
        }
    }

    /// Reads a value from a file in the folder `base`.
    ///
    /// # Errors
    /// What is wrong with it; a value of another type is not shown.
    pub(crate) fn read_content(self, content: &Content, base: &Path) -> Result<Value, String> {
        match (self, content) {
            (Self::Path, Content::Text(path)) => Ok(below(base, path).into()),
            (Self::Bool, Content::Bool(flag)) => Ok((*flag).into()),
            (Self::Count | Self::Positive, Content::Integer(number)) => self.whole(*number),
            // The duration 0 needs no unit; every other number does, and the message says so.
            (Self::Number | Self::Duration, Content::Integer(it)) => {
                self.read_text(&it.to_string())
            }
            (Self::Number | Self::Duration, Content::Float(it)) => self.read_text(&it.to_string()),
            (Self::Texts, Content::Text(text)) => Ok(texts([text.as_str()])),
            (Self::Texts, Content::List(items)) => {
                let items: Option<Vec<&str>> = items
                    .iter()
                    .map(|item| match &item.content {
                        Content::Text(text) => Some(text.as_str()),
                        _ => None,
                    })
                    .collect();
                match items {
                    Some(items) => Ok(texts(items)),
                    None => {
                        Err("the list holds something that is not text: put each item in quotes"
                            .to_owned())
                    }
                }
            }
            (Self::Tables, Content::List(items)) => {
                let tables = items.iter().map(|item| match &item.content {
                    Content::Table(_) => nested(&item.content),
                    other => {
                        Err(format!("expected a list of tables, found {} in it", other.describe()))
                    }
                });
                Ok(Value::from(tables.collect::<Result<Vec<_>, _>>()?))
            }
            (Self::NamedTexts | Self::NamedSecrets | Self::NamedPaths, Content::Table(pairs)) => {
                let pairs = pairs.iter().map(|pair| match &pair.node.content {
                    Content::Text(path) if self == Self::NamedPaths => {
                        Ok((pair.name.clone(), below(base, path).into()))
                    }
                    Content::Text(text) => Ok((pair.name.clone(), text.as_str().into())),
                    other => Err(format!(
                        "{:?}: expected text, found {}: put it in quotes",
                        short(&pair.name),
                        other.describe()
                    )),
                });
                Ok(Value::from(pairs.collect::<Result<Dict, String>>()?))
            }
            (
                Self::Text
                | Self::Secret
                | Self::Url
                | Self::Duration
                | Self::OneOf(_)
                | Self::Address,
                Content::Text(text),
            ) => self.read_text(text),
            _ => Err(format!(
                "expected {}, found {}{}",
                self.describe(),
                content.describe(),
                self.quotes(content)
            )),
        }
    }

    /// What to do about the quotes of a value that is of another kind.
    fn quotes(self, content: &Content) -> &'static str {
        let is_text = matches!(content, Content::Text(_));
        let is_word = !matches!(content, Content::Null | Content::List(_) | Content::Table(_));
        match self {
            Self::Bool | Self::Count | Self::Positive | Self::Number if is_text => {
                ": write it without quotes"
            }
            Self::Text
            | Self::Secret
            | Self::Url
            | Self::Path
            | Self::Texts
            | Self::Address
            | Self::OneOf(_)
                if is_word =>
            {
                ": put it in quotes"
            }
            _ => "",
        }
    }

    fn whole(self, number: i128) -> Result<Value, String> {
        let least = u64::from(self == Self::Positive);
        match u64::try_from(number) {
            Ok(number) if number >= least => Ok(number.into()),
            _ => Err(self.refuse(&number.to_string())),
        }
    }

    fn refuse(self, text: &str) -> String {
        format!("{:?} is not {}", short(text), self.describe())
    }
}

/// Messages go into logs, and values may be of any length.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

fn one_of(text: &str, words: &[&'static str]) -> Result<Value, String> {
    match words.iter().find(|word| text.eq_ignore_ascii_case(word)) {
        Some(word) => Ok((*word).into()),
        None => Err(format!("{:?} is not known: write one of {}", short(text), words.join(", "))),
    }
}

/// Reads an address to listen on: an IP address and a port.
///
/// # Errors
/// What is wrong with the text, and what to write, with its port where it has one.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let advice = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => match host {
            "" | "*" => {
                format!("write 127.0.0.1:{port}, or 0.0.0.0:{port} to listen on every interface")
            }
            _ if host.parse::<Ipv6Addr>().is_ok() => format!("write [{host}]:{port}"),
            "localhost" => format!("write 127.0.0.1:{port}"),
            _ => format!("write an IP address and a port, for example 127.0.0.1:{port}"),
        },
        _ if text.parse::<u16>().is_ok() => {
            format!("write 127.0.0.1:{text}, or 0.0.0.0:{text} to listen on every interface")
        }
        _ => "write an IP address and a port, for example 127.0.0.1:9464 or [::1]:9464".to_owned(),
    };
    Err(format!("{:?} is not an address: {advice}", short(text)))
}

fn texts<'a>(items: impl IntoIterator<Item = &'a str>) -> Value {
    let items = items.into_iter().filter(|item| !item.is_empty());
    Value::from(items.map(Value::from).collect::<Vec<_>>())
}

/// A value inside of a table whose keys are those of a type, not of the table of keys.
fn nested(content: &Content) -> Result<Value, String> {
    Ok(match content {
        Content::Null => Value::Empty(figment::value::Tag::Default, figment::value::Empty::None),
        Content::Bool(flag) => Value::from(*flag),
        // As small as it can be: a type that expects 16 bits takes no 128.
        Content::Integer(number) => match (u64::try_from(*number), i64::try_from(*number)) {
            (Ok(number), _) => Value::from(number),
            (_, Ok(number)) => Value::from(number),
            _ => Value::from(*number),
        },
        Content::Float(number) => Value::from(*number),
        Content::Text(text) => Value::from(text.as_str()),
        Content::Date => return Err("found a date in a table: put it in quotes".to_owned()),
        Content::List(items) => {
            let items = items.iter().map(|item| nested(&item.content));
            Value::from(items.collect::<Result<Vec<_>, _>>()?)
        }
        Content::Table(pairs) => {
            let pairs = pairs.iter().filter(|pair| pair.node.content != Content::Null);
            let pairs = pairs.map(|pair| Ok((pair.name.clone(), nested(&pair.node.content)?)));
            Value::from(pairs.collect::<Result<Dict, String>>()?)
        }
    })
}

fn below(base: &Path, path: &str) -> String {
    let path = PathBuf::from(path);
    if path.as_os_str().is_empty() {
        return String::new();
    }
    base.join(path).display().to_string()
}

/// What is in a table is not shown: a URL in it could hold a password.
fn shown_tables(value: &Value) -> String {
    match value.as_array().map_or(0, <[Value]>::len) {
        1 => "1 table".to_owned(),
        count => format!("{count} tables"),
    }
}

fn shown_pairs(value: &Value, show: impl Fn(&Value) -> String) -> String {
    let pairs = value.as_dict().into_iter().flatten();
    pairs.map(|(name, value)| format!("{name}={}", show(value))).collect::<Vec<_>>().join(",")
}

fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        Value::Char(_, c) => c.to_string(),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => number
            .to_u128()
            .map(|number| number.to_string())
            .or_else(|| number.to_f64().map(|number| number.to_string()))
            .unwrap_or_default(),
        Value::Array(_, items) => items.iter().map(show).collect::<Vec<_>>().join(","),
        Value::Empty(..) | Value::Dict(..) => String::new(),
    }
}

/// A URL without the user and password that may stand before its host. It may be no URL at all, so
/// everything up to the last `@` goes, wherever that stands.
pub(crate) fn without_user(url: &str) -> String {
    let (scheme, rest) = match url.find("://") {
        Some(end) => url.split_at(end + 3),
        None => ("", url),
    };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}***@{host}"),
        None => url.to_owned(),
    }
}
