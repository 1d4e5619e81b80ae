// SPDX-License-Identifier: Apache-2.0
//! Answers of a PromQL server: whether they have samples, and adding warnings to them.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Characters of a server's warning that an error repeats.
const WARNING_MAX: usize = 300;

/// A document of the API. Results are kept as the server wrote them.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    status: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    error: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Cow<'a, str>>,
    /// Said by VictoriaMetrics, which has no warnings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_partial: bool,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    infos: Vec<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    result_type: Cow<'a, str>,
    #[serde(borrow)]
    result: &'a RawValue,
}

/// A sample of a vector. The value must be a JSON string: KEDA panics on a number.
#[derive(Deserialize)]
struct Sample<M, T = IgnoredAny> {
    metric: M,
    value: Option<(T, String)>,
    histogram: Option<IgnoredAny>,
}

/// What an answer contains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// A vector without samples.
    NoSamples,
    Samples,
}

/// Returns what the answer to an instant query contains.
///
/// An answer that no client can use, or that some read as 0, is an error: `status: error`, a value that is not a
/// string, or a body that is not a document of the API.
pub(crate) fn content(body: &[u8]) -> Result<Content, String> {
    let document = document(body)?;
    let Some(data) = document.data else { return Err("it has no data".to_owned()) };
    let result = data.result.get();
    match &*data.result_type {
        "vector" => {
            let samples: Vec<Sample<IgnoredAny>> =
                serde_json::from_str(result).map_err(|error| format!("its vector: {error}"))?;
            if let Some(place) = samples
                .iter()
                .position(|sample| sample.value.is_none() && sample.histogram.is_none())
            {
                return Err(format!("sample {} of its vector has no value", place + 1));
            }
            Ok(if samples.is_empty() { Content::NoSamples } else { Content::Samples })
        }
        "scalar" | "string" => serde_json::from_str::<(IgnoredAny, String)>(result)
            .map(|_| Content::Samples)
            .map_err(|error| format!("its value: {error}")),
        // The result of a range selector.
        "matrix" => Ok(if result.trim() == "[]" { Content::NoSamples } else { Content::Samples }),
        other => Err(format!("unknown result type {other:?}")),
    }
}

/// The labels of a sample.
pub(crate) type Labels = HashMap<String, String>;

/// Reads a vector of numbers.
pub(crate) fn samples(body: &[u8]) -> Result<Vec<(Labels, f64)>, String> {
    read(body, |labels, _: IgnoredAny, value| (labels, value))
}

/// Reads a vector of numbers, and when it was evaluated, in Unix seconds. An empty vector does not say, and is an error.
pub(crate) fn samples_at(body: &[u8]) -> Result<(f64, Vec<(Labels, f64)>), String> {
    let mut at = None;
    let samples = read(body, |labels, evaluated_at: f64, value| {
        at = Some(evaluated_at);
        (labels, value)
    })?;
    Ok((at.ok_or("it has no samples")?, samples))
}

fn read<'b, T: Deserialize<'b>, S>(
    body: &'b [u8],
    mut sample: impl FnMut(Labels, T, f64) -> S,
) -> Result<Vec<S>, String> {
    let document = document(body)?;
    let Some(data) = document.data else { return Err("it has no data".to_owned()) };
    let samples: Vec<Sample<Labels, T>> =
        serde_json::from_str(data.result.get()).map_err(|error| error.to_string())?;
    let number = |it: Sample<Labels, T>| {
        let (at, value) = it.value.ok_or("a sample has no value")?;
        let value = value.parse().map_err(|_| format!("{value:?} is not a number"))?;
        Ok(sample(it.metric, at, value))
    };
    samples.into_iter().map(number).collect()
}

/// Returns whether the server warns of its answer: samples may be missing.
pub(crate) fn has_warnings(body: &[u8]) -> bool {
    document(body).is_ok_and(|document| document.is_partial || !document.warnings.is_empty())
}

/// Returns why samples may be missing from an answer: the server's first warning that says so, or that it marks its
/// answer as partial.
pub(crate) fn incomplete(body: &[u8]) -> Option<String> {
    let document = document(body).ok()?;
    // Those of the query language are about how a query is written.
    let is_advice = |warning: &str| {
        ["PromQL info:", "PromQL warning:"].iter().any(|advice| warning.starts_with(advice))
            || warning.ends_with("annotations omitted")
            // Of Thanos before it stopped to say so: no store has the labels, and so no sample.
            || warning == "No StoreAPIs matched for this query"
    };
    let warning = document.warnings.iter().find(|warning| !is_advice(warning));
    let partial = || document.is_partial.then(|| "it says so itself".to_owned());
    warning.map(|warning| warning.chars().take(WARNING_MAX).collect()).or_else(partial)
}

/// Returns an answer with these warnings added.
pub(crate) fn with_warnings(body: &[u8], warnings: &[String]) -> Result<Vec<u8>, String> {
    let mut document = document(body)?;
    document.warnings.extend(warnings.iter().map(|warning| Cow::Borrowed(warning.as_str())));
    serde_json::to_vec(&document).map_err(|error| error.to_string())
}

