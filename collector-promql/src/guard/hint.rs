// SPDX-License-Identifier: Apache-2.0
//! Hints: which matcher is the reason that a selector matches no series.
//!
//! The hint is requested in the background and added to later refusals. It is for people: autoscalers show only the
//! status.

use crate::answer;
use crate::selector::Selector;

/// Matchers that are tried.
const MATCHERS_MAX: usize = 8;
/// Values of one label that are listed.
const VALUES_MAX: usize = 3;

/// Returns a query that leaves out one matcher at a time, and counts the series by that matcher's label.
pub(super) fn query(selector: &Selector) -> Option<String> {
    let parts = selector.labels().into_iter().take(MATCHERS_MAX).filter_map(|label| {
        let rest = selector.without(label)?;
        Some(format!(
            r#"label_replace(topk({VALUES_MAX}, count by ({label}) ({rest})), "i", "{label}", "", "")"#
        ))
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join(" or "))
}

/// Reads the answer. Returns `None` if no single matcher is the reason.
pub(super) fn read(body: &[u8], selector: &Selector) -> Option<String> {
    let samples = answer::samples(body).ok()?;
    let of_label = |label: &str| {
        let counts =
            samples.iter().filter(|(labels, _)| labels.get("i").is_some_and(|i| i == label));
        let counts =
            counts.map(|(labels, count)| (*count, labels.get(label).map_or("", String::as_str)));
        let mut counts: Vec<(f64, &str)> = counts.collect();
        // The most frequent value first.
        counts.sort_by(|(one, a), (other, b)| other.total_cmp(one).then(a.cmp(b)));
        counts
    };
    let labels = selector.labels().into_iter();
    let (label, counts) =
        labels.map(|label| (label, of_label(label))).find(|(_, counts)| !counts.is_empty())?;
    let series: f64 = counts.iter().map(|(count, _)| count).sum();
    let values: Vec<String> = counts.iter().map(|(_, value)| format!("{value:?}")).collect();
    let matcher = selector.matcher_text(label)?;
    Some(format!("Without {matcher} there are {series}, of {}", values.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::query::Query;

    fn selector(text: &str) -> Selector {
        Query::parse(text, &Limits::default()).unwrap().selectors.remove(0)
    }

    #[test]
    fn each_matcher_is_left_out_in_turn() {
        let query = query(&selector(r#"up{job="a",model_name=~"m.*"}"#)).unwrap();
        assert_eq!(
            query,
            r#"label_replace(topk(3, count by (job) (up{model_name=~"m.*"})), "i", "job", "", "")"#
                .to_owned()
                + " or "
                + r#"label_replace(topk(3, count by (model_name) (up{job="a"})), "i", "model_name", "", "")"#
        );
        assert_eq!(super::query(&selector("up")), None);
    }

    #[test]
    fn the_matcher_that_excludes_all_series_is_named_with_the_existing_values() {
        let sample = |value: &str, count: u32| {
            format!(
                r#"{{"metric":{{"i":"model_name","model_name":"{value}"}},"value":[1,"{count}"]}}"#
            )
        };
        let result = [sample("org/b", 2), sample("org/m", 12)].join(",");
        let body = format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{result}]}}}}"#
        );
        let selector = selector(r#"up{job="a",model_name="m"}"#);
        let text = read(body.as_bytes(), &selector).unwrap();
        assert_eq!(text, r#"Without model_name="m" there are 14, of "org/m", "org/b""#);
        let nothing = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        assert_eq!(read(nothing.as_bytes(), &selector), None);
    }
}
