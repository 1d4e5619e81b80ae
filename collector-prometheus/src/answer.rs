//! Reads the JSON of `/api/v1/query`, row by row, without building a tree of it.
//!
//! The text is hostile: nesting, sizes and types are bounded here, and a label that nobody reads is
//! skipped where it stands. What is no number becomes NaN, which no field takes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Rows of one answer at most: twenty times the pods that a query is made for. A row that is kept
/// takes ten times the memory of its text.
pub(crate) const ROWS_MAX: usize = 50_000;

/// The labels that queries group by.
#[derive(Default, Debug)]
pub(crate) struct Labels<'a> {
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) namespace: Option<Cow<'a, str>>,
    pub(crate) model_name: Option<Cow<'a, str>>,
    pod: Option<Cow<'a, str>>,
    pod_name: Option<Cow<'a, str>>,
    pub(crate) engine: Option<Cow<'a, str>>,
    pub(crate) num_gpu_blocks: Option<Cow<'a, str>>,
    pub(crate) block_size: Option<Cow<'a, str>>,
    pub(crate) what: Option<Cow<'a, str>>,
    /// There were others, whether or not they matter.
    others: bool,
}

impl Labels<'_> {
    /// The pod, under whichever label; an empty label is an absent one.
    pub(crate) fn pod(&self) -> Option<&str> {
        [&self.pod, &self.pod_name]
            .into_iter()
            .flatten()
            .map(AsRef::as_ref)
            .find(|pod| !pod.is_empty())
    }

    /// Whether the row has no label at all.
    fn is_empty(&self) -> bool {
        let Self {
            name,
            namespace,
            model_name,
            pod,
            pod_name,
            engine,
            num_gpu_blocks,
            block_size,
            what,
            others,
        } = self;
        !others
            && [
                name,
                namespace,
                model_name,
                pod,
                pod_name,
                engine,
                num_gpu_blocks,
                block_size,
                what,
            ]
            .into_iter()
            .all(Option::is_none)
    }
}

/// One sample of an instant vector.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) labels: Labels<'a>,
    /// The evaluation time, in seconds of the server's clock; NaN when it was not given.
    pub(crate) time: f64,
    /// NaN when it was not a number.
    pub(crate) value: f64,
}

impl Row<'_> {
    /// The value of a row that is a bare number: no label says of what.
    pub(crate) fn scalar(&self) -> Option<f64> {
        self.labels.is_empty().then_some(self.value)
    }
}

/// What was said besides the rows.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    /// Why rows may be absent: the server's warnings, or that it calls its answer partial.
    pub(crate) incomplete: Option<String>,
}

/// An answer that is none.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("the answer is empty")]
    Empty,
    #[error("not JSON: it looks like an HTML page; is this a login page?")]
    Html,
    #[error("not JSON of a PromQL server: {0}")]
    Json(String),
    #[error("the result is a {0}, not a vector")]
    NoVector(String),
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
    on_row: &mut dyn FnMut(Row<'_>),
) -> Result<Notice, Unreadable> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(Unreadable::Empty),
        Some(b'<') => return Err(Unreadable::Html),
        Some(_) => {}
    }
    let mut rows = Rows { on_row, left: ROWS_MAX, overflow: false };
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = DocumentSeed(&mut rows)
        .deserialize(&mut json)
        .and_then(|document| json.end().map(|()| document));
    let overflow = rows.overflow;
    let document = read.map_err(|error| {
        if overflow {
            Unreadable::TooManyRows
        } else {
            Unreadable::Json(collector_transport::quote(&error.to_string()))
        }
    })?;
    document.check(expect)
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
    error_type: FirstText,
    error: FirstText,
    warning: FirstText,
    partial: bool,
    data: bool,
    result_type: Option<String>,
    result: bool,
}

impl Document {
    fn check(self, expect: Expect) -> Result<Notice, Unreadable> {
        match self.status.as_deref() {
            Some("success") => {}
            Some("error") => {
                return Err(Unreadable::Refused {
                    kind: collector_transport::quote(&self.error_type.0.unwrap_or_default()),
                    text: collector_transport::quote(&self.error.0.unwrap_or_default()),
                });
            }
            _ => return Err(Unreadable::Lacks("status")),
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
        if !self.result {
            return Err(Unreadable::Lacks("result"));
        }
        let incomplete = match self.warning {
            FirstText(Some(warning)) => Some(collector_transport::quote(&warning)),
            FirstText(None) => {
                self.partial.then(|| "the server calls its answer partial".to_owned())
            }
        };
        Ok(Notice { incomplete })
    }
}

struct Rows<'f> {
    on_row: &'f mut dyn FnMut(Row<'_>),
    left: usize,
    overflow: bool,
}

