// SPDX-License-Identifier: Apache-2.0
//! The probe: an instant query for the number of series that each selector matches, and the age of the newest sample.
//!
//! One query covers many selectors: each sample of the answer has the selector's index (`i`) and a kind (`k`: `n` for
//! the number of series, `age` in seconds, `model` for the age of the newest sample of one model, `within` and a number
//! for a sample that is not older than so many seconds).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use collector_core::ModelRef;

use crate::answer;

/// The maximum size of a probe: more may not fit into a request line.
const PROBE_BYTES_MAX: usize = 12 << 10;

/// What one selector matches.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Matched {
    pub(crate) series: u64,
    /// The age of the newest sample, by the server's clock.
    pub(crate) age: Option<Duration>,
    /// The same for each model, where that was asked.
    pub(crate) models: Option<Arc<[(ModelRef, Duration)]>>,
    /// Why nothing matches, where the configuration says so.
    pub(crate) known_empty: Option<Arc<str>>,
}

impl Matched {
    /// Returns whether this still says, so long after it was read, which samples are not older than `max_age`.
    pub(crate) fn decides_after(&self, since: Duration, max_age: Duration) -> bool {
        let of_models = self.models.iter().flat_map(|models| models.iter().map(|(_, age)| age));
        self.age.iter().chain(of_models).all(|age| *age > max_age || *age + since <= max_age)
    }
}

/// A selector to probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Probe {
    pub(crate) text: String,
    /// Its models are asked for one by one.
    pub(crate) by_model: bool,
    /// It selects one metric.
    pub(crate) is_named: bool,
}

/// The ages that are asked about, in seconds, where a selector may select several metrics: `timestamp` of series that
/// differ in their name alone is an error.
const WITHIN: [(u64, &str); 4] =
    [(30, "within30"), (60, "within60"), (120, "within120"), (300, "within300")];

/// Returns probes for these selectors, each with the indices that it covers.
pub(crate) fn probes(selectors: &[Probe]) -> Vec<(String, std::ops::Range<usize>)> {
    let mut probes: Vec<(String, std::ops::Range<usize>)> = Vec::new();
    for (index, selector) in selectors.iter().enumerate() {
        let part = part(index, selector);
        match probes.last_mut() {
            Some((probe, range)) if probe.len() + part.len() <= PROBE_BYTES_MAX => {
                probe.push_str(" or ");
                probe.push_str(&part);
                range.end = index + 1;
            }
            _ => probes.push((part, index..index + 1)),
        }
    }
    probes
}

fn part(index: usize, Probe { text, by_model, is_named }: &Probe) -> String {
    let mut part = String::with_capacity(3 * text.len() + 240);
    let newest = "time() - max";
    let mut kinds = vec![("n", format!("count({text})"))];
    if *is_named {
        kinds.push(("age", format!("{newest}(timestamp({text}))")));
        if *by_model {
            let newest = format!("{newest} by (namespace, model_name) (timestamp({text}))");
            kinds.push(("model", newest));
        }
    } else {
        let within = |(seconds, kind)| (kind, format!("count(last_over_time({text}[{seconds}s]))"));
        kinds.extend(WITHIN.map(within));
    }
    for (kind, value) in kinds {
        let separator = if part.is_empty() { "" } else { " or " };
        let _ = write!(
            part,
            r#"{separator}label_replace(label_replace({value}, "i", "{index}", "", ""), "k", "{kind}", "", "")"#
        );
    }
    part
}

/// Reads the answer to the probe of these indices. A selector that is absent from it matches nothing.
pub(crate) fn read(
    body: &[u8],
    indices: std::ops::Range<usize>,
) -> Result<Vec<(usize, Matched)>, String> {
    let mut models: HashMap<usize, Vec<(ModelRef, Duration)>> = HashMap::new();
    let mut matched: Vec<(usize, Matched)> =
        indices.map(|index| (index, Matched::default())).collect();
    let first = matched.first().map_or(0, |(index, _)| *index);
    for (labels, value) in answer::samples(body)? {
        let index = labels.get("i").and_then(|index| index.parse::<usize>().ok());
        let slot = index.and_then(|index| matched.get_mut(index.checked_sub(first)?));
        let (Some((_, matched)), Some(kind)) = (slot, labels.get("k")) else {
            return Err("the answer to the probe has unexpected labels".to_owned());
        };
        let age = age_of(value);
        match kind.as_str() {
            "n" => matched.series = series(value),
            "age" => matched.age = age,
            "model" => {
                let of = |label: &str| labels.get(label).map_or("", String::as_str);
                let model = ModelRef::new(of("model_name"), of("namespace"));
                let of_selector = models.entry(index.unwrap_or_default()).or_default();
                of_selector.extend(age.map(|age| (model, age)));
            }
            kind => {
                let Some((within, _)) = WITHIN.iter().find(|(_, known)| *known == kind) else {
                    return Err("the answer to the probe has unexpected labels".to_owned());
                };
                let within = Duration::from_secs(*within);
                matched.age = Some(matched.age.map_or(within, |age| age.min(within)));
            }
        }
    }
    for (index, matched) in &mut matched {
        matched.models = models.remove(index).map(Arc::from);
    }
    Ok(matched)
}

