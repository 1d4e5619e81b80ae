// SPDX-License-Identifier: Apache-2.0
//! JSON as it is printed and sent, and YAML as it is printed.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use serde::Serialize;

use crate::args::Format;

/// The document on one line. Control characters beyond ASCII's first 32 are escaped too, which JSON
/// does not ask for and terminals need.
pub(crate) fn to_json(document: &impl Serialize) -> String {
    escaped(serde_json::to_string(document))
}

fn escaped(json: serde_json::Result<String>) -> String {
    let json = json.expect("documents have text keys and no failing serializers");
    if !json.contains(is_late_control) {
        return json;
    }
    // Such characters only occur within strings, so the document stays the same.
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_late_control(c) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// The document as it is printed: in lines on a terminal, else on one line.
pub(crate) fn printed_json(document: &impl Serialize) -> String {
    if !io::stdout().is_terminal() {
        return to_json(document) + "\n";
    }
    escaped(serde_json::to_string_pretty(document)) + "\n"
}

/// The document as YAML.
fn to_yaml(document: &impl Serialize) -> String {
    serde_saphyr::to_string(document).expect("documents have text keys and no failing serializers")
}

/// A result as it is printed: its document, or what `table` makes of it for people.
pub(crate) fn shown(
    format: Format,
    document: &impl Serialize,
    table: impl FnOnce() -> String,
) -> String {
    match format {
        Format::Json => printed_json(document),
        Format::Yaml => to_yaml(document),
        _ => table(),
    }
}

fn is_late_control(c: char) -> bool {
    ('\u{7f}'..='\u{9f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_exactly_without_a_raw_control_character() {
        let name = "a\"\\\n\u{1b}\u{7f}\u{9b}é";
        let json = to_json(&name);
        assert!(!json.contains(char::is_control), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), name);
        let yaml = to_yaml(&name);
        assert!(!yaml.trim_end().contains(char::is_control), "{yaml:?}");
        assert_eq!(serde_saphyr::from_str::<String>(&yaml).unwrap(), name);
    }
}
