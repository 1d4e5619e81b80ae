// SPDX-License-Identifier: Apache-2.0
//! JSON as it is printed and sent, and YAML as it is printed.

use std::io::{self, IsTerminal as _};

use collector_documents::escape_controls;
pub(crate) use collector_documents::to_json;
use serde::Serialize;

use crate::args::Format;

/// The document as it is printed: in lines on a terminal, else on one line.
pub(crate) fn printed_json(document: &impl Serialize) -> String {
    if !io::stdout().is_terminal() {
        return to_json(document) + "\n";
    }
    let json = serde_json::to_string_pretty(document);
    escape_controls(json.expect("documents have text keys and no failing serializers")) + "\n"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_exactly_in_yaml_without_a_raw_control_character() {
        let name = "a\"\\\n\u{1b}\u{7f}\u{9b}é";
        let yaml = to_yaml(&name);
        assert!(!yaml.trim_end().contains(char::is_control), "{yaml:?}");
        assert_eq!(serde_saphyr::from_str::<String>(&yaml).unwrap(), name);
    }
}
