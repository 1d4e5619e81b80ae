// SPDX-License-Identifier: Apache-2.0
//! Durations as users write them, in Go's form (`1m30s`, `1.5h`, `0`) or Rust's (`1m 30s`).
//!
//! `#[serde(with = "collector_core::duration")]` reads and writes that text.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

/// A text that is not a duration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not a duration: {reason}; write for example 30s, 1m30s, 1.5h or 0")]
pub struct ParseDurationError {
    text: String,
    reason: String,
}

/// Beyond this, sums of settings would no longer be expressible, and nobody means it.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Go's units (`time.ParseDuration`), longest first, so that `ms` is not read as `m`.
const UNITS: [(&str, f64); 9] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
];

/// Reads a duration in Go's or Rust's form; a bare `0` is zero, any other number needs a unit.
///
/// # Errors
/// Says why the text is no duration. Negative ones are refused: no setting means anything by them.
///
/// ```
/// use std::time::Duration;
/// use collector_core::duration::parse;
/// assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
/// assert_eq!(parse("1.5h"), Ok(Duration::from_secs(5400)));
/// assert_eq!(parse("2min 5sec"), Ok(Duration::from_secs(125)));
/// assert!(parse("30").is_err());
/// ```
pub fn parse(text: &str) -> Result<Duration, ParseDurationError> {
    let fail = |reason: &str| ParseDurationError {
        // The text may come from a hostile server and goes into logs.
        text: text.chars().take(64).collect(),
        reason: reason.to_owned(),
    };
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    if trimmed.starts_with('-') {
        return Err(fail("it is negative"));
    }
    if trimmed.parse::<f64>().is_ok() {
        return Err(fail("it has no unit"));
    }
    let duration = match parse_go(trimmed) {
        Some(duration) => duration,
        // Rust's words: `2min 5sec`, `1hour`.
        None => humantime::parse_duration(trimmed).map_err(|error| fail(&error.to_string()))?,
    };
    if duration > LONGEST { Err(fail("it is longer than a hundred years")) } else { Ok(duration) }
}

/// Go's form; `None` when it is not that form, or too long to express.
fn parse_go(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, seconds) = UNITS.iter().find(|(unit, _)| *unit == &rest[..unit_end])?;
        rest = &rest[unit_end..];
        // A fraction of a nanosecond is rounded away, so that 1.1s is 1100 ms exactly.
        let part = Duration::try_from_secs_f64(number * seconds).ok()?;
        let nanos = (number * seconds * 1e9).round();
        let part = if nanos < 9e15 { Duration::from_nanos(rounded(nanos)) } else { part };
        total = total.checked_add(part)?;
    }
    (!text.is_empty()).then_some(total)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "called with a rounded value from 0 to 9e15, which a u64 holds exactly"
)]
fn rounded(nanos: f64) -> u64 {
    nanos as u64
}

/// Writes a duration in the form that [`parse`] reads: `30s`, `1m 30s`.
pub fn format(duration: Duration) -> String {
    if duration.is_zero() {
        "0".to_owned()
    } else {
        humantime::format_duration(duration).to_string().replace(' ', "")
    }
}

/// Writes the whole seconds of a duration, for ages in messages.
pub fn format_seconds(duration: Duration) -> String {
    format(Duration::from_secs(duration.as_secs()))
}

/// For `#[serde(with)]`.
///
/// # Errors
/// As the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

/// For `#[serde(with)]`: text as [`parse`] reads it, or the number 0.
///
/// # Errors
/// Says why the value is no duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Visitor;
    impl de::Visitor<'_> for Visitor {
        type Value = Duration;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a duration such as \"30s\", \"1m30s\" or 0")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            parse(text).map_err(E::custom)
        }
        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
            parse(&number.to_string()).map_err(E::custom)
        }
        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
            parse(&number.to_string()).map_err(E::custom)
        }
        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Duration, E> {
            parse(&number.to_string()).map_err(E::custom)
        }
    }
    deserializer.deserialize_any(Visitor)
}

/// [`Deserialize`] of an optional duration, for keys without a default.
pub mod option {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// As the serializer.
    pub fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// For `#[serde(with)]`.
    ///
    /// # Errors
    /// Says why the value is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Wrapped(#[serde(with = "crate::duration")] Duration);
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|Wrapped(duration)| duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected_ms: u64) {
        assert_eq!(parse(text), Ok(Duration::from_millis(expected_ms)), "{text}");
    }

    #[track_caller]
    fn refused(text: &str, reason: &str) {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }

    #[test]
    fn go_and_rust_forms_are_read() {
        check("30s", 30_000);
        check("1m30s", 90_000);
        check("1.5h", 5_400_000);
        check("1.1s", 1_100);
        check("250ms", 250);
        check(".5s", 500);
        check("+1s", 1_000);
        check("0", 0);
        check("0s", 0);
        check("1h2m3.5s", 3_723_500);
        check("1m 30s", 90_000);
        check("2min", 120_000);
        check("1day", 86_400_000);
        check("1d", 86_400_000);
        check(" 5s ", 5_000);
    }

    #[test]
    fn what_is_no_duration_says_why() {
        refused("", "");
        refused("30", "no unit");
        refused("1.5", "no unit");
        refused("-5s", "negative");
        refused("5 parsecs", "unit");
        refused("s", "");
        refused("1..5s", "");
        refused("9999999999999999999h", "");
        refused("10000000000000000s", "longer than a hundred years");
    }

    #[test]
    fn a_number_other_than_zero_is_refused_in_a_file() {
        #[derive(Debug, Deserialize)]
        struct File {
            #[serde(with = "crate::duration")]
            ttl: Duration,
        }
        let read = |text: &str| serde_json::from_str::<File>(text).map(|file| file.ttl);
        assert_eq!(read(r#"{"ttl":0}"#).unwrap(), Duration::ZERO);
        assert!(read(r#"{"ttl":30}"#).unwrap_err().to_string().contains("no unit"));
        assert!(read(r#"{"ttl":true}"#).unwrap_err().to_string().contains("a duration such as"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
