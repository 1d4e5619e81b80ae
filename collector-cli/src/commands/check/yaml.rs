// SPDX-License-Identifier: Apache-2.0
//! YAML documents with the place of each node in their text, so that `--fix` changes single values and everything else
//! stays as it was written: order, quotes and comments.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

/// The maximum numbers of documents and of nodes in a file: some 10 000 objects.
const DOCUMENTS_MAX: usize = 10_000;
const NODES_MAX: usize = 1_000_000;

/// A node and its place.
pub(super) type Node = Spanned<Content>;

/// The content of a node.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

/// One step from a node to a part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// A change of an object.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Change {
    /// The way to what is changed.
    pub(super) path: Vec<Step>,
    pub(super) to: To,
}

/// The new state of a part of an object.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum To {
    /// A scalar has this value, or the key is added to its mapping.
    Value(Value),
    /// A scalar is a text, of the same letters: `5` becomes `"5"`.
    Quoted,
    /// The key has another name.
    Renamed(String),
}

/// Creates a path: `steps!["spec", "triggers", 0]`.
macro_rules! steps {
    ($($step:expr),* $(,)?) => { vec![$(crate::commands::check::yaml::Step::from($step)),*] };
}
pub(super) use steps;

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A path as people write it: `spec.triggers[0].metricType`.
pub(super) fn shown(path: &[Step]) -> String {
    let steps = path.iter().map(|step| match step {
        Step::Key(key) => format!(".{key}"),
        Step::Index(index) => format!("[{index}]"),
    });
    steps.collect::<String>().trim_start_matches('.').to_owned()
}

/// Parses the documents of a text, within limits: an alias costs few bytes, and can stand for many nodes.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_documents: DOCUMENTS_MAX,
            max_nodes: NODES_MAX,
            max_events: NODES_MAX * 4,
        },
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let error = error.to_string();
        if error.starts_with("budget breached") {
            return format!(
                "is too large: {DOCUMENTS_MAX} documents and {NODES_MAX} values are the limits; split it"
            );
        }
        let template = if text.contains("{{") { "; render a template first (`helm template`)" } else { "" };
        format!("is not valid YAML: {error}{template}")
    })
}

impl Content {
    /// Returns the value without places.
    pub(super) fn value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(value) => Value::Number(value.clone()),
            Self::Text(value) => Value::String(value.clone()),
            Self::List(items) => items.iter().map(|item| item.value.value()).collect(),
            Self::Map(entries) => {
                let entries =
                    entries.iter().map(|(key, node)| (key.value.clone(), node.value.value()));
                Value::Object(entries.collect::<Map<_, _>>())
            }
        }
    }
}

/// Finds a part of a node.
pub(super) fn find<'a>(node: &'a Node, path: &[Step]) -> Option<&'a Node> {
    path.iter().try_fold(node, |node, step| match (step, &node.value) {
        (Step::Key(key), Content::Map(entries)) => entry(entries, key).map(|(_, node)| node),
        (Step::Index(index), Content::List(items)) => items.get(*index),
        _ => None,
    })
}

fn entry<'a>(
    entries: &'a [(Spanned<String>, Node)],
    key: &str,
) -> Option<&'a (Spanned<String>, Node)> {
    entries.iter().find(|(known, _)| known.value == key)
}

/// Returns a change with the value that it sets, where this depends on the text.
pub(super) fn resolved(text: &str, object: &Node, change: Change) -> Change {
    if change.to != To::Quoted {
        return change;
    }
    let place = find(object, &change.path).map(|node| place(&node.referenced, &node.defined));
    let written = place.and_then(Result::ok).and_then(|(from, to)| text.get(from..to));
    Change { to: To::Value(written.unwrap_or_default().into()), ..change }
}

/// A replacement of a part of a text: from, to, by.
pub(super) type Edit = (usize, usize, String);

