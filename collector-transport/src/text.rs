//! Text of others, made fit to be shown.

/// Characters of a server's own text that are shown.
const QUOTED_MAX: usize = 200;

/// What a server wrote, fit to be shown: printable, in one line, at most 200 characters.
pub fn quote(text: &str) -> String {
    let mut shown = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == QUOTED_MAX {
            shown.push('…');
            break;
        }
        let hidden = c.is_control() || is_format_character(c);
        shown.push(if c.is_whitespace() {
            ' '
        } else if hidden {
            '\u{fffd}'
        } else {
            c
        });
    }
    shown
}

/// Characters that print nothing and change how their neighbours print.
fn is_format_character(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
            | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_wrote_is_shown_in_one_short_printable_line() {
        assert_eq!(quote(" a\nb\x1b[31m\u{202e}c "), "a b\u{fffd}[31m\u{fffd}c");
        let long = quote(&"é".repeat(500));
        assert_eq!(long.chars().count(), QUOTED_MAX + 1);
        assert!(long.ends_with('…'));
    }
}
