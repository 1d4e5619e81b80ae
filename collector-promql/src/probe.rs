//! The question beside each query: which of these selectors match anything, and how old is the newest sample?
//!
//! One instant query asks it for all of them: each part carries the place of its selector (`i`) and what it says
//! (`k`: `n` for the number of series, `age` for seconds).

use std::fmt::Write as _;
use std::time::Duration;

use crate::answer;

/// Bytes of a probe: what proxies take in a request line, or in a form.
const PROBE_BYTES_MAX: usize = 12 << 10;

/// What one selector matches now.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) series: u64,
    /// The age of its newest sample, by the server's clock.
    pub(crate) age: Option<Duration>,
}

/// The probes that ask about these texts: each with the places of the texts that it asks about.
pub(crate) fn probes(texts: &[String]) -> Vec<(String, std::ops::Range<usize>)> {
    let mut probes: Vec<(String, std::ops::Range<usize>)> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let part = part(index, text);
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

fn part(index: usize, text: &str) -> String {
    let mut part = String::with_capacity(2 * text.len() + 160);
    for (kind, value) in
        [("n", format!("count({text})")), ("age", format!("time() - max(timestamp({text}))"))]
    {
        let separator = if part.is_empty() { "" } else { " or " };
        let _ = write!(
            part,
            r#"{separator}label_replace(label_replace({value}, "i", "{index}", "", ""), "k", "{kind}", "", "")"#
        );
    }
    part
}

/// Reads the answer to a probe about the texts at these places. What it does not mention matches nothing.
pub(crate) fn read(
    body: &[u8],
    places: std::ops::Range<usize>,
) -> Result<Vec<(usize, Heard)>, String> {
    let mut heard: Vec<(usize, Heard)> = places.map(|place| (place, Heard::default())).collect();
    let first = heard.first().map_or(0, |(place, _)| *place);
    for (labels, value) in answer::samples(body)? {
        let place = labels.get("i").and_then(|place| place.parse::<usize>().ok());
        let slot = place.and_then(|place| heard.get_mut(place.checked_sub(first)?));
        let (Some((_, heard)), Some(kind)) = (slot, labels.get("k")) else {
            return Err("the answer to a probe is not about what was asked".to_owned());
        };
        match kind.as_str() {
            "n" => heard.series = series(value),
            "age" => heard.age = Duration::try_from_secs_f64(value.max(0.0)).ok(),
            _ => return Err("the answer to a probe is not about what was asked".to_owned()),
        }
    }
    Ok(heard)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, and a count that is no number counts nothing"
)]
fn series(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(samples: &[(usize, &str, &str)]) -> String {
        let samples = samples.iter().map(|(place, kind, value)| {
            format!(r#"{{"metric":{{"i":"{place}","k":"{kind}"}},"value":[1.5,"{value}"]}}"#)
        });
        let samples = samples.collect::<Vec<_>>().join(",");
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#)
    }

    #[test]
    fn what_an_answer_does_not_mention_matches_nothing() {
        let body = vector(&[(1, "n", "2"), (1, "age", "3.5")]);
        let heard = read(body.as_bytes(), 0..3).unwrap();
        let expected = Heard { series: 2, age: Some(Duration::from_millis(3500)) };
        assert_eq!(heard, [(0, Heard::default()), (1, expected), (2, Heard::default())]);
    }

    #[test]
    fn a_sample_from_a_clock_ahead_is_new() {
        let heard = read(vector(&[(0, "n", "1"), (0, "age", "-2")]).as_bytes(), 0..1).unwrap();
        assert_eq!(heard[0].1.age, Some(Duration::ZERO));
    }

    #[test]
    fn an_answer_about_something_else_is_no_answer() {
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
    fn a_long_list_is_asked_in_parts_that_cover_it() {
        let texts: Vec<String> =
            (0..40).map(|n| format!("up{{a=\"{n}{}\"}}", "x".repeat(400))).collect();
        let probes = probes(&texts);
        assert!(probes.len() > 1 && probes.iter().all(|(text, _)| text.len() <= PROBE_BYTES_MAX));
        let places: Vec<usize> = probes.into_iter().flat_map(|(_, places)| places).collect();
        assert_eq!(places, (0..40).collect::<Vec<_>>());
    }
}
