// SPDX-License-Identifier: Apache-2.0
//! The Prometheus text format, for series that come and go with what they are about.

use std::fmt::Write as _;

use collector_core::text::is_hidden;

/// A page in the text format, written family by family.
#[derive(Default)]
pub(crate) struct Exposition(String);

/// The type of a family.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// A family of series of one value each: `value` is a function of what a series is about.
pub(crate) struct Series<F> {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    pub(crate) value: F,
}

/// A table of [`Series`]: what each is, as its HELP line says it, its name, its kind and its value.
macro_rules! series {
    ($($(#[doc = $help:literal])+ $name:literal: $kind:ident, $value:expr;)*) => {
        &[$($crate::output::Series {
            name: $name,
            kind: $crate::output::Kind::$kind,
            help: concat!($($help),+).trim_ascii_start(),
            value: $value,
        }),*]
    };
}
pub(crate) use series;

impl<F> Series<F> {
    /// Writes the family with these samples; one without a value has no series.
    pub(crate) fn describe<'a, const LABELS: usize>(
        &self,
        page: &mut Exposition,
        samples: impl Iterator<Item = ([(&'static str, &'a str); LABELS], Option<f64>)>,
    ) {
        let mut family = page.family(self.name, self.kind, self.help);
        for (labels, value) in samples {
            if let Some(value) = value {
                family.sample(&labels, value);
            }
        }
    }

    /// The family as a text of its own.
    pub(crate) fn text<'a, const LABELS: usize>(
        &self,
        samples: impl Iterator<Item = ([(&'static str, &'a str); LABELS], Option<f64>)>,
    ) -> String {
        let mut page = Exposition::default();
        self.describe(&mut page, samples);
        page.into_text()
    }
}

/// The family that samples are being added to.
pub(crate) struct Family<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a family. Its samples follow before the next family begins, as the format demands.
    pub(crate) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { page: &mut self.0, name }
    }

    /// The page.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.page.push_str(self.name);
        for (index, (name, text)) in labels.iter().enumerate() {
            self.page.push(if index == 0 { '{' } else { ',' });
            self.page.extend([*name, "=\""]);
            push_label_value(self.page, text);
            self.page.push('"');
        }
        if !labels.is_empty() {
            self.page.push('}');
        }
        let _ = writeln!(self.page, " {value}");
        self
    }
}

/// Adds a label's value, escaped as the format demands. It has escapes for three characters only; other
/// hidden characters are spelt out, so that none reaches a terminal.
fn push_label_value(page: &mut String, text: &str) {
    // Nearly all names are such, and a large fleet has tens of thousands of them on a page.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'\\' && byte != b'"') {
        page.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '\\' => page.push_str("\\\\"),
            '"' => page.push_str("\\\""),
            '\n' => page.push_str("\\n"),
            c if is_hidden(c) => {
                page.push('\\');
                page.extend(c.escape_unicode());
            }
            c => page.push(c),
        }
    }
}

/// Returns a label's value as a server reads it from a page.
#[cfg(feature = "promql")]
pub(crate) fn label_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) && c != '\n' {
            value.extend(c.escape_unicode());
        } else {
            value.push(c);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_cannot_end_its_label_or_its_line() {
        let mut page = Exposition::default();
        page.family("up", Kind::Gauge, "Alive.")
            .sample(&[("pod", "a\"} 1\nfake 2\\\u{1b}[2J")], 1.0)
            .sample(&[], 0.5);
        assert_eq!(
            page.into_text(),
            "# HELP up Alive.\n# TYPE up gauge\n\
             up{pod=\"a\\\"} 1\\nfake 2\\\\\\\\u{1b}[2J\"} 1\nup 0.5\n"
        );
    }
}
