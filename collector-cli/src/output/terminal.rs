// SPDX-License-Identifier: Apache-2.0
//! What the terminal can show: how many columns, and which signs.

use std::env;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use clap::ValueEnum;
use rustix::termios::tcgetwinsize;

/// The columns that a line on stdout may take: the variable `COLUMNS` where it is set, else the width
/// of the terminal; `None` where stdout is not a terminal.
pub(crate) fn width() -> Option<usize> {
    let set = env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
    let width = set.or_else(|| {
        let stdout = io::stdout();
        let size = stdout.is_terminal().then(|| tcgetwinsize(stdout).ok())??;
        Some(usize::from(size.ws_col))
    });
    width.filter(|columns| *columns > 0)
}

/// When to print in colours.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Colours {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Into pipes and files too
    Always,
    /// Never
    Never,
}

/// What the command line says; set once.
static COLOURS: OnceLock<Colours> = OnceLock::new();

impl Colours {
    /// Chooses for the rest of the process.
    pub(crate) fn choose(self) {
        let _ = COLOURS.set(self);
    }
}

/// Whether what is written to this stream is in colours: <https://no-color.org>, where any value but the
/// empty one counts.
pub(crate) fn colours(stream: &impl IsTerminal) -> bool {
    match COLOURS.get() {
        Some(Colours::Always) => true,
        Some(Colours::Never) => false,
        _ => stream.is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}

/// Colours of text, with the parameter of the terminal's escape sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Colour {
    Faint = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
}

/// The text in this colour, where the stream has colours.
pub(crate) fn painted(text: &str, colour: Colour, stream: &impl IsTerminal) -> String {
    if !colours(stream) {
        return text.to_owned();
    }
    format!("\x1b[{}m{text}\x1b[0m", colour as u8)
}

/// The signs that are printed for people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Signs {
    pub(crate) pass: &'static str,
    pub(crate) warn: &'static str,
    pub(crate) fail: &'static str,
    pub(crate) skip: &'static str,
    /// Stands for text that was cut.
    pub(crate) ellipsis: &'static str,
    /// Separates the parts of a line.
    pub(crate) dot: &'static str,
    pub(crate) arrow: &'static str,
    /// The prefix of a millionth.
    pub(crate) micro: &'static str,
    /// From the least to the greatest value. None of them is a blank, which stands for an unknown value.
    pub(crate) bars: [char; 8],
    /// One after the other they turn.
    pub(crate) turns: &'static [char],
}

pub(crate) const UNICODE: Signs = Signs {
    pass: "✓",
    warn: "‼",
    fail: "×",
    skip: "-",
    ellipsis: "…",
    dot: "·",
    arrow: "→",
    micro: "µ",
    bars: ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    turns: &['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'],
};

pub(crate) const ASCII: Signs = Signs {
    pass: "+",
    warn: "!",
    fail: "x",
    skip: "-",
    ellipsis: "...",
    dot: "|",
    arrow: "->",
    micro: "u",
    bars: ['_', '.', ':', '-', '=', '+', '*', '#'],
    turns: &['|', '/', '-', '\\'],
};

/// The signs for the locale of the environment.
pub(crate) fn signs() -> &'static Signs {
    signs_of(|name| env::var(name).ok())
}

/// The first variable that is set decides, as in POSIX. Where none is, as in most containers, UTF-8 is
/// assumed.
fn signs_of(variable: impl Fn(&str) -> Option<String>) -> &'static Signs {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable)
        .find(|value| !value.is_empty());
    let is_utf8 = locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    if is_utf8 { &UNICODE } else { &ASCII }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(variables: &[(&str, &str)], expected: &Signs) {
        let signs = signs_of(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        assert_eq!(signs, expected, "{variables:?}");
    }

    #[test]
    fn the_locale_decides_between_unicode_and_ascii() {
        check(&[], &UNICODE);
        check(&[("LANG", "")], &UNICODE);
        check(&[("LANG", "de_DE.UTF-8")], &UNICODE);
        check(&[("LANG", "C")], &ASCII);
        check(&[("LANG", "POSIX")], &ASCII);
        check(&[("LANG", "de_DE.ISO-8859-1")], &ASCII);
        check(&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")], &ASCII);
        check(&[("LANG", "C"), ("LC_ALL", "C.utf8")], &UNICODE);
        check(&[("LC_CTYPE", "C"), ("LANG", "de_DE.UTF-8")], &ASCII);
    }

    #[test]
    fn ascii_signs_are_ascii_and_no_bar_is_blank() {
        let Signs { pass, warn, fail, skip, ellipsis, dot, arrow, micro, bars, turns } = ASCII;
        let signs = [pass, warn, fail, skip, ellipsis, dot, arrow, micro];
        assert!(signs.iter().all(|sign| sign.is_ascii()));
        assert!(bars.iter().chain(turns).all(|bar| bar.is_ascii() && *bar != ' '));
    }
}
