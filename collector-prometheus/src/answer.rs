//! Reads the JSON of `/api/v1/query`, row by row, without building a tree of it.
//!
//! The text is hostile: nesting, sizes and types are bounded here, and a label that nobody reads is
//! skipped where it stands. What is no number becomes NaN, which no field takes.

mod samples;

use self::samples::{ROWS_MAX, Rows, Shape};
use crate::json::{Json, Malformed};

pub(crate) use self::samples::{Labels, Row, shortened};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What was said besides the rows.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    /// Why rows may be absent: the server's warnings, or that it calls its answer partial.
    pub(crate) incomplete: Option<String>,
}

/// An answer that is none.
#[derive(PartialEq, Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the answer is empty")]
    Empty,
    #[error("not JSON: it looks like an HTML page; is this a login page?")]
    Html,
    #[error("not JSON of a PromQL server: {0}")]
    Json(#[from] Malformed),
    #[error("the result is a {0}, not a vector")]
    NoVector(String),
    #[error("its rows are native histograms, which have no single value")]
    NativeHistogram,
    #[error("it has no {0}")]
    Lacks(&'static str),
    #[error("it has more than {ROWS_MAX} rows")]
    TooManyRows,
    /// `status: error`, with the server's words.
    #[error("the server says {kind}: {text}")]
    Refused { kind: String, text: String },
}

/// The kinds of result that a query may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expect {
    Vector,
    /// A number: Prometheus says `scalar`, VictoriaMetrics a vector of one row without labels.
    Number,
}

/// Reads an answer and hands each row to `on_row` as it comes.
pub(crate) fn decode(
    body: &[u8],
    expect: Expect,
    on_row: &mut dyn FnMut(&Row<'_>),
) -> Result<Notice, Unreadable> {
    // Some servers and proxies put a byte order mark before what they send.
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(Unreadable::Empty),
        Some(b'<') => return Err(Unreadable::Html),
        Some(_) => {}
    }
    let mut json = Json::new(body)?;
    let document = document(&mut json, &mut Rows::new(on_row))?;
    json.end()?;
    document.check(expect)
}

/// Bytes of an answer of raw samples: an hour of one series that is scraped each second has less.
const RAW_BYTES_MAX: usize = 1 << 18;

/// The times of the raw samples of one series, in seconds; empty where there are none to read.
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

/// The server's words in an error document; `None` when it is not one.
pub(crate) fn error_of(body: &[u8]) -> Option<(String, String)> {
    match decode(body, Expect::Vector, &mut |_| {}) {
        Err(Unreadable::Refused { kind, text }) => Some((kind, text)),
        _ => None,
    }
}

/// The parts of an answer besides its rows.
#[derive(Default)]
struct Document {
    status: Option<String>,
    error_type: Option<String>,
    error: Option<String>,
    warning: Option<String>,
    partial: bool,
    data: bool,
    /// What is wrong with `data`. In a document that says `status: error` nothing is: it needs no data.
    spoiled: Option<Malformed>,
    result_type: Option<String>,
    result: Option<Shape>,
}

impl Document {
    fn check(self, expect: Expect) -> Result<Notice, Unreadable> {
        match self.status.as_deref() {
            Some("success") => {}
            Some("error") => {
                return Err(Unreadable::Refused {
                    kind: collector_transport::quote(&self.error_type.unwrap_or_default()),
                    text: collector_transport::quote(&self.error.unwrap_or_default()),
                });
            }
            _ => return Err(Unreadable::Lacks("status")),
        }
        if let Some(malformed) = self.spoiled {
            return Err(malformed.into());
        }
        if !self.data {
            return Err(Unreadable::Lacks("data"));
        }
        match (self.result_type.as_deref(), expect) {
            (Some("vector"), _) | (Some("scalar"), Expect::Number) => {}
            (Some(other), _) => {
                return Err(Unreadable::NoVector(collector_transport::quote(other)));
            }
            (None, _) => return Err(Unreadable::Lacks("resultType")),
        }
        match (self.result, expect) {
            (None, _) => return Err(Unreadable::Lacks("result")),
            // No row of a model: taken for an answer, it would be an empty fleet.
            (Some(Shape::Scalar), Expect::Vector) => {
                return Err(Unreadable::NoVector("time and a value without labels".to_owned()));
            }
            _ => {}
        }
        let incomplete = match self.warning {
            Some(warning) => Some(collector_transport::quote(&warning)),
            None => self.partial.then(|| "the server calls its answer partial".to_owned()),
        };
        Ok(Notice { incomplete })
    }
}

fn document<'a>(json: &mut Json<'a>, rows: &mut Rows<'a, '_>) -> Result<Document, Unreadable> {
    let mut document = Document::default();
    json.enter_object("an object")?;
    while let Some(key) = json.next_key()? {
        match &*key {
            "status" => document.status = Some(json.text("a text as status")?.into_owned()),
            "errorType" => document.error_type = first_text(json)?,
            "error" => document.error = first_text(json)?,
            "warnings" => document.warning = first_text_of(json, loses_rows)?,
            "isPartial" => document.partial = !json.null()? && json.truth("true or false")?,
            "data" => {
                document.data = !json.null()?;
                if json.peek() == Some(b'{') && document.data {
                    data(json, &mut document, rows)?;
                } else if document.data {
                    document.spoiled = Some(json.expected("an object as data"));
                    json.skip()?;
                }
            }
            _ => json.skip()?,
        }
    }
    Ok(document)
}

