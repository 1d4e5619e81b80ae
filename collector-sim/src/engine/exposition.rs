//! The Prometheus text format as the Python client writes it.
//!
//! Its habits matter to a reader: numbers are floats (`1.0`, `1.7554e+09`), labels are sorted by
//! name, and each counter and histogram has a second family with the time of its creation.

use std::fmt::Write;

/// A page under construction.
pub(crate) struct Page {
    text: String,
}

impl Page {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes) }
    }

    /// Begins a family.
    pub(crate) fn family(&mut self, name: &str, suffix: &str, help: &str, kind: &str) {
        let Self { text } = self;
        for part in ["# HELP ", name, suffix, " ", help, "\n# TYPE ", name, suffix, " ", kind, "\n"]
        {
            text.push_str(part);
        }
    }

    /// One sample; `labels` are the parts of the label set, already rendered by [`label`] and
    /// each followed by a comma.
    pub(crate) fn sample(&mut self, name: &str, suffix: &str, labels: &[&str], value: f64) {
        self.text.push_str(name);
        self.text.push_str(suffix);
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
        write_float(&mut self.text, value);
        self.text.push('\n');
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// `name="value",` with the value escaped.
pub(crate) fn label(name: &str, value: &str) -> String {
    let mut text = String::with_capacity(name.len() + value.len() + 4);
    text.push_str(name);
    text.push_str("=\"");
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text.push_str("\",");
    text
}

/// `name="<number>",` as for the bounds of buckets.
pub(crate) fn number_label(name: &str, value: f64) -> String {
    let mut text = format!("{name}=\"");
    write_float(&mut text, value);
    text.push_str("\",");
    text
}

/// Writes a number as Python's client does: the shortest text that reads back as the same float,
/// with an exponent from 10^6 on.
fn write_float(text: &mut String, value: f64) {
    if value == f64::INFINITY {
        text.push_str("+Inf");
        return;
    }
    let start = text.len();
    // Writing to a String does not fail.
    let _ = write!(text, "{value:?}");
    let Some(point) = text[start..].find('.') else {
        return;
    };
    if value > 0.0 && point > 6 {
        text.remove(start + point);
        text.insert(start + 1, '.');
        text.truncate(text.trim_end_matches(['0', '.']).len());
        let _ = write!(text, "e+0{}", point - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: f64, expected: &str) {
        let mut text = String::from("500.0 ");
        write_float(&mut text, value);
        assert_eq!(text, format!("500.0 {expected}"));
    }

    #[test]
    fn numbers_are_written_as_the_python_client_writes_them() {
        check(0.0, "0.0");
        check(1.0, "1.0");
        check(-1.0, "-1.0");
        check(0.001, "0.001");
        check(913_183.0, "913183.0");
        check(1_008_832.0, "1.008832e+06");
        check(1_000_000.0, "1e+06");
        check(120_447_315.0, "1.20447315e+08");
        check(1_755_400_000.334_655, "1.755400000334655e+09");
        check(191.522_031_361_329_94, "191.52203136132994");
        check(f64::INFINITY, "+Inf");
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(label("model_name", "a\"b\\c\nd:/{é"), "model_name=\"a\\\"b\\\\c\\nd:/{é\",");
    }

    #[test]
    fn a_sample_without_labels_has_no_braces() {
        let mut page = Page::with_capacity(0);
        page.sample("up", "_total", &[], 2.0);
        page.sample("up", "", &["a=\"1\",", "", "b=\"2\","], 3.0);
        assert_eq!(page.finish(), "up_total 2.0\nup{a=\"1\",b=\"2\"} 3.0\n");
    }
}
