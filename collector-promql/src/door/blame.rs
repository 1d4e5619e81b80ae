//! Which matcher of a selector that finds nothing is to blame: the one without which there are series.
//!
//! Asked in the background, once in ten minutes for each selector, because it is for people: the refusals that follow
//! name it.

use std::time::Duration;

use crate::answer;
use crate::selector::Selector;

/// How long an answer holds.
pub(super) const LASTS: Duration = Duration::from_secs(600);
/// Matchers that are tried.
const MATCHERS_MAX: usize = 8;
/// Values of one label that are named.
const VALUES_MAX: usize = 3;

/// The query that drops each matcher in turn, and counts what is there by the label that it was about.
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

/// What the answer says, for people. `None`: no single matcher is to blame.
pub(super) fn read(body: &[u8], selector: &Selector) -> Option<String> {
    let samples = answer::samples(body).ok()?;
    // The first matcher that finds something is named; of its values the most frequent first.
    let label = selector.labels().into_iter().find(|label| {
        samples.iter().any(|(labels, _)| labels.get("i").is_some_and(|of| of == label))
    })?;
    let mut found: Vec<(f64, &str)> = samples
        .iter()
        .filter(|(labels, _)| labels.get("i").is_some_and(|of| of == label))
        .map(|(labels, count)| (*count, labels.get(label).map_or("", String::as_str)))
        .collect();
    found.sort_by(|(one, a), (other, b)| other.total_cmp(one).then(a.cmp(b)));
    let series: f64 = found.iter().map(|(count, _)| count).sum();
    let values: Vec<String> = found.iter().map(|(_, value)| format!("{value:?}")).collect();
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
    fn each_matcher_is_dropped_in_turn() {
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
    fn the_matcher_without_which_there_are_series_is_named_with_what_is_there() {
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
