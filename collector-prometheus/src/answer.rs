// SPDX-License-Identifier: Apache-2.0
//! Reads the JSON of `/api/v1/query`, row by row, without building a tree of it.
//!
//! The text is hostile: sizes and types are bounded here, and what is not used is skipped. A value that is
//! not a number becomes NaN, which no field accepts.

mod samples;

use collector_transport::quote;
use serde::Deserialize;

use self::samples::{Document, ROWS_MAX, Reader, Text};

pub(crate) use self::samples::{Row, RowLabels, shortened};

/// A response body that is not a usable answer.
#[derive(PartialEq, Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the answer is empty")]
    Empty,
    #[error("not JSON: it looks like an HTML page; is this a login page?")]
    Html,
    #[error("not JSON of a PromQL server: {0}")]
    Json(String),
    #[error("the result is a {0}, not a vector")]
    NoVector(String),
    #[error("the rows are native histograms, which have no single value")]
    NativeHistogram,
    #[error("the answer has no {0}")]
    Lacks(&'static str),
    #[error("the answer has more than {ROWS_MAX} rows")]
    TooManyRows,
    /// `status: error`, with the server's message.
    #[error("the server says {kind}: {text}")]
    Refused { kind: String, text: String },
}

/// Removes secrets from what a server says. It must see the whole text: a shortened one may end within a secret,
/// and JSON may write it with escapes.
pub(crate) type Redact<'a> = &'a dyn Fn(&str) -> String;

/// Reads an answer and passes each row to `on_row` as it comes. Returns why rows may be absent: the server's
/// first warning, or that it marks its answer as partial.
pub(crate) fn decode(
    body: &[u8],
    redact: Redact<'_>,
    on_row: &mut dyn FnMut(&Row<'_>),
) -> Result<Option<String>, Unreadable> {
    let body = without_mark(body);
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(Unreadable::Empty),
        Some(b'<') => return Err(Unreadable::Html),
        Some(_) => {}
    }
    let text = str::from_utf8(body).map_err(|error| Unreadable::Json(error.to_string()))?;
    let mut reader = Reader::new(on_row);
    let read = reader.read(text);
    let mut document = reader.document;
    if !document.succeeded()
        && let Some((kind, text)) = error_in(text, redact)
    {
        return Err(Unreadable::Refused { kind, text });
    }
    document.check_type(redact)?;
    if let Some(refused) = document.refused.take() {
        return Err(refused);
    }
    read.map_err(|error| malformed(&error))?;
    document.check(redact)
}

/// Removes the byte order mark that some servers and proxies send first.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body)
}

/// Describes a parse error with its position.
fn malformed(error: &serde_json::Error) -> Unreadable {
    let text = error.to_string();
    // The text found at that position is left out: it may be long, or a secret.
    let start = text.rfind(", expected ").map_or(0, |comma| comma + 2);
    Unreadable::Json(text[start..].to_owned())
}

/// Most bytes of raw samples that are read: more than an hour of one series that is scraped each second.
const RAW_BYTES_MAX: usize = 1 << 18;

/// Returns the times of the raw samples of one series, in seconds; empty if there are none.
pub(crate) fn sample_times(body: &[u8]) -> Vec<f64> {
    if body.len() > RAW_BYTES_MAX {
        return Vec::new();
    }
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else {
        return Vec::new();
    };
    let samples = document["data"]["result"][0]["values"].as_array();
    samples.into_iter().flatten().filter_map(|sample| sample[0].as_f64()).collect()
}

/// Returns kind and message of an error document; `None` if it is none.
pub(crate) fn error_of(body: &[u8], redact: Redact<'_>) -> Option<(String, String)> {
    error_in(str::from_utf8(without_mark(body)).ok()?, redact)
}

fn error_in(text: &str, redact: Redact<'_>) -> Option<(String, String)> {
    /// An error document needs no data, so `data` is ignored.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Refusal<'a> {
        #[serde(borrow)]
        status: Text<'a>,
        #[serde(borrow)]
        error_type: Option<Text<'a>>,
        #[serde(borrow)]
        error: Option<Text<'a>>,
    }

    let refusal: Refusal<'_> = serde_json::from_str(text).ok()?;
    let words =
        |text: Option<Text<'_>>| text.map(|text| quote(&redact(&text.0))).unwrap_or_default();
    (refusal.status.0 == "error").then(|| (words(refusal.error_type), words(refusal.error)))
}

