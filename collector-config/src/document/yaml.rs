// SPDX-License-Identifier: Apache-2.0
//! YAML into [`Node`]s, with lines from the parser's marks.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::DuplicateKeyPolicy;

use super::{Content, Duplicate, Node, Pair, Parsed, SyntaxError};

pub(super) fn parse(text: &str) -> Result<Parsed, SyntaxError> {
    // Duplicates are found below, where the path of a key is known.
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
    let document: Spanned<Content> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| SyntaxError {
            line: error.location().map(|location| line(&location)),
            // The snippet shows the offending line, which may hold a secret.
            message: first_line(&error.without_snippet().to_string()),
        })?;
    match document.value {
        Content::Table(mut pairs) => {
            let mut duplicates = Vec::new();
            remove_duplicates(&mut pairs, "", &mut duplicates);
            Ok(Parsed { pairs, duplicates })
        }
        // An empty file, or one of comments alone.
        Content::Null => Ok(Parsed { pairs: Vec::new(), duplicates: Vec::new() }),
        other => Err(SyntaxError {
            line: Some(line(&document.referenced)),
            message: format!(
                "it holds {} where keys are expected: write for example `backend: prometheus`",
                other.describe()
            ),
        }),
    }
}

/// Removes each pair whose key its table has already, and lists it. Tables are merged, so that nothing
/// in them passes for not set.
fn remove_duplicates(pairs: &mut Vec<Pair>, table: &str, found: &mut Vec<Duplicate>) {
    let below =
        |name: &str| if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<Pair> = Vec::new();
    for pair in std::mem::take(pairs) {
        let Some(place) = places.get(&pair.name) else {
            places.insert(pair.name.clone(), kept.len());
            kept.push(pair);
            continue;
        };
        let first = &mut kept[*place];
        found.push(Duplicate { path: below(&pair.name), first: first.line, again: pair.line });
        if let (Content::Table(first), Content::Table(again)) =
            (&mut first.node.content, pair.node.content)
        {
            first.extend(again);
        }
    }
    for pair in &mut kept {
        let path = below(&pair.name);
        match &mut pair.node.content {
            Content::Table(pairs) => remove_duplicates(pairs, &path, found),
            Content::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    if let Content::Table(pairs) = &mut item.content {
                        remove_duplicates(pairs, &format!("{path}[{index}]"), found);
                    }
                }
            }
            _ => {}
        }
    }
    *pairs = kept;
}

fn line(location: &serde_saphyr::Location) -> usize {
    usize::try_from(location.line()).unwrap_or(usize::MAX)
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
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
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Content, E> {
        Ok(Content::Bool(flag))
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<Content, E> {
        Ok(Content::Integer(integer.into()))
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<Content, E> {
        Ok(Content::Integer(integer.into()))
    }

    fn visit_i128<E: Error>(self, integer: i128) -> Result<Content, E> {
        Ok(Content::Integer(integer))
    }

    fn visit_f64<E: Error>(self, float: f64) -> Result<Content, E> {
        Ok(Content::Float(float))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Content>>()? {
            list.push(node(item));
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut pairs = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Content>>()? {
            pairs.push(Pair { line: line(&key.referenced), name: key.value, node: node(value) });
        }
        Ok(Content::Table(pairs))
    }
}

fn node(value: Spanned<Content>) -> Node {
    Node { line: line(&value.referenced), content: value.value }
}
