// SPDX-License-Identifier: Apache-2.0
//! The server's own words in an answer without a metrics page.

use collector_transport::{Cause, quote};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

/// Bytes of such an answer that are read.
const BODY_BYTES_MAX: usize = 4 << 10;

/// Fields of JSON that hold a sentence in the answers of servers; the first one present is used.
const FIELDS: [&str; 6] = ["error", "message", "detail", "reason", "msg", "errors"];
/// Greatest depth of such fields.
const DEPTH_MAX: usize = 4;

/// Reads the beginning of a body, and returns whether that was all of it.
pub(super) async fn beginning(mut body: Incoming, bytes: &mut Vec<u8>) -> bool {
    while bytes.len() < BODY_BYTES_MAX {
        match body.frame().await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(frame)) => {
                let Some(chunk) = frame.data_ref() else { continue };
                let room = BODY_BYTES_MAX - bytes.len();
                bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
        }
    }
    false
}

/// Returns the printable sentence of a body; `None` if it is empty or markup.
pub(super) fn of(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    let sentence = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(json) => sentence(&json, DEPTH_MAX)?.to_owned(),
        // Half of a JSON document, or an HTML page, explains nothing.
        Err(_) if text.starts_with(['{', '[', '<']) => return None,
        Err(_) => text.to_owned(),
    };
    // It is shown in quotation marks.
    let words = quote(&sentence).replace('"', "'");
    let says_something = words.chars().any(char::is_alphanumeric);
    says_something.then_some(words)
}

fn sentence(json: &serde_json::Value, depth: usize) -> Option<&str> {
    use serde_json::Value;
    match json {
        Value::String(text) => Some(text),
        Value::Object(fields) if depth > 0 => {
            FIELDS.iter().find_map(|name| sentence(fields.get(*name)?, depth - 1))
        }
        Value::Array(items) if depth > 0 => sentence(items.first()?, depth - 1),
        _ => None,
    }
}

/// Adds the server's words to a cause.
pub(super) fn quoted(mut cause: Cause, words: Option<&str>) -> Cause {
    if let Some(words) = words {
        let before = if cause.detail.is_empty() { "" } else { "; " };
        cause.detail = format!("{}{before}the server said: \"{words}\"", cause.detail);
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(body: &str, expected: Option<&str>) {
        assert_eq!(of(body.as_bytes()).as_deref(), expected, "{body:?}");
    }

    #[test]
    fn a_sentence_is_found_in_text_and_in_json() {
        says("Start it with --metrics\n", Some("Start it with --metrics"));
        says("\"Loading model\"", Some("Loading model"));
        says(r#"{"error":{"code":503,"message":"Loading model"}}"#, Some("Loading model"));
        says(r#"{"detail":"Not Found"}"#, Some("Not Found"));
        says(r#"{"errors":[{"msg":"no"}]}"#, Some("no"));
        says(r#"{"object":"error","message":"busy","code":1}"#, Some("busy"));
    }

    #[test]
    fn bodies_without_a_sentence_are_not_quoted() {
        for body in
            ["", " \n", "<html>login</html>", "{\"code\":1}", "{\"error\": {\"mess", "[1]", "---"]
        {
            says(body, None);
        }
        let deep = format!("{}\"x\"{}", "[".repeat(100), "]".repeat(100));
        says(&deep, None);
    }

    #[test]
    fn quoted_words_are_short_and_printable() {
        says("a\x1b[31m\nb \"c\"", Some("a\\u{1b}[31m b 'c'"));
        let long = of("word ".repeat(200).as_bytes()).unwrap();
        assert_eq!(long.chars().count(), 201);
    }
}
