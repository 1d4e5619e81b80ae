// SPDX-License-Identifier: Apache-2.0
//! Long label values, as results show them.

use std::borrow::Cow;

/// Bytes of a label's name or value that are shown.
pub(super) const SHOWN_BYTES_MAX: usize = 4 << 10;

/// The text, or its beginning and how much of it is left out.
pub(super) fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= SHOWN_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let end = (0..=SHOWN_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
    let shown = &text[..end.unwrap_or_default()];
    Cow::Owned(format!("{shown}… ({} more bytes)", text.len() - shown.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_text_is_shortened_between_characters() {
        let exact = "x".repeat(SHOWN_BYTES_MAX);
        assert_eq!(shorten(&exact), exact);
        assert_eq!(shorten(&(exact.clone() + "yz")), exact + "… (2 more bytes)");
        let odd = format!("a{}", "é".repeat(SHOWN_BYTES_MAX));
        let short = shorten(&odd);
        assert!(short.ends_with("é… (4098 more bytes)"), "{}", &short[4000..]);
    }
}
