// SPDX-License-Identifier: Apache-2.0
//! Documents as JSON text.

mod writer;

use std::fmt::Write as _;

use memchr::memchr2;
use serde::Serialize;

use writer::Writer;

/// The document on one line, without a control character: see [`escape_controls`].
///
/// # Panics
/// If a key of the document is no text, or it cannot be serialised. The documents of this crate always can.
pub fn to_json(document: &impl Serialize) -> String {
    sized_json(document, 0)
}

const SERIALISABLE: &str = "documents have text keys and no failing serializers";

/// The same for a document of about this many bytes.
pub(crate) fn sized_json(document: &impl Serialize, bytes: usize) -> String {
    let mut writer = Writer(String::with_capacity(bytes));
    document.serialize(&mut writer).expect(SERIALISABLE);
    writer.0
}

/// Escapes the control characters beyond ASCII's first 32 in JSON text, which JSON does not ask for and terminals need.
pub fn escape_controls(json: String) -> String {
    // In UTF-8 they are the byte 0x7f, or begin with the byte 0xc2. Few documents have either.
    if memchr2(0x7f, 0xc2, json.as_bytes()).is_none() {
        return json;
    }
    // Such characters only occur within strings, so the document stays the same.
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if ('\u{7f}'..='\u{9f}').contains(&c) {
            // Writing to a string cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_exactly_without_a_raw_control_character() {
        let controls = (0..=0xff_u32).filter_map(char::from_u32).filter(|c| c.is_control());
        for c in controls.chain(['\u{a0}', '\u{bf}', 'é', '模', '\u{10ffff}']) {
            let name = format!("a\"\\{c}b");
            let json = to_json(&name);
            assert!(!json.contains(char::is_control), "{json}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), name);
            assert_eq!(json.contains(c), !c.is_control(), "{json}");
        }
    }
}