impl Document<'_> {
    fn succeeded(&self) -> bool {
        matches!(&self.status, Some(Text(status)) if status == "success")
    }

    /// Names an unexpected result type, whatever its result looks like.
    fn check_type(&self, redact: Redact<'_>) -> Result<(), Unreadable> {
        match &self.result_type {
            Some(Text(other)) if other != "vector" => {
                Err(Unreadable::NoVector(quote(&redact(other))))
            }
            _ => Ok(()),
        }
    }

    fn check(self, redact: Redact<'_>) -> Result<Option<String>, Unreadable> {
        for (has, what) in [
            (self.succeeded(), "status"),
            (self.data, "data"),
            (self.result_type.is_some(), "resultType"),
            (self.result, "result"),
        ] {
            if !has {
                return Err(Unreadable::Lacks(what));
            }
        }
        let partial = || self.partial.then(|| "the server marks its answer as partial".to_owned());
        Ok(self.warning.map(|warning| quote(&redact(&warning))).or_else(partial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(result: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}"#)
    }

    fn values(body: &str) -> Result<Vec<(String, f64)>, Unreadable> {
        let mut rows = Vec::new();
        decode(body.as_bytes(), &str::to_owned, &mut |row| {
            let pod = row.labels.get("pod").or_else(|| row.labels.get("pod_name"));
            rows.push((pod.unwrap_or("-").to_owned(), row.value));
        })?;
        Ok(rows)
    }

    fn error_of(body: &[u8]) -> Option<(String, String)> {
        super::error_of(body, &str::to_owned)
    }

    #[track_caller]
    fn refused(body: &str, part: &str) {
        let text = values(body).unwrap_err().to_string();
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }

    #[test]
    fn rows_are_read_among_unknown_fields() {
        let body = r#" {"infos":["x"],"stats":{"a":[[1]]},"data":{"extra":null,"result":[
            {"metric":{"pod":"m-\"0\u00e9","zone":"a"},"value":[1.5,"0.25"],"more":{}},
            {"metric":{"pod_name":"m-1"},"value":[1,7]},
            {"metric":{"pod":"","pod_name":"m-2"},"value":3}
        ],"resultType":"vector"},"status":"success"} "#;
        assert_eq!(
            values(body).unwrap(),
            [("m-\"0é".to_owned(), 0.25), ("m-1".to_owned(), 7.0), ("m-2".to_owned(), 3.0)]
        );
    }

    #[test]
    fn a_value_that_is_not_a_number_becomes_nan() {
        let body = vector(
            r#"[{"metric":{},"value":[1,"NaN"]},{"metric":{},"value":[1,"+Inf"]},
                {"metric":{},"value":[1,"-Inf"]},{"metric":{},"value":[1,"text"]},
                {"metric":{},"value":[1,null]},{"metric":{},"value":[1,"1e308"]}]"#,
        );
        let values: Vec<f64> = values(&body).unwrap().into_iter().map(|row| row.1).collect();
        assert!(values[0].is_nan() && values[3].is_nan() && values[4].is_nan());
        assert!(values[1].is_infinite() && values[2].is_infinite());
        assert!(values[5].is_finite());
    }

    #[test]
    fn anything_but_a_vector_is_refused() {
        refused("", "empty");
        refused(" \n", "empty");
        refused("<!doctype html><title>Sign in", "HTML");
        refused("OK", "not JSON");
        refused("[]", "not JSON");
        refused(&vector("[]")[..40], "not JSON");
        refused(&(vector("[]") + "x"), "trailing");
        refused(&(vector("[]") + &vector("[]")), "trailing");
        refused(r#"{"status":"success"}"#, "data");
        refused(r#"{"status":"success","data":null}"#, "data");
        refused(r#"{"data":{"resultType":"vector","result":[]}}"#, "status");
        refused(r#"{"status":"success","data":{"resultType":"vector"}}"#, "no result");
        refused(&vector("null"), "no result");
        refused(&vector("{}"), "list of samples");
        refused(&vector(r#"[{"metric":[],"value":[1,"1"]}]"#), "labels");
        refused(&vector(r#"[{"metric":{"pod":3},"value":[1,"1"]}]"#), "a text");
        refused(&vector(r#"[{"value":[1,"1"]}]"#), "metric");
        refused(&vector(r#"[{"metric":{},"value":null}]"#), "a time and a value");
        refused(&vector(r#"[{"metric":{}}]"#), "`value`");
        refused(&vector(r#"[{"metric":{},"value":[1]}]"#), "a time and a value");
        refused(&vector(r#"[{"metric":{},"value":[1,"1",2]}]"#), "a time and a value");
        refused(&vector("[1]"), "a sample with its labels");
        refused(&vector(r#"[1,"1",2]"#), "a sample with its labels");
        for kind in ["scalar", "string", "matrix"] {
            refused(&vector("[]").replace("vector", kind), kind);
        }
    }

    #[test]
    fn a_matrix_and_a_native_histogram_are_named() {
        let matrix = r#"[{"metric":{"pod":"m-0"},"values":[[1,"1"],[2,"1"]]}]"#;
        let type_last =
            format!(r#"{{"status":"success","data":{{"result":{matrix},"resultType":"matrix"}}}}"#);
        for body in [vector(matrix).replace("vector", "matrix"), type_last, vector(matrix)] {
            refused(&body, "the result is a matrix, not a vector");
        }
        let histogram = r#"{"metric":{},"histogram":[1,{"count":"3","sum":"2","buckets":[]}]}"#;
        refused(&vector(&format!("[{histogram}]")), "native histograms");
        refused(&vector(&format!(r#"[{{"metric":{{}},"value":[1,"2"]}},{histogram}]"#)), "native");
        let streams = r#"[{"stream":{"pod":"m-0"},"values":[["1","a line"]]}]"#;
        refused(&vector(streams).replace("vector", "streams"), "streams");
        let range = r#"[{"metric":{},"histograms":[[1,{"count":"3"}]]}]"#;
        refused(&vector(range), "matrix");
    }

    #[test]
    fn a_number_is_no_fleet() {
        let result = r#"[1583786142,"1"]"#;
        refused(&vector(result), "a sample with its labels");
        refused(&vector(result).replace("vector", "scalar"), "scalar");
        refused(&vector(result).replace("vector", "string"), "string");
        assert!(values(&vector("[]")).unwrap().is_empty());
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let body = format!("\u{feff}{}", vector(r#"[{"metric":{"pod":"m-0"},"value":[1,"2"]}]"#));
        assert_eq!(values(&body).unwrap(), [("m-0".to_owned(), 2.0)]);
        let refusal = "\u{feff}{\"status\":\"error\",\"errorType\":\"t\",\"error\":\"e\"}";
        assert_eq!(error_of(refusal.as_bytes()), Some(("t".into(), "e".into())));
        refused(&format!("{}\u{feff}", vector("[]")), "trailing");
        refused("\u{feff}", "empty");
    }

    #[test]
    fn an_error_document_needs_no_data() {
        for data in ["", r#""data":null,"#, r#""data":"","#, r#""data":[],"#, r#""data":{},"#] {
            for data in [data.to_owned(), data.replace("null", r#"{"result":null}"#)] {
                let error = r#""errorType":"t","error":"e""#;
                let first = format!(r#"{{{data}"status":"error",{error}}}"#);
                let last = format!(r#"{{"status":"error",{data}{error}}}"#);
                for body in [first, last] {
                    let expected = Some(("t".into(), "e".into()));
                    assert_eq!(error_of(body.as_bytes()), expected, "{body}");
                }
            }
        }
        refused(r#"{"status":"success","data":"text"}"#, "an object as data at line 1 column 33");
        refused(r#"{"data":[],"status":"success"}"#, "an object as data at line 1 column 10");
    }

    #[test]
    fn a_label_is_kept_up_to_four_kilobytes() {
        let pod = |text: &str| {
            let body = vector(&format!(r#"[{{"metric":{{"pod":"{text}"}},"value":[1,"1"]}}]"#));
            values(&body).unwrap().remove(0).0
        };
        let full = "x".repeat(4096);
        assert_eq!(pod(&full), full);
        assert_eq!(pod(&(full.clone() + "y")), full.clone() + "…");
        let wide = "é".repeat(2049);
        assert_eq!(pod(&format!("x{wide}")), format!("x{}…", "é".repeat(2047)));
    }

    #[test]
    fn an_error_in_an_answer_that_claims_success_is_quoted() {
        refused(
            r#"{"status":"error","errorType":"execution","error":"a\u001bb"}"#,
            "execution: a\\u{1b}b",
        );
        assert_eq!(
            error_of(br#"{"status":"error","errorType":"t","error":"e","data":{"resultType":"matrix","result":[]}}"#),
            Some(("t".into(), "e".into()))
        );
        assert_eq!(error_of(b"bad gateway"), None);
    }

    #[test]
    fn deep_nesting_overflows_nothing() {
        let deep = "[".repeat(500_000);
        assert!(values(&deep).is_err());
        assert!(values(&vector(&deep)).is_err());
        assert!(values(&format!(r#"{{"x":{deep}"#)).is_err());
        assert!(values(&vector(&format!(r#"[{{"metric":{{"x":{deep}"#))).is_err());
        let closed = deep.clone() + &"]".repeat(500_000);
        let row = |row: &str| vector(&format!("[{}]", row.replace("$D", &closed)));
        let label = row(r#"{"metric":{"x":$D},"value":[1,"1"]}"#);
        assert_eq!(values(&label).unwrap(), [("-".to_owned(), 1.0)]);
        for other in [row(r#"{"more":$D}"#), row("$D")] {
            assert!(values(&other).is_err());
            let refusal = other.replace("success", "error");
            assert!(matches!(values(&refusal), Err(Unreadable::Refused { .. })));
        }
        let beside = vector("[]").replacen('{', &format!("{{\"x\":{closed},"), 1);
        assert!(values(&beside).unwrap().is_empty());
    }

    #[test]
    fn an_error_names_the_position_and_not_the_text() {
        let error = |result: &str| values(&vector(result)).unwrap_err().to_string();
        let start = "not JSON of a PromQL server: expected";
        assert_eq!(
            error(r#"[{"metric":"hunter2, expected or not"}]"#),
            format!("{start} an object of labels at line 1 column 96")
        );
        assert_eq!(error("[\n7}"), format!("{start} a sample with its labels at line 2 column 1"));
        let long = format!("[{{\"metric\":{{}},\"value\":\"{}\"}}]", "x".repeat(100_000));
        assert!(error(&long).starts_with(&format!("{start} a time and a value")));
        assert!(error(&long).len() < 100);
    }

    #[test]
    fn warnings_and_partial_answers_are_reported() {
        let notice = |extra: &str| {
            let body = vector("[]").replacen('{', &format!("{{{extra},"), 1);
            decode(body.as_bytes(), &str::to_owned, &mut |_| {}).unwrap()
        };
        assert_eq!(notice(r#""infos":["i"]"#), None);
        assert_eq!(notice(r#""warnings":[]"#), None);
        assert_eq!(notice(r#""warnings":null"#), None);
        assert_eq!(notice(r#""isPartial":false"#), None);
        assert_eq!(notice(r#""isPartial":null"#), None);
        assert_eq!(notice(r#""warnings":["a store is down"]"#), Some("a store is down".into()));
        assert!(notice(r#""isPartial":true"#).is_some());
    }

    #[test]
    fn warnings_of_the_query_language_lose_nothing() {
        let notice = |extra: &str| {
            let body = vector("[]").replacen('{', &format!("{{{extra},"), 1);
            decode(body.as_bytes(), &str::to_owned, &mut |_| {}).unwrap()
        };
        let info = r#""PromQL info: metric might not be a counter""#;
        let warning = r#""PromQL warning: bucket label is missing""#;
        assert_eq!(notice(&format!(r#""warnings":[{info},{warning}]"#)), None);
        assert_eq!(notice(&format!(r#""warnings":{info}"#)), None);
        let store = r#""a store is down""#;
        for warnings in [format!("{info},{store}"), format!("{store},{warning},{info}")] {
            let notice = notice(&format!(r#""warnings":[{warnings}]"#));
            assert_eq!(notice.as_deref(), Some("a store is down"));
        }
        let inside = r#""no PromQL info: here""#;
        assert!(notice(&format!(r#""warnings":[{inside}]"#)).is_some());
    }

    #[test]
    fn rows_are_bounded_in_number() {
        let row = r#"{"metric":{},"value":[1,"1"]},"#;
        let body = vector(&format!("[{}{}]", row.repeat(ROWS_MAX), row.trim_end_matches(',')));
        assert_eq!(values(&body).unwrap_err(), Unreadable::TooManyRows);
    }
}