/// Returns an age that a server has in seconds: 0 for a sample of the future, and unknown for what is not a number.
pub(crate) fn age_of(seconds: f64) -> Option<Duration> {
    // `max` would make 0 of NaN.
    Duration::try_from_secs_f64(if seconds < 0.0 { 0.0 } else { seconds }).ok()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, and NaN becomes 0"
)]
fn series(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(samples: &[(usize, &str, &str)]) -> String {
        let samples = samples.iter().map(|(index, kind, value)| {
            format!(r#"{{"metric":{{"i":"{index}","k":"{kind}"}},"value":[1.5,"{value}"]}}"#)
        });
        let samples = samples.collect::<Vec<_>>().join(",");
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#)
    }

    #[test]
    fn a_selector_that_is_absent_from_the_answer_matches_nothing() {
        let body = vector(&[(1, "n", "2"), (1, "age", "3.5")]);
        let matched = read(body.as_bytes(), 0..3).unwrap();
        let age = Some(Duration::from_millis(3500));
        let expected = Matched { series: 2, age, ..Matched::default() };
        assert_eq!(matched, [(0, Matched::default()), (1, expected), (2, Matched::default())]);
    }

    #[test]
    fn of_several_metrics_the_age_is_known_within_bounds() {
        let text = r#"{__name__=~"a|b"}"#.to_owned();
        let query = part(0, &Probe { text, by_model: false, is_named: false });
        assert!(!query.contains("timestamp") && query.contains("[120s]"), "{query}");
        let body = vector(&[(0, "n", "2"), (0, "within120", "2"), (0, "within60", "1")]);
        assert_eq!(read(body.as_bytes(), 0..1).unwrap()[0].1.age, Some(Duration::from_secs(60)));
    }

    #[test]
    fn models_are_read_one_by_one_where_that_was_asked() {
        let query = part(3, &Probe { text: "a".to_owned(), by_model: true, is_named: true });
        assert!(query.ends_with(
            r#"or label_replace(label_replace(time() - max by (namespace, model_name) (timestamp(a)), "i", "3", "", ""), "k", "model", "", "")"#
        ), "{query}");
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"i":"3","k":"model","namespace":"prod","model_name":"m"},"value":[1,"2"]},
            {"metric":{"i":"3","k":"model"},"value":[1,"4"]}]}}"#;
        let matched = read(body.as_bytes(), 3..4).unwrap();
        let models = matched[0].1.models.clone().unwrap();
        let expected = [("m", "prod", 2), ("", "", 4)].map(|(name, namespace, age)| {
            (ModelRef::new(name, namespace), Duration::from_secs(age))
        });
        assert_eq!(*models, expected);
    }

    #[test]
    fn a_negative_age_is_zero_and_one_that_is_no_number_is_unknown() {
        let age = |said| {
            let body = vector(&[(0, "n", "1"), (0, "age", said)]);
            read(body.as_bytes(), 0..1).unwrap()[0].1.age
        };
        assert_eq!(age("-2"), Some(Duration::ZERO));
        assert_eq!([age("NaN"), age("+Inf")], [None; 2]);
    }

    #[test]
    fn unexpected_labels_are_an_error() {
        for body in [
            vector(&[(7, "n", "1")]),
            vector(&[(0, "other", "1")]),
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1"]}]}}"#
                .to_owned(),
            r#"{"status":"error","errorType":"execution","error":"no"}"#.to_owned(),
        ] {
            assert!(read(body.as_bytes(), 0..1).is_err(), "{body}");
        }
    }

    #[test]
    fn a_long_list_is_split_into_several_probes() {
        let selector = |n: usize| {
            let text = format!("up{{a=\"{n}{}\"}}", "x".repeat(400));
            Probe { text, by_model: n < 20, is_named: n < 30 }
        };
        let probes = probes(&(0..40).map(selector).collect::<Vec<_>>());
        assert!(probes.len() > 1 && probes.iter().all(|(text, _)| text.len() <= PROBE_BYTES_MAX));
        let indices: Vec<usize> = probes.into_iter().flat_map(|(_, indices)| indices).collect();
        assert_eq!(indices, (0..40).collect::<Vec<_>>());
    }
}
