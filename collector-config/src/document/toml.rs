//! TOML into [`Node`]s, with lines from the parser's spans.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Content, Node, Pair, SyntaxError};

pub(super) fn parse(text: &str) -> Result<Vec<Pair>, SyntaxError> {
    let lines = Lines::new(text);
    let table = DeTable::parse(text).map_err(|error| SyntaxError {
        line: error.span().map(|span| lines.of(&span)),
        // Its Display shows the offending line, which may hold a secret.
        message: error.message().to_owned(),
    })?;
    Ok(pairs(table.into_inner(), &lines))
}

/// Where each line begins.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(breaks.map(|(offset, _)| offset + 1)).collect())
    }

    fn of(&self, span: &Range<usize>) -> usize {
        self.0.partition_point(|begin| *begin <= span.start)
    }
}

fn pairs(table: DeTable<'_>, lines: &Lines) -> Vec<Pair> {
    let mut pairs: Vec<Pair> = table
        .into_iter()
        .map(|(key, value)| Pair {
            line: lines.of(&key.span()),
            name: key.into_inner().into_owned(),
            node: node(value, lines),
        })
        .collect();
    // The parser's table is sorted by name; people read their errors from the top of the file.
    pairs.sort_by_key(|entry| entry.line);
    pairs
}

fn node(value: Spanned<DeValue<'_>>, lines: &Lines) -> Node {
    Node { line: lines.of(&value.span()), content: content(value.into_inner(), lines) }
}

fn content(value: DeValue<'_>, lines: &Lines) -> Content {
    match value {
        DeValue::String(text) => Content::Text(text.into_owned()),
        DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Content::Float(f64::INFINITY), Content::Integer),
        DeValue::Float(float) => Content::Float(float.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Content::Bool(flag),
        DeValue::Datetime(_) => Content::Date,
        DeValue::Array(items) => {
            Content::List(items.into_iter().map(|item| node(item, lines)).collect())
        }
        DeValue::Table(table) => Content::Table(pairs(table, lines)),
    }
}
