//! YAML into [`Node`]s, with lines from the parser's marks.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::{Content, Node, Pair, SyntaxError};

pub(super) fn parse(text: &str) -> Result<Vec<Pair>, SyntaxError> {
    let document: Spanned<Content> = serde_saphyr::from_str(text).map_err(|error| SyntaxError {
        line: error.location().map(|location| line(&location)),
        // The snippet shows the offending line, which may hold a secret.
        message: first_line(&error.without_snippet().to_string()),
    })?;
    match document.value {
        Content::Table(pairs) => Ok(pairs),
        // An empty file, or one of comments alone.
        Content::Null => Ok(Vec::new()),
        other => Err(SyntaxError {
            line: Some(line(&document.referenced)),
            message: format!(
                "it holds {} where keys are expected: write for example `backend: prometheus`",
                other.describe()
            ),
        }),
    }
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
