// SPDX-License-Identifier: Apache-2.0
//! Recognises what a page without known series is.

use collector_transport::quote;

/// Bytes of a page's beginning that are examined.
pub(super) const HEAD_BYTES: usize = 512;

/// A kind of page that is not lines of metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Content {
    /// Nothing but blanks.
    Empty,
    /// HTML or XML.
    Html,
    /// A JSON object or list: statistics in a form of the server's own.
    Json,
    /// One JSON string, whose text may be the page.
    JsonText,
    /// Prometheus' protobuf form.
    Protobuf,
    /// Bytes that are no text.
    Binary,
}

impl Content {
    /// Recognises a page by its beginning and its Content-Type; `None` when it is lines of text.
    pub fn of(head: &[u8], content_type: Option<&str>) -> Option<Self> {
        let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
        let head = &head[..head.len().min(HEAD_BYTES)];
        let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
        if content_type.contains("protobuf") {
            return Some(Self::Protobuf);
        }
        match head.trim_ascii_start() {
            [] => Some(Self::Empty),
            [b'<', ..] => Some(Self::Html),
            // No line of metrics begins with either.
            [b'"', ..] => Some(Self::JsonText),
            [b'[', ..] => Some(Self::Json),
            [b'{', rest @ ..] if content_type.contains("json") || is_object(rest) => {
                Some(Self::Json)
            }
            _ if head.iter().any(|byte| is_binary(*byte)) => Some(Self::Binary),
            _ => None,
        }
    }

    /// Describes a page that came with this Content-Type.
    pub fn problem(self, content_type: Option<&str>) -> String {
        let problem = match self {
            Self::Empty => "it is empty",
            Self::Html => "it is an HTML page, not metrics",
            Self::Json => "it is JSON, not a page of metrics",
            Self::JsonText => "it is one JSON string, not a page of metrics",
            Self::Protobuf => "it is in Prometheus' protobuf form, not in the text form",
            Self::Binary => "it is not text, so there are no series to read",
        };
        format!("{problem}{}", content_type.map_or_else(String::new, came_as))
    }

    /// What to do about it.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Empty => "is the server still starting?",
            Self::Html => {
                "check the port and the path of the URL; most servers have metrics at /metrics"
            }
            Self::Json => {
                "trtllm-serve has statistics as JSON at /metrics and its page of metrics at \
                 /prometheus/metrics: use that path in the URL"
            }
            Self::JsonText => {
                "the server, or a proxy before it, must send the page itself, as text/plain"
            }
            Self::Protobuf => {
                "the server was asked for text/plain;version=0.0.4 and must answer in that form"
            }
            Self::Binary => "check the port and the path of the URL",
        }
    }
}

/// Returns the Content-Type of a page as messages show it.
pub(super) fn came_as(content_type: &str) -> String {
    format!(" (Content-Type {:?})", quote(content_type))
}

/// Whether what follows a brace is that of a JSON object: its end, or a text with a colon behind it. Behind
/// the brace of a sample no text is followed by a colon.
fn is_object(rest: &[u8]) -> bool {
    match rest.trim_ascii_start() {
        [b'}', ..] => rest.trim_ascii_start()[1..].trim_ascii().is_empty(),
        [b'"', text @ ..] => {
            let mut escaped = false;
            let end = text.iter().position(|byte| {
                let ends = *byte == b'"' && !escaped;
                escaped = *byte == b'\\' && !escaped;
                ends
            });
            end.is_some_and(|end| text[end + 1..].trim_ascii_start().starts_with(b":"))
        }
        _ => false,
    }
}

/// Control characters that no text has.
fn is_binary(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn is(head: &str, content_type: &str, expected: Option<Content>) {
        let content_type = Some(content_type).filter(|it| !it.is_empty());
        assert_eq!(Content::of(head.as_bytes(), content_type), expected, "{head:?}");
    }

    #[test]
    fn a_page_is_recognised_by_its_beginning() {
        is("<!DOCTYPE html>", "text/plain", Some(Content::Html));
        is("\u{feff} \r\n<html>", "", Some(Content::Html));
        is("[]", "", Some(Content::Json));
        is(" \n", "", Some(Content::Empty));
        is("{\"iter\\\"\": 3}", "", Some(Content::Json));
        is("{ }\n", "", Some(Content::Json));
        is("{'a'}", "application/json", Some(Content::Json));
        is("\"up 1\\n\"", "", Some(Content::JsonText));
        is("\u{1f}\nup", "Application/VND.google.Protobuf; x", Some(Content::Protobuf));
        is("\0\u{1}", "", Some(Content::Binary));
    }

    #[test]
    fn lines_of_metrics_are_nothing_else() {
        is("up 1\r\n", "text/html", None);
        is("{\"up\"} 1", "", None);
        is("{\"up\",a=\"b\"} 1", "", None);
        is("{\"a:b\",c=\"d\"} 1", "", None);
        is("{a=\"b\",\"up\"} 1", "", None);
        is("# HELP up nothing", "application/json", None);
    }

    #[test]
    fn only_the_beginning_is_examined() {
        let long = "x".repeat(HEAD_BYTES) + "\0";
        is(&long, "", None);
    }
}
