// SPDX-License-Identifier: Apache-2.0
//! Durations in files and at their limits.

use std::time::Duration;

use collector_core::duration::parse;
use serde::Deserialize;

#[test]
fn a_hundred_years_is_the_longest() {
    let days = 100 * 366;
    assert_eq!(parse(&format!("{days}d")), Ok(Duration::from_secs(days * 86_400)));
    assert!(parse(&format!("{days}d1ns")).is_err());
}

#[test]
fn fractions_are_exact_nanoseconds_where_a_float_has_them() {
    assert_eq!(parse("1.5ns"), Ok(Duration::from_nanos(2)));
    assert_eq!(parse("0.3us"), Ok(Duration::from_nanos(300)));
    assert_eq!(parse("1.1µs"), Ok(Duration::from_nanos(1100)));
    // From 9e15 ns on, 104 days, a float has no whole nanoseconds to be rounded to.
    assert_eq!(parse("104.2d"), Ok(Duration::try_from_secs_f64(104.2 * 86_400.0).unwrap()));
}

#[test]
fn a_part_may_begin_with_a_point() {
    assert_eq!(parse("1m.5s"), Ok(Duration::from_millis(60_500)));
}

#[test]
fn a_file_may_hold_a_text_or_nothing_and_no_other_number_than_zero() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct File {
        #[serde(default, with = "collector_core::duration::option")]
        ttl: Option<Duration>,
    }
    let read = |text: &str| serde_json::from_str::<File>(text).map(|file| file.ttl);
    assert_eq!(read(r#"{"ttl":"30s"}"#).unwrap(), Some(Duration::from_secs(30)));
    assert_eq!(read(r#"{"ttl":"0"}"#).unwrap(), Some(Duration::ZERO));
    assert_eq!(read(r#"{"ttl":null}"#).unwrap(), None);
    assert_eq!(read("{}").unwrap(), None);
    for number in ["30", "-30", "1.5"] {
        let error = read(&format!(r#"{{"ttl":{number}}}"#)).unwrap_err().to_string();
        assert!(error.contains("is not a duration"), "{number}: {error}");
    }
}
