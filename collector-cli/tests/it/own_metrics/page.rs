// SPDX-License-Identifier: Apache-2.0
//! A page of metrics, and the table of them in the documentation, in the same form.

use std::collections::{BTreeMap, BTreeSet};

/// A family: its type, and the names of its labels.
#[derive(PartialEq, Eq, Debug, Default, Clone)]
pub(super) struct Family {
    pub(super) kind: String,
    pub(super) labels: BTreeSet<String>,
}

pub(super) type Families = BTreeMap<String, Family>;

/// The families of a page. Bounds of buckets are no label of their family.
pub(super) fn exported(page: &str) -> Families {
    let mut families = Families::new();
    for line in page.lines() {
        if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let before = families
                .insert(name.to_owned(), Family { kind: kind.to_owned(), ..Family::default() });
            assert_eq!(before, None, "{name} is there twice");
        } else if !line.is_empty() && !line.starts_with('#') {
            let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
            let family = family_of(name, &families).unwrap_or_else(|| panic!("{name} has no type"));
            let labels = labels(rest).filter(|label| label != "le");
            families.get_mut(&family).unwrap().labels.extend(labels);
        }
    }
    families
}

/// The family of a series: those of a histogram or a summary have other names than it.
pub(super) fn family_of(series: &str, families: &Families) -> Option<String> {
    if families.contains_key(series) {
        return Some(series.to_owned());
    }
    let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end))?;
    families
        .get(name)
        .filter(|family| ["histogram", "summary"].contains(&&*family.kind))
        .map(|_| name.to_owned())
}

/// The names of the labels in `{a="…",b="…"} 1`. The values on the pages of these tests have no quotes.
fn labels(rest: &str) -> impl Iterator<Item = String> {
    let inner =
        rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inner, _)| inner);
    inner.split('"').step_by(2).filter_map(|part| {
        let name = part.trim_start_matches(',').strip_suffix('=')?;
        Some(name.to_owned())
    })
}

/// The tables of the documentation whose rows are families.
pub(super) fn documented(text: &str) -> Families {
    let rows = rows(text).filter(|row| row.len() == 4);
    let family = |row: Vec<&str>| {
        let labels = code(row[2]).map(str::to_owned).collect();
        let name = code(row[0]).next().unwrap().to_owned();
        (name, Family { kind: row[1].to_owned(), labels })
    };
    let all: Vec<_> = rows.map(family).collect();
    let families: Families = all.iter().cloned().collect();
    assert_eq!(families.len(), all.len(), "each is there once");
    families
}

/// The upstream names in the documentation, and the names here.
pub(super) fn aliases(text: &str) -> BTreeMap<&str, &str> {
    let of_aliases = rows(text).filter(|row| row.len() == 2 && row[0].starts_with("`wva_"));
    of_aliases.map(|row| (row[0].trim_matches('`'), row[1].trim_matches('`'))).collect()
}

/// The alerts in the documentation.
pub(super) fn alerts(text: &str) -> BTreeSet<String> {
    let of_alerts = rows(text).filter(|row| row.len() == 2 && row[0].starts_with("`Collector"));
    of_alerts.map(|row| row[0].trim_matches('`').to_owned()).collect()
}

/// The cells of each row of a table that begins with code.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let inner = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
    inner.filter(|row| row.starts_with('`')).map(|row| row.split('|').map(str::trim).collect())
}

/// The parts of a cell that are code.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}
