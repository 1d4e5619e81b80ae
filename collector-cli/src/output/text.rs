//! Text on terminals: nothing that a server or a pod is called may act on them.

use std::fmt;
use std::io::{self, Write as _};

use crate::exit::Failure;

/// Text with its control characters, and those that reorder text, written as escapes.
pub(crate) struct Printable<'a>(&'a str);

/// Shows text harmlessly. Line breaks are escaped too: pass each line on its own.
pub(crate) fn printable(text: &str) -> Printable<'_> {
    Printable(text)
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if is_harmful(c) { write!(f, "{}", c.escape_unicode()) } else { write!(f, "{c}") }
        })
    }
}

/// Control characters, and the marks by which a name could show as another one.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Writes a result to stdout. A reader that left early (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// The same of one text among many; false when nobody reads any more.
pub(crate) fn print_on(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::other(format!("cannot write to stdout: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_act_on_a_terminal_is_escaped_and_the_rest_is_exact() {
        assert_eq!(
            printable("a\u{1b}[2J\u{9b}1m\n\u{202e}b").to_string(),
            "a\\u{1b}[2J\\u{9b}1m\\u{a}\\u{202e}b"
        );
        assert_eq!(printable("模型/é \"x\"").to_string(), "模型/é \"x\"");
    }
}