impl Rows<'_> {
    fn push<E: de::Error>(&mut self, row: Row<'_>) -> Result<(), E> {
        if self.left == 0 {
            self.overflow = true;
            return Err(E::custom("too many rows"));
        }
        self.left -= 1;
        (self.on_row)(row);
        Ok(())
    }
}

struct DocumentSeed<'r, 'f>(&'r mut Rows<'f>);

impl<'de> DeserializeSeed<'de> for DocumentSeed<'_, '_> {
    type Value = Document;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Document, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DocumentSeed<'_, '_> {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "status" => document.status = Some(map.next_value()?),
                "errorType" => document.error_type = map.next_value()?,
                "error" => document.error = map.next_value()?,
                "warnings" => document.warning = map.next_value()?,
                "isPartial" => document.partial = map.next_value()?,
                "data" => {
                    document.data =
                        map.next_value_seed(DataSeed { document: &mut document, rows: self.0 })?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(document)
    }
}

/// `data`: an object, or null; says which.
struct DataSeed<'d, 'r, 'f> {
    document: &'d mut Document,
    rows: &'r mut Rows<'f>,
}

impl<'de> DeserializeSeed<'de> for DataSeed<'_, '_, '_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DataSeed<'_, '_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object as data")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "resultType" => self.document.result_type = Some(map.next_value()?),
                "result" => self.document.result = map.next_value_seed(ResultSeed(self.rows))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(true)
    }
}

/// `result`: rows, the two parts of a scalar, or null; false for null.
struct ResultSeed<'r, 'f>(&'r mut Rows<'f>);

impl<'de> DeserializeSeed<'de> for ResultSeed<'_, '_> {
    type Value = bool;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ResultSeed<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of samples as result")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let mut parts = Vec::new();
        while let Some(element) = seq.next_element_seed(ElementSeed(&mut *self.0))? {
            if let Some(number) = element {
                if parts.len() == 2 {
                    return Err(de::Error::custom("a scalar of more than two parts"));
                }
                parts.push(number);
            }
        }
        match parts.as_slice() {
            [] => Ok(true),
            [time, value] => {
                self.0.push(Row { labels: Labels::default(), time: *time, value: *value })?;
                Ok(true)
            }
            _ => Err(de::Error::custom("a scalar of one part")),
        }
    }
}

/// An element of `result`: a row, which is handed on, or a part of a scalar.
struct ElementSeed<'r, 'f>(&'r mut Rows<'f>);

impl<'de> DeserializeSeed<'de> for ElementSeed<'_, '_> {
    type Value = Option<f64>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<f64>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ElementSeed<'_, '_> {
    type Value = Option<f64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sample with its labels")
    }

