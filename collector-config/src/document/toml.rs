// SPDX-License-Identifier: Apache-2.0
//! TOML into [`Node`]s, with lines from the parser's spans.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Content, Duplicate, Node, Pair, Parsed, SyntaxError};

/// The parser's word for a key that stands twice.
const DUPLICATE: &str = "duplicate key";

pub(super) fn parse(text: &str) -> Result<Parsed, SyntaxError> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let (twice, other): (Vec<_>, Vec<_>) = errors
        .into_iter()
        .partition(|error| error.message() == DUPLICATE && error.span().is_some());
    if let Some(error) = other.first() {
        return Err(SyntaxError {
            line: error.span().map(|span| lines.of(&span)),
            // Its Display shows the offending line, which may hold a secret.
            message: error.message().to_owned(),
        });
    }
    let pairs = pairs(table.into_inner(), &lines);
    let spans = twice.iter().filter_map(toml::de::Error::span);
    let duplicates = spans.map(|span| duplicate(text, &span, &lines, &pairs)).collect();
    Ok(Parsed { pairs, duplicates })
}

/// The path of a key that stands a second time at `span`, and the line of the first. The parser knows
/// neither: they follow from the text of the key, of the header above it, and from the tree.
fn duplicate(text: &str, span: &Range<usize>, lines: &Lines, pairs: &[Pair]) -> Duplicate {
    let again = lines.of(span);
    let name = text.get(span.clone()).unwrap_or_default().trim_matches(['"', '\'']);
    let header = |line: &str| {
        let inner = line.trim_start().strip_prefix('[')?.trim_start_matches('[');
        Some(inner.split(']').next().unwrap_or_default().trim().to_owned())
    };
    let line = text.lines().nth(again - 1).unwrap_or_default();
    if let Some(path) = header(line) {
        // The tree knows the last of equal headers alone. The first may be a dotted key, too.
        let dotted = format!("{path}.");
        let mut lines = text.lines().take(again - 1);
        let first = lines.position(|line| {
            header(line).as_ref() == Some(&path) || line.trim_start().starts_with(&dotted)
        });
        return Duplicate { path, first: first.map_or(again, |line| line + 1), again };
    }
    let key = line.split('=').next().unwrap_or_default().trim();
    let above: Vec<&str> = text.lines().take(again - 1).collect();
    let written = match above.iter().rev().find_map(|line| header(line)) {
        Some(table) => format!("{table}.{key}"),
        None => key.to_owned(),
    };
    let mut before = Vec::new();
    keys(pairs, "", &mut before);
    before.retain(|(path, line)| *line <= again && path.rsplit('.').next() == Some(name));
    let (exact, near): (Vec<_>, Vec<_>) =
        before.into_iter().partition(|(path, _)| without_indices(path) == written);
    let last = |found: Vec<(String, usize)>| found.into_iter().max_by_key(|(_, line)| *line);
    let (path, first) = last(exact).or_else(|| last(near)).unwrap_or((written, again));
    Duplicate { path, first, again }
}

/// The path and line of each key of the tree.
fn keys(pairs: &[Pair], table: &str, found: &mut Vec<(String, usize)>) {
    for pair in pairs {
        let path =
            if table.is_empty() { pair.name.clone() } else { format!("{table}.{}", pair.name) };
        match &pair.node.content {
            Content::Table(pairs) => keys(pairs, &path, found),
            Content::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Content::Table(pairs) = &item.content {
                        keys(pairs, &format!("{path}[{index}]"), found);
                    }
                }
            }
            _ => {}
        }
        found.push((path, pair.line));
    }
}

/// `variants[0].name` as a header and a key would have it: `variants.name`.
fn without_indices(path: &str) -> String {
    path.split('[')
        .enumerate()
        .map(
            |(place, part)| {
                if place == 0 { part } else { part.split_once(']').unwrap_or(("", part)).1 }
            },
        )
        .collect()
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
