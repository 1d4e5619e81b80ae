// SPDX-License-Identifier: Apache-2.0
//! Text for messages, logs and terminals. Names and messages of servers, pods and users may hold anything
//! and be of any length.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Characters that [`printable`] shows unless another limit is set.
const PRINTED: usize = 64 << 10;

/// Characters of a name that a message shows.
const SHOWN: usize = 200;

/// Text of others that can be shown safely: hidden characters are written as escapes (`\u{1b}`), and the text
/// is cut where it is too long. Line breaks are escaped too: pass each line by itself.
pub fn printable(text: &str) -> Printable<'_> {
    Printable { text, limit: PRINTED }
}

/// What [`printable`] returns.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a> {
    text: &'a str,
    limit: usize,
}

impl Printable<'_> {
    /// The same with this many characters at most, and `…` where more are left out.
    #[must_use]
    pub fn at_most(self, characters: usize) -> Self {
        Self { limit: characters, ..self }
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, c) in self.text.chars().enumerate() {
            if count == self.limit {
                return f.write_char('…');
            }
            if is_hidden(c) { write!(f, "{}", c.escape_unicode())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// A server's own words for a message: [`printable`], in one line, at most 200 characters.
pub fn quote(text: &str) -> String {
    let blank = |c: char| if c.is_whitespace() { ' ' } else { c };
    let line: String = text.trim().chars().map(blank).take(SHOWN + 1).collect();
    printable(&line).at_most(SHOWN).to_string()
}

/// Whether a character could act on a terminal, or prints nothing and changes how its neighbours print:
/// control characters, line and paragraph separators, and the marks that reorder or join text.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// A name for a message: its first 200 characters, and how many more there are.
pub fn shortened(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(SHOWN) {
        None => Cow::Borrowed(name),
        Some((end, _)) => {
            let more = name[end..].chars().count();
            let more = counted(more, "more character", "more characters");
            Cow::Owned(format!("{}... ({more})", &name[..end]))
        }
    }
}

/// A number of things: `1 model`, `2 models`.
pub fn counted<N>(count: N, one: &str, many: &str) -> String
where
    N: Copy + fmt::Display + PartialEq + From<u8>,
{
    let word = if count == N::from(1) { one } else { many };
    format!("{count} {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_shortened() {
        let name = "模".repeat(200);
        assert_eq!(shortened(&name), name);
        assert_eq!(shortened(&(name.clone() + "型x")), name + "... (2 more characters)");
        assert_eq!(shortened(""), "");
    }

    #[test]
    fn hidden_characters_are_escaped_and_the_rest_is_exact() {
        assert_eq!(
            printable("a\u{1b}[2J\u{9b}1m\n\u{202e}b\u{feff}").to_string(),
            "a\\u{1b}[2J\\u{9b}1m\\u{a}\\u{202e}b\\u{feff}"
        );
        assert_eq!(printable("模型/é \"x\"").to_string(), "模型/é \"x\"");
        assert_eq!(printable("éabc").at_most(2).to_string(), "éa…");
        assert_eq!(printable("éa").at_most(2).to_string(), "éa");
        assert!(printable(&"x".repeat(1 << 20)).to_string().len() < 1 << 17);
    }

    #[test]
    fn a_quote_is_one_short_printable_line() {
        assert_eq!(quote(" a\nb\x1b[31m\u{202e}c "), "a b\\u{1b}[31m\\u{202e}c");
        let long = quote(&"é".repeat(500));
        assert_eq!((long.chars().count(), long.ends_with('…')), (SHOWN + 1, true));
    }

    #[test]
    fn one_of_something_is_singular() {
        assert_eq!(counted(0_u64, "model", "models"), "0 models");
        assert_eq!(counted(1_usize, "model", "models"), "1 model");
        assert_eq!(counted(2_u64, "model", "models"), "2 models");
    }
}