fn data<'a>(
    json: &mut Json<'a>,
    document: &mut Document,
    rows: &mut Rows<'a, '_>,
) -> Result<(), Unreadable> {
    json.enter_object("an object as data")?;
    while let Some(key) = json.next_key()? {
        match &*key {
            "resultType" => {
                document.result_type = Some(json.text("a text as resultType")?.into_owned());
            }
            "result" => {
                document.result = None;
                if json.peek() == Some(b'[') {
                    document.result = Some(rows.take_all(json)?);
                } else if !json.null()? {
                    document.spoiled = Some(json.expected("a list of samples as result"));
                    json.skip()?;
                }
            }
            _ => json.skip()?,
        }
    }
    Ok(())
}

/// Whether rows may be absent because of what a warning says. Those of the query language itself are
/// about how a query is written; the rows are all there.
fn loses_rows(warning: &str) -> bool {
    !["PromQL info:", "PromQL warning:"].iter().any(|start| warning.starts_with(start))
}

/// The text, or the first of a list of texts, or nothing.
fn first_text(json: &mut Json<'_>) -> Result<Option<String>, Malformed> {
    first_text_of(json, |_| true)
}

/// The text, or the first of a list of texts that counts, or nothing. Of the rest nothing is kept: a
/// list of a million empty texts would take far more memory than its JSON.
fn first_text_of(
    json: &mut Json<'_>,
    counts: fn(&str) -> bool,
) -> Result<Option<String>, Malformed> {
    let expected = "a text or a list of texts";
    if json.null()? {
        return Ok(None);
    }
    if json.peek() == Some(b'"') {
        let text = json.text(expected)?;
        return Ok(counts(&text).then(|| text.into_owned()));
    }
    let mut first = None;
    json.enter_list(expected)?;
    while json.next_element()? {
        if first.is_some() {
            json.skip()?;
            continue;
        }
        let text = json.text(expected)?;
        first = counts(&text).then(|| text.into_owned());
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(result: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}"#)
    }

    fn values(body: &str) -> Result<Vec<(String, f64)>, Unreadable> {
        let mut rows = Vec::new();
        decode(body.as_bytes(), Expect::Vector, &mut |row| {
            let pod = row.labels.get("pod").or_else(|| row.labels.get("pod_name"));
            rows.push((pod.unwrap_or("-").to_owned(), row.value));
        })?;
        Ok(rows)
    }

    #[track_caller]
    fn refused(body: &str, part: &str) {
        let text = values(body).unwrap_err().to_string();
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }

    #[test]
    fn rows_are_read_whatever_else_stands_beside_them() {
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
    fn what_is_no_number_is_nan_and_the_other_rows_stay() {
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
    fn what_is_no_vector_is_refused() {
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
        let range = r#"[{"metric":{},"histograms":[[1,{"count":"3"}]]}]"#;
        refused(&vector(range), "matrix");
    }

    #[test]
    fn a_number_is_no_fleet() {
        let result = r#"[1583786142,"1"]"#;
        refused(&vector(result), "the result is a time and a value without labels, not a vector");
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
        refused(r#"{"status":"success","data":"text"}"#, "an object as data at line 1 column 28");
        refused(r#"{"data":[],"status":"success"}"#, "an object as data at line 1 column 9");
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
            "execution: a\u{fffd}b",
        );
        assert_eq!(
            error_of(br#"{"status":"error","errorType":"t","error":"e","data":{"resultType":"matrix","result":[]}}"#),
            Some(("t".into(), "e".into()))
        );
        assert_eq!(error_of(b"bad gateway"), None);
    }

    #[test]
    fn deep_nesting_neither_overflows_nor_is_read() {
        let deep = "[".repeat(500_000);
        assert!(values(&deep).is_err());
        assert!(values(&vector(&deep)).is_err());
        assert!(values(&format!(r#"{{"x":{deep}"#)).is_err());
        assert!(values(&vector(&format!(r#"[{{"metric":{{"x":{deep}"#))).is_err());
    }

    #[test]
    fn a_number_is_a_scalar_or_a_row_without_labels() {
        let number = |body: &str| {
            let mut value = None;
            decode(body.as_bytes(), Expect::Number, &mut |row| value = row.scalar()).unwrap();
            value
        };
        let scalar = vector(r#"[1732.5,"1732.5"]"#).replace("vector", "scalar");
        assert_eq!(number(&scalar), Some(1732.5));
        assert_eq!(number(&vector(r#"[{"metric":{},"value":[1,"2"]}]"#)), Some(2.0));
        assert_eq!(number(&vector(r#"[{"metric":{"a":"b"},"value":[1,"2"]}]"#)), None);
    }

    #[test]
    fn warnings_and_partial_answers_are_told() {
        let notice = |extra: &str| {
            let body = vector("[]").replacen('{', &format!("{{{extra},"), 1);
            decode(body.as_bytes(), Expect::Vector, &mut |_| {}).unwrap().incomplete
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
            decode(body.as_bytes(), Expect::Vector, &mut |_| {}).unwrap().incomplete
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
