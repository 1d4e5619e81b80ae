// SPDX-License-Identifier: Apache-2.0
//! Samples of the last minutes, written down at once, for a server that holds them from its start.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

/// Samples of many series, each with its age when the history was begun.
#[derive(Clone, Debug)]
pub struct History {
    /// Milliseconds since the epoch at the beginning.
    now: i64,
    /// By name, then by labels as they are written between braces.
    series: BTreeMap<String, BTreeMap<String, BTreeMap<i64, f64>>>,
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl History {
    /// A history without samples that ends now.
    #[expect(clippy::disallowed_methods, reason = "a real server lives in real time")]
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { now: i64::try_from(now.as_millis()).unwrap_or(i64::MAX), series: BTreeMap::new() }
    }

    /// Adds one sample, taken `age` seconds before the history was begun: a negative age lies in the
    /// future. Labels without a value are left out, as Prometheus does.
    pub fn add(&mut self, name: &str, labels: &[(String, String)], age: f64, value: f64) {
        let mut labels: Vec<&(String, String)> =
            labels.iter().filter(|(_, value)| !value.is_empty()).collect();
        labels.sort_unstable();
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        #[expect(clippy::cast_possible_truncation, reason = "ages are minutes")]
        let at = self.now - (age * 1000.0).round() as i64;
        let of_name = self.series.entry(name.to_owned()).or_default();
        of_name.entry(labels.join(",")).or_default().insert(at, value);
    }

    /// All samples in the text of OpenMetrics, from which `promtool` makes blocks.
    pub(crate) fn open_metrics(&self) -> String {
        let mut text = String::new();
        for (name, labels, at, value) in self.samples() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}{{{labels}}} {value} {}.{:03}", at / 1000, at % 1000);
        }
        text.push_str("# EOF\n");
        text
    }

    /// The samples that are not of the future, in the text format of Prometheus.
    pub(crate) fn text_until_now(&self) -> String {
        let mut text = String::new();
        for (name, labels, at, value) in self.samples().filter(|(_, _, at, _)| *at <= self.now) {
            let _ = writeln!(text, "{name}{{{labels}}} {value} {at}");
        }
        text
    }

    fn samples(&self) -> impl Iterator<Item = (&str, &str, i64, f64)> {
        self.series.iter().flat_map(|(name, all)| {
            all.iter().flat_map(move |(labels, samples)| {
                let sample =
                    move |(at, value): (&i64, &f64)| (name.as_str(), labels.as_str(), *at, *value);
                samples.iter().map(sample)
            })
        })
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_series_stand_together_in_order_of_time_and_the_future_is_left_out_on_request() {
        let mut history = History::new();
        history.now = 1_000_000;
        let labels =
            |pod: &str| vec![("pod".to_owned(), pod.to_owned()), ("a".into(), String::new())];
        history.add("up", &labels("b\"\\\n"), -5.0, 3.0);
        history.add("up", &labels("a"), 0.0, 2.0);
        history.add("up", &labels("a"), 10.5, 1.0);
        assert_eq!(
            history.open_metrics(),
            "up{pod=\"a\"} 1 989.500\nup{pod=\"a\"} 2 1000.000\n\
             up{pod=\"b\\\"\\\\\\n\"} 3 1005.000\n# EOF\n"
        );
        assert_eq!(history.text_until_now(), "up{pod=\"a\"} 1 989500\nup{pod=\"a\"} 2 1000000\n");
    }
}