/// Returns how a change of an object is made in the text. The error says why it cannot be made.
pub(super) fn edit(text: &str, object: &Node, change: &Change) -> Result<Edit, String> {
    let Some((Step::Key(key), parents)) = change.path.split_last() else {
        return Err("only the keys of mappings can be changed".to_owned());
    };
    let parent = find(object, parents).ok_or("its parent does not exist")?;
    let Content::Map(entries) = &parent.value else {
        return Err("its parent is not a mapping".to_owned());
    };
    match (entry(entries, key), &change.to) {
        (Some((key, _)), To::Renamed(name)) => {
            let (from, to) = place(&key.referenced, &key.defined)?;
            Ok((from, to, scalar(&Value::from(name.as_str()), is_quoted(text, from))))
        }
        (_, To::Quoted) => Err("its value is unknown".to_owned()),
        (None, To::Renamed(_)) => Err("the key does not exist".to_owned()),
        (Some((key, old)), To::Value(value)) => {
            if matches!(old.value, Content::List(_) | Content::Map(_)) {
                return Err("it is not a scalar".to_owned());
            }
            let (from, to) = place(&old.referenced, &old.defined)?;
            let json = is_quoted(text, place(&key.referenced, &key.defined)?.0);
            let value = flow(value, json);
            // `key:` without a value is at its colon.
            if from == to && rest(text, from).starts_with(':') {
                return Ok((from + 1, from + 1, format!(" {value}")));
            }
            Ok((from, to, value))
        }
        (None, To::Value(value)) => {
            let (start, _) = place(&parent.referenced, &parent.defined)?;
            let in_flow = rest(text, start).starts_with('{');
            let Some((first, _)) = entries.first() else {
                let entry = format!("{key}: {}", flow(value, false));
                return Ok((start + 1, start + 1, entry));
            };
            let (at, _) = place(&first.referenced, &first.defined)?;
            let json = is_quoted(text, at);
            let key = scalar(&Value::from(key.as_str()), json);
            let end = if in_flow {
                ", ".to_owned()
            } else {
                let column = usize::try_from(first.referenced.column()).unwrap_or(1);
                format!("\n{}", " ".repeat(column.saturating_sub(1)))
            };
            Ok((at, at, format!("{key}: {}{end}", flow(value, json))))
        }
    }
}

/// Returns an edit that adds comments above an object.
pub(super) fn comment(text: &str, object: &Node, lines: &[String]) -> Result<Edit, String> {
    let (start, _) = place(&object.referenced, &object.defined)?;
    let before = text.get(..start).ok_or("its place in the text is unknown")?;
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    let indent: String = rest(text, line).chars().take_while(|c| *c == ' ').collect();
    let comments = lines.iter().map(|text| format!("{indent}# {}\n", text.replace('\n', " ")));
    Ok((line, line, comments.collect()))
}

/// Makes edits that do not overlap.
pub(super) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    // Stable: what is inserted at one place stays in its order.
    edits.sort_by_key(|(from, ..)| *from);
    let (mut new, mut done) = (String::with_capacity(text.len()), 0);
    for (from, to, by) in edits {
        new.push_str(text.get(done..from).unwrap_or_default());
        new.push_str(&by);
        done = to.max(done);
    }
    new.push_str(rest(text, done));
    new
}

/// Makes a change to a value.
pub(super) fn change_value(object: &mut Value, change: &Change) {
    let Some((Step::Key(key), parents)) = change.path.split_last() else { return };
    let parent = parents.iter().try_fold(object, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(*index),
    });
    let Some(parent) = parent.and_then(Value::as_object_mut) else { return };
    match &change.to {
        To::Value(value) => {
            parent.insert(key.clone(), value.clone());
        }
        To::Renamed(name) => {
            if let Some(value) = parent.remove(key) {
                parent.insert(name.clone(), value);
            }
        }
        To::Quoted => {}
    }
}

/// The bytes of a node. An alias has none of its own: a change would change its anchor.
fn place(referenced: &Location, defined: &Location) -> Result<(usize, usize), String> {
    if referenced != defined {
        return Err("it is an alias (*) or merged (<<)".to_owned());
    }
    let span = referenced.span();
    let bytes = span.byte_offset().zip(span.byte_len());
    let (from, length) = bytes.ok_or("its place in the text is unknown")?;
    let from = usize::try_from(from).map_err(|error| error.to_string())?;
    let length = usize::try_from(length).map_err(|error| error.to_string())?;
    Ok((from, from + length))
}

fn is_quoted(text: &str, at: usize) -> bool {
    rest(text, at).starts_with('"')
}

/// The text from a byte on. What the parser calls a place may be none in a text with a byte order mark.
fn rest(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

/// A value on one line: as JSON, or with plain keys and words.
fn flow(value: &Value, json: bool) -> String {
    match value {
        Value::Object(entries) if !json => {
            let entries = entries.iter().map(|(key, value)| {
                format!("{}: {}", scalar(&Value::from(key.as_str()), false), flow(value, false))
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        value => scalar(value, json),
    }
}

fn scalar(value: &Value, json: bool) -> String {
    // Words that no parser takes for anything but a text.
    let is_word = |text: &str| {
        text.len() > 3 && text.bytes().all(|byte| byte.is_ascii_alphabetic()) && !is_reserved(text)
    };
    match value {
        Value::String(text) if !json && is_word(text) => text.clone(),
        value => value.to_string(),
    }
}

fn is_reserved(text: &str) -> bool {
    ["true", "false", "null"].iter().any(|word| word.eq_ignore_ascii_case(text))
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        // JSON, which is what Kubernetes stores, has no infinity.
        let number = Number::from_f64(value);
        Ok(number.map_or_else(|| Content::Text(value.to_string()), Content::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Content, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Content::Map(map))
    }
}

#[cfg(test)]
mod tests;
