// SPDX-License-Identifier: Apache-2.0
//! Text of PromQL queries that commands write.

/// Returns a text as a PromQL string.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            character => quoted.push(character),
        }
    }
    quoted + "\""
}