/// Returns an answer of one sample without labels.
pub(crate) fn of_value(at: f64, value: f64, warnings: &[String]) -> Vec<u8> {
    let result = serde_json::json!([{ "metric": {}, "value": [at, shown(value)] }]);
    let data = serde_json::json!({ "resultType": "vector", "result": result });
    let mut document = serde_json::json!({ "status": "success", "data": data });
    if !warnings.is_empty() {
        document["warnings"] = warnings.into();
    }
    document.to_string().into_bytes()
}

/// Returns an answer of a vector.
pub(crate) fn of_vector<L: Serialize>(at: f64, samples: &[(L, f64)]) -> Result<Vec<u8>, String> {
    #[derive(Serialize)]
    struct Shown<'a, L> {
        metric: &'a L,
        value: (f64, String),
    }
    let samples = samples.iter();
    let samples: Vec<Shown<'_, L>> =
        samples.map(|(metric, value)| Shown { metric, value: (at, shown(*value)) }).collect();
    let result = serde_json::value::to_raw_value(&samples).map_err(|error| error.to_string())?;
    of_result("vector", &result)
}

/// Returns an answer of a number.
pub(crate) fn of_scalar(at: f64, value: f64) -> Result<Vec<u8>, String> {
    let result = serde_json::value::to_raw_value(&(at, shown(value)));
    of_result("scalar", &result.map_err(|error| error.to_string())?)
}

fn of_result(result_type: &str, result: &RawValue) -> Result<Vec<u8>, String> {
    let document = Document {
        status: Cow::Borrowed("success"),
        data: Some(Data { result_type: Cow::Borrowed(result_type), result }),
        error: None,
        warnings: Vec::new(),
        is_partial: false,
        infos: Vec::new(),
    };
    serde_json::to_vec(&document).map_err(|error| error.to_string())
}

/// Returns whether a body is a document of the API, with any status.
pub(crate) fn is_document(body: &[u8]) -> bool {
    serde_json::from_slice::<Document<'_>>(body).is_ok()
}

/// Returns the document of an error.
pub(crate) fn of_error(error_type: &str, error: &str) -> Vec<u8> {
    let document =
        serde_json::json!({ "status": "error", "errorType": error_type, "error": error });
    document.to_string().into_bytes()
}

fn document(body: &[u8]) -> Result<Document<'_>, String> {
    let document: Document<'_> = serde_json::from_slice(body)
        .map_err(|error| format!("not a document of the PromQL API: {error}"))?;
    if document.status == "success" {
        Ok(document)
    } else {
        Err(document.error.map_or_else(|| "the query failed".to_owned(), Cow::into_owned))
    }
}

/// Formats a value as a PromQL server does.
fn shown(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        // Negative zero is written as 0.
        (value + 0.0).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector(result: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}"#)
    }

    #[test]
    fn an_answer_has_samples_or_not() {
        assert_eq!(content(vector("[]").as_bytes()), Ok(Content::NoSamples));
        assert_eq!(
            content(vector(r#"[{"metric":{},"value":[1,"7"]}]"#).as_bytes()),
            Ok(Content::Samples)
        );
        let histogram = r#"[{"metric":{},"histogram":[1,{"count":"1"}]}]"#;
        assert_eq!(content(vector(histogram).as_bytes()), Ok(Content::Samples));
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#;
        assert_eq!(content(scalar.as_bytes()), Ok(Content::Samples));
    }

    #[test]
    fn an_answer_that_clients_misread_is_an_error() {
        for (body, why) in [
            (
                r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#.to_owned(),
                "timed out",
            ),
            (r#"{"status":"success"}"#.to_owned(), "no data"),
            (vector(r#"[{"metric":{},"value":[1,7]}]"#), "vector"),
            (vector(r#"[{"metric":{},"value":[1,null]}]"#), "vector"),
            (vector(r#"[{"metric":{}}]"#), "no value"),
            (vector("null"), "vector"),
            ("<html>".to_owned(), "not a document"),
            (String::new(), "not a document"),
        ] {
            let error = content(body.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{body}: {error}");
        }
    }

    #[test]
    fn warnings_are_added_and_values_stay_as_they_were_written() {
        let body = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"\u00e9"},"value":[1.50,"7.0"]}]},"warnings":["theirs"]}"#;
        let both = with_warnings(body.as_bytes(), &["ours".to_owned()]).unwrap();
        let both = String::from_utf8(both).unwrap();
        assert!(both.contains(r#"[{"metric":{"a":"\u00e9"},"value":[1.50,"7.0"]}]"#), "{both}");
        assert!(both.ends_with(r#""warnings":["theirs","ours"]}"#), "{both}");
    }

    #[test]
    fn a_value_is_written_as_text() {
        let body = String::from_utf8(of_value(2.0, -0.0, &[])).unwrap();
        assert!(body.contains(r#""value":[2.0,"0"]"#), "{body}");
        assert_eq!(
            (shown(f64::INFINITY), shown(f64::NAN), shown(0.5)),
            ("+Inf".into(), "NaN".into(), "0.5".into())
        );
        assert_eq!(content(body.as_bytes()), Ok(Content::Samples));
    }
}
