// SPDX-License-Identifier: Apache-2.0
//! The Prometheus text format as the servers' client libraries write it.
//!
//! Their differences matter to a reader: the Python client writes numbers as floats (`1.0`, `1.7554e+09`) and
//! adds a family with the creation time to each counter and histogram; the Go client writes `1` and
//! `1.7554e+09`; Triton's client writes all digits.

use std::fmt::Write;

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// `1.0`, an exponent from 10^6 on.
    Python,
    /// `1`, an exponent from 10^6 on and below 10^-4.
    Go,
    /// `1`, never an exponent.
    Plain,
}

/// A page under construction.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    numbers: Numbers,
}

impl Page {
    pub(crate) fn new(numbers: Numbers) -> Self {
        Self { text: String::new(), numbers }
    }

    pub(crate) fn with_capacity(numbers: Numbers, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), numbers }
    }

    pub(crate) fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// Begins a family.
    pub(crate) fn family(&mut self, name: &str, help: &str, kind: &str) {
        for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"] {
            self.text.push_str(part);
        }
    }

    /// Writes a sample; `labels` are the rendered parts of the label set (see [`label`]), each followed by a
    /// comma.
    pub(crate) fn sample(&mut self, name: &str, labels: &[&str], value: f64) {
        self.series(name, labels);
        self.value(value);
    }

    /// Writes a sample up to its value.
    pub(crate) fn series(&mut self, name: &str, labels: &[&str]) {
        self.text.push_str(name);
        let before = self.text.len();
        self.text.push('{');
        for part in labels {
            self.text.push_str(part);
        }
        if self.text.ends_with('{') {
            self.text.truncate(before);
        } else {
            self.text.pop();
            self.text.push('}');
        }
        self.text.push(' ');
    }

    /// Writes the value of a sample.
    pub(crate) fn value(&mut self, value: f64) {
        write_number(&mut self.text, self.numbers, value);
        self.text.push('\n');
    }

    /// Writes rendered text.
    pub(crate) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// `name="value",` with the value escaped.
pub(crate) fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\",", escape(value))
}

/// `name="value",` of each.
pub(crate) fn labels(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(name, value)| label(name, value)).collect()
}

/// Escapes a label value.
pub(crate) fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// `le="bound",`
pub(crate) fn bound_label(numbers: Numbers, bound: f64) -> String {
    let mut text = String::from("le=\"");
    write_number(&mut text, numbers, bound);
    text.push_str("\",");
    text
}

/// Writes a number as the shortest text that parses to the same float, in the given form.
fn write_number(text: &mut String, numbers: Numbers, value: f64) {
    if write_small_count(text, numbers, value) {
        return;
    }
    if value.is_nan() {
        text.push_str("NaN");
        return;
    }
    if value.is_infinite() {
        text.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        return;
    }
    let start = text.len();
    // Writing to a String does not fail.
    let _ = write!(text, "{value}");
    if numbers == Numbers::Plain {
        return;
    }
    // Python decides by the number, Go by its size.
    let large = if numbers == Numbers::Python { value } else { value.abs() } >= 1e6;
    let small = value != 0.0 && value.abs() < 1e-4;
    if large || small {
        text.truncate(start);
        write_with_exponent(text, value);
    } else if numbers == Numbers::Python && !text[start..].contains('.') {
        text.push_str(".0");
    }
}

/// Fast path for counts below a million. Returns false for other numbers.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    reason = "only a number that is the same as a count is written as one"
)]
fn write_small_count(text: &mut String, numbers: Numbers, value: f64) -> bool {
    if !(0.0..1e6).contains(&value) || value.is_sign_negative() {
        return false;
    }
    let count = value as u32;
    if f64::from(count) != value {
        return false;
    }
    let _ = write!(text, "{count}");
    if numbers == Numbers::Python {
        text.push_str(".0");
    }
    true
}

/// `1.5e+09`: an exponent with its sign and at least two digits.
fn write_with_exponent(text: &mut String, value: f64) {
    let start = text.len();
    let _ = write!(text, "{value:e}");
    let Some(exponent) = text[start..].find('e').map(|at| start + at + 1) else {
        return;
    };
    let digits = text.split_off(exponent);
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', digits.as_str()),
    };
    let _ = write!(text, "{sign}{digits:0>2}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: f64, python: &str, go: &str, plain: &str) {
        let forms = [(Numbers::Python, python), (Numbers::Go, go), (Numbers::Plain, plain)];
        for (numbers, expected) in forms {
            let mut text = String::from("500.0 ");
            write_number(&mut text, numbers, value);
            assert_eq!(text, format!("500.0 {expected}"));
        }
    }

    #[test]
    fn numbers_are_written_as_each_client_library_writes_them() {
        check(0.0, "0.0", "0", "0");
        check(1.0, "1.0", "1", "1");
        check(-1.0, "-1.0", "-1", "-1");
        check(0.001, "0.001", "0.001", "0.001");
        check(0.0001, "0.0001", "0.0001", "0.0001");
        check(1e-8, "1e-08", "1e-08", "0.00000001");
        check(913_183.0, "913183.0", "913183", "913183");
        check(1_008_832.0, "1.008832e+06", "1.008832e+06", "1008832");
        check(1_000_000.0, "1e+06", "1e+06", "1000000");
        check(120_447_315.0, "1.20447315e+08", "1.20447315e+08", "120447315");
        check(1_755_400_000.25, "1.75540000025e+09", "1.75540000025e+09", "1755400000.25");
        check(
            191.522_031_361_329_94,
            "191.52203136132994",
            "191.52203136132994",
            "191.52203136132994",
        );
        check(f64::INFINITY, "+Inf", "+Inf", "+Inf");
        check(f64::NAN, "NaN", "NaN", "NaN");
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(label("model_name", "a\"b\\c\nd:/{é"), "model_name=\"a\\\"b\\\\c\\nd:/{é\",");
    }

    #[test]
    fn a_sample_without_labels_has_no_braces() {
        let mut page = Page::new(Numbers::Python);
        page.sample("up_total", &[], 2.0);
        page.sample("up", &["a=\"1\",", "", "b=\"2\","], 3.0);
        assert_eq!(page.finish(), "up_total 2.0\nup{a=\"1\",b=\"2\"} 3.0\n");
    }
}
