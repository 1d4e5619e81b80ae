//! Text from outside in messages.

/// A name from outside, fit for a terminal and a log line.
pub(crate) fn printable(name: &str) -> String {
    let mut text: String = name.chars().take(128).flat_map(char::escape_debug).collect();
    if name.chars().nth(128).is_some() {
        text.push_str("...");
    }
    text
}
