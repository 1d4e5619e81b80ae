// SPDX-License-Identifier: Apache-2.0
//! Lines of styled text, from which both the terminal's frames and the picture are made.

use std::fmt::Write as _;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// How a piece of text looks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Style {
    #[default]
    Plain,
    Strong,
    Faint,
    Good,
    Warning,
    Bad,
}

impl Style {
    /// The parameter of the terminal's escape sequence.
    fn code(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Strong => Some(1),
            Self::Faint => Some(2),
            Self::Good => Some(32),
            Self::Warning => Some(33),
            Self::Bad => Some(31),
        }
    }
}

/// A line: pieces of text, each in one style.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Line(pub(super) Vec<(String, Style)>);

impl Line {
    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self(vec![(text.into(), style)])
    }

    pub(super) fn push(&mut self, text: impl Into<String>, style: Style) {
        self.0.push((text.into(), style));
    }

    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|(text, _)| text.width()).sum()
    }

    /// The text with the escape sequences of its styles, or without any.
    pub(super) fn on_terminal(&self, styles: bool) -> String {
        let mut shown = String::new();
        for (text, style) in &self.0 {
            let _ = match style.code().filter(|_| styles) {
                Some(code) => write!(shown, "\x1b[{code}m{text}\x1b[0m"),
                None => write!(shown, "{text}"),
            };
        }
        shown
    }
}

/// The line in at most this many columns; an ellipsis takes the place of what was cut off its end.
pub(super) fn cut(line: Line, columns: usize, ellipsis: &str) -> Line {
    if line.width() <= columns {
        return line;
    }
    let mut left = columns.saturating_sub(ellipsis.width());
    let mut kept = Line::default();
    for (text, style) in line.0 {
        let fits = |c: &char| {
            let width = c.width().unwrap_or(0);
            let fits = width <= left;
            left = if fits { left - width } else { 0 };
            fits
        };
        let text: String = text.chars().take_while(fits).collect();
        if !text.is_empty() {
            kept.push(text, style);
        }
    }
    if ellipsis.width() <= columns {
        kept.push(ellipsis, Style::Faint);
    }
    kept
}

/// Words in faint lines of at most this many columns.
pub(super) fn wrapped(text: &str, columns: usize) -> Vec<Line> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.into_iter().map(|line| Line::styled(line, Style::Faint)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_at_its_end_and_wide_characters_count_twice() {
        let mut line = Line::styled("模型", Style::Good);
        line.push("abc", Style::Plain);
        let shown = |columns| cut(line.clone(), columns, "…").on_terminal(false);
        assert_eq!(shown(7), "模型abc");
        assert_eq!(shown(6), "模型a…");
        assert_eq!(shown(4), "模…", "half a character is none");
        assert_eq!(shown(0), "");
    }

    #[test]
    fn styles_are_escape_sequences_only_where_they_are_wanted() {
        let line = Line::styled("fresh", Style::Good);
        assert_eq!(line.on_terminal(true), "\x1b[32mfresh\x1b[0m");
        assert_eq!(line.on_terminal(false), "fresh");
    }

    #[test]
    fn words_are_wrapped() {
        let lines: Vec<String> =
            wrapped("one two three", 8).iter().map(|line| line.on_terminal(false)).collect();
        assert_eq!(lines, ["one two", "three"]);
    }
}
