// SPDX-License-Identifier: Apache-2.0
//! An answer is read as a tree of its JSON would be.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::LABEL_BYTES_MAX;
use crate::answer::decode;

/// The contents of a row: its labels by name, and the bits of time and value.
type Read = (Vec<(String, String)>, u64, u64);

fn read(body: &[u8]) -> Option<Vec<Read>> {
    let mut rows = Vec::new();
    let decoded = decode(body, &str::to_owned, &mut |row| {
        let owned = |(key, text): (&str, &str)| (key.to_owned(), text.to_owned());
        let mut labels: Vec<_> = row.labels.iter().map(owned).collect();
        labels.sort();
        rows.push((labels, row.time.to_bits(), row.value.to_bits()));
    });
    decoded.ok().map(|_| rows)
}

/// Reads the same with serde_json's tree.
fn expected(body: &[u8]) -> Option<Vec<Read>> {
    let tree: Value = serde_json::from_slice(body).ok()?;
    // A number instead of rows is not an answer.
    tree["data"]["result"].as_array()?.iter().map(row).collect()
}

fn row(row: &Value) -> Option<Read> {
    let mut labels = Vec::new();
    for (key, text) in row["metric"].as_object()? {
        match text {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => labels.push((key.clone(), beginning(key, text))),
            Value::Array(_) | Value::Object(_) => {}
            _ => return None,
        }
    }
    let (time, value) = match row.get("value")? {
        Value::Array(parts) => match &parts[..] {
            [time, value] => (bits(time)?, bits(value)?),
            _ => return None,
        },
        Value::Number(number) => (f64::NAN.to_bits(), number.as_f64()?.to_bits()),
        _ => return None,
    };
    Some((labels, time, value))
}

/// Shortens a label, character by character.
fn beginning(key: &str, text: &str) -> String {
    if matches!(key, "namespace" | "model_name") {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if kept.len() + c.len_utf8() > LABEL_BYTES_MAX {
            return kept + "…";
        }
        kept.push(c);
    }
    kept
}

fn bits(part: &Value) -> Option<u64> {
    let number = match part {
        Value::Null => f64::NAN,
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().unwrap_or(f64::NAN),
        _ => return None,
    };
    Some(number.to_bits())
}

fn a_text() -> impl Strategy<Value = String> {
    let long = [4096, 4097].map(|bytes| "x".repeat(bytes));
    let odd = ["", "0.25", "NaN", "+Inf", "\"\\é"].map(str::to_owned);
    let wide = format!("y{}", "é".repeat(3000));
    let known = [&odd[..], &long[..], &[wide]].concat();
    prop_oneof![any::<String>(), prop::sample::select(known)]
}

fn a_number() -> impl Strategy<Value = Value> {
    let number = prop_oneof![any::<f64>(), any::<i32>().prop_map(f64::from)];
    let whole = any::<i64>().prop_map(Value::from);
    prop_oneof![number.prop_map(Value::from), any::<u64>().prop_map(Value::from), whole]
}

fn a_value() -> impl Strategy<Value = Value> {
    let truth = any::<bool>().prop_map(Value::from);
    let text = a_text().prop_map(Value::from);
    let leaf = prop_oneof![Just(Value::Null), truth, a_number(), text];
    leaf.prop_recursive(4, 20, 4, |inner| {
        let object = prop::collection::hash_map(any::<String>(), inner.clone(), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// The text of a row, sometimes with unusual parts.
fn a_row() -> impl Strategy<Value = String> {
    let names = ["namespace", "model_name", "pod", "pod_name"].map(str::to_owned).to_vec();
    let name = prop_oneof![4 => prop::sample::select(names), 1 => any::<String>()];
    let text = prop_oneof![60 => a_text().prop_map(Value::from), 1 => a_value()];
    let labels = prop::collection::hash_map(name, text, 0..6)
        .prop_map(|labels| Value::Object(labels.into_iter().collect::<Map<_, _>>()));
    let labels = prop_oneof![40 => labels, 1 => a_value()];
    let part = || prop_oneof![a_number(), Just(Value::Null), a_text().prop_map(Value::from)];
    let parts = prop::collection::vec(part(), 2).prop_map(Value::from);
    let sample = prop_oneof![40 => parts, 5 => a_number(), 1 => a_value()];
    (labels, sample, a_value(), 0..4_u8).prop_map(|(labels, sample, more, form)| match form {
        0 => format!(r#"{{"metric":{labels},"value":{sample}}}"#),
        1 => format!(r#"{{ "value" : {sample:#} ,{:4}"metric" : {labels:#} }}"#, '\n'),
        2 => format!(r#"{{"more":{more},"metric":{labels},"value":{sample}}}"#),
        _ => format!(r#"{{"m\u0065tric":{{"gone":"x"}},"metric":{labels},"value":{sample}}}"#),
    })
}

proptest! {
    #[test]
    fn a_document_is_read_as_a_tree_of_it_would_be(
        rows in prop::collection::vec(a_row(), 0..8),
        more in a_value(),
        mark in any::<bool>(),
        spoiled in prop::option::of((
            any::<prop::sample::Index>(),
            prop::sample::select(b"\"\\{}[],:-+.0e1u \n\x01\xff".to_vec()),
            any::<bool>(),
        )),
    ) {
        let mark = if mark { "\u{feff}" } else { "" };
        let data = format!(r#"{{"resultType":"vector","result":[{}]}}"#, rows.join(","));
        let body = format!(r#"{mark}{{"more":{more},"status":"success","data":{data}}}"#);
        let mut body = body.into_bytes();
        if let Some((at, byte, cut)) = spoiled {
            let at = at.index(body.len());
            if cut { _ = body.remove(at) } else { body[at] = byte }
        }
        let json = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&body);
        let (read, expected) = (read(&body), expected(json));
        // No tree has a number that is too large, and the reader skips those outside of the rows.
        let has_tree = serde_json::from_slice::<Value>(json).is_ok()
            || serde_json::from_slice::<serde::de::IgnoredAny>(json).is_err();
        // The tree is not checked outside of the rows.
        if has_tree && (spoiled.is_none() || read.is_some()) {
            prop_assert_eq!(read, expected, "{}", String::from_utf8_lossy(&body));
        }
    }
}