    fn visit_f64<E>(self, number: f64) -> Result<Option<f64>, E> {
        Ok(Some(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Option<f64>, E> {
        Ok(Some(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Option<f64>, E> {
        Ok(Some(number as f64))
    }

    fn visit_str<E>(self, text: &str) -> Result<Option<f64>, E> {
        Ok(Some(number(text)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<f64>, A::Error> {
        let mut labels = None;
        let mut sample = None;
        while let Some(Text(key)) = map.next_key()? {
            match &*key {
                "metric" => labels = Some(map.next_value::<Labels<'_>>()?),
                "value" => sample = Some(map.next_value::<Sample>()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let labels = labels.ok_or_else(|| de::Error::missing_field("metric"))?;
        let Sample { time, value } = sample.ok_or_else(|| de::Error::missing_field("value"))?;
        self.0.push(Row { labels, time, value })?;
        Ok(None)
    }
}

impl<'de> de::Deserialize<'de> for Labels<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct LabelsVisitor;
        impl<'de> Visitor<'de> for LabelsVisitor {
            type Value = Labels<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels<'de>, A::Error> {
                let mut labels = Labels::default();
                while let Some(Text(key)) = map.next_key()? {
                    let label = match &*key {
                        "__name__" => &mut labels.name,
                        "namespace" => &mut labels.namespace,
                        "model_name" => &mut labels.model_name,
                        "pod" => &mut labels.pod,
                        "pod_name" => &mut labels.pod_name,
                        "engine" => &mut labels.engine,
                        "num_gpu_blocks" => &mut labels.num_gpu_blocks,
                        "block_size" => &mut labels.block_size,
                        "what" => &mut labels.what,
                        _ => {
                            labels.others = true;
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *label = Some(map.next_value::<Text<'de>>()?.0);
                }
                Ok(labels)
            }
        }
        json.deserialize_map(LabelsVisitor)
    }
}

/// A text, borrowed where it stands in the body without an escape.
struct Text<'a>(Cow<'a, str>);

impl<'de> de::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        json.deserialize_str(TextVisitor)
    }
}

/// The text, or the first of a list of texts, or nothing. Of the rest nothing is kept: a list of a
/// million empty texts would take far more memory than its JSON.
#[derive(Default)]
struct FirstText(Option<String>);

impl<'de> de::Deserialize<'de> for FirstText {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct FirstTextVisitor;
        impl<'de> Visitor<'de> for FirstTextVisitor {
            type Value = FirstText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_unit<E>(self) -> Result<FirstText, E> {
                Ok(FirstText(None))
            }

            fn visit_str<E>(self, text: &str) -> Result<FirstText, E> {
                Ok(FirstText(Some(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<FirstText, A::Error> {
                let first = seq.next_element::<Text<'de>>()?;
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstText(first.map(|Text(text)| text.into_owned())))
            }
        }
        json.deserialize_any(FirstTextVisitor)
    }
}

/// `[time, "value"]`, or a bare number.
struct Sample {
    time: f64,
    value: f64,
}

impl<'de> de::Deserialize<'de> for Sample {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct SampleVisitor;
        impl<'de> Visitor<'de> for SampleVisitor {
            type Value = Sample;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time and a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sample, A::Error> {
                let missing = |at| de::Error::invalid_length(at, &"a time and a value");
                let Number(time) = seq.next_element()?.ok_or_else(|| missing(0))?;
                let Number(value) = seq.next_element()?.ok_or_else(|| missing(1))?;
                match seq.next_element::<IgnoredAny>()? {
                    None => Ok(Sample { time, value }),
                    Some(_) => Err(missing(3)),
                }
            }

            fn visit_f64<E>(self, value: f64) -> Result<Sample, E> {
                Ok(Sample { time: f64::NAN, value })
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Sample, E> {
                self.visit_f64(value as f64)
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Sample, E> {
                self.visit_f64(value as f64)
            }
        }
        json.deserialize_any(SampleVisitor)
    }
}

/// A number, or a text that should hold one.
struct Number(f64);

impl<'de> de::Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct NumberVisitor;
        impl Visitor<'_> for NumberVisitor {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_unit<E>(self) -> Result<Number, E> {
                Ok(Number(f64::NAN))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Number, E> {
                Ok(Number(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }

            fn visit_str<E>(self, text: &str) -> Result<Number, E> {
                Ok(Number(number(text)))
            }
        }
        json.deserialize_any(NumberVisitor)
    }
}

/// A sample value as Prometheus writes it; NaN when the text is none.
fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
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
            rows.push((row.labels.pod().unwrap_or("-").to_owned(), row.value));
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
        refused(&vector(r#"[{"metric":{},"values":[[1,"1"]]}]"#), "value");
        refused(&vector(r#"[{"metric":{},"value":[1]}]"#), "a time and a value");
        refused(&vector(r#"[{"metric":{},"value":[1,"1",2]}]"#), "a time and a value");
        for kind in ["scalar", "string", "matrix"] {
            refused(&vector("[]").replace("vector", kind), kind);
        }
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
        assert_eq!(notice(r#""warnings":["a store is down"]"#), Some("a store is down".into()));
        assert!(notice(r#""isPartial":true"#).is_some());
    }

    #[test]
    fn rows_are_bounded_in_number() {
        let row = r#"{"metric":{},"value":[1,"1"]},"#;
        let body = vector(&format!("[{}{}]", row.repeat(ROWS_MAX), row.trim_end_matches(',')));
        assert_eq!(values(&body).unwrap_err(), Unreadable::TooManyRows);
    }
}
