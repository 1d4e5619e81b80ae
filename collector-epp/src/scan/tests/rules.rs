//! One line a rule.

use super::super::{Ended, Format, Limits, Reason, Summary};
use super::{Seen, scan_chunks};

const NAMES: [&str; 2] = ["up", "vllm:num_requests_waiting"];

fn scan(page: &str, format: Format) -> (Vec<Seen>, Summary) {
    let chunks = [page.as_bytes()];
    scan_chunks(&NAMES, format, Limits::default(), chunks, Ended::Complete).unwrap()
}

/// The one sample of a line, as `name{label="value"} value timestamp`.
#[track_caller]
fn reads(line: &str, labels: &[(&str, &str)], value: f64) {
    let (seen, summary) = scan(line, Format::Text);
    assert_eq!((seen.len(), summary.malformed_count), (1, 0), "{line:?}: {summary:?}");
    let found: Vec<_> = seen[0].labels.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    assert_eq!(found, labels, "{line:?}");
    assert_eq!(seen[0].value, value.to_bits(), "{line:?}");
}

#[track_caller]
fn refuses(line: &str, reason: Reason) {
    let page = format!("up 1\n{line}\nup 2");
    let (seen, summary) = scan(&page, Format::Text);
    assert_eq!(seen.len(), 2, "the lines around {line:?} survive");
    let malformed: Vec<_> = summary.malformed.iter().map(|bad| (bad.line, bad.reason)).collect();
    assert_eq!(malformed, [(2, reason)], "{line:?}");
}

#[test]
fn legal_lines_are_read() {
    reads("up 1", &[], 1.0);
    reads("up\t 1\n", &[], 1.0);
    reads(" \t up 1 \t", &[], 1.0);
    reads("up{} 1", &[], 1.0);
    reads("up{}1", &[], 1.0);
    reads(r#"up { a = "b" , c="d" , } 1"#, &[("a", "b"), ("c", "d")], 1.0);
    reads(r#"up{a="\\\"\n\x"} 1"#, &[("a", "\\\"\n\\x")], 1.0);
    reads(r#"up{a="},=#{é"} 1"#, &[("a", "},=#{é")], 1.0);
    reads(r#"{"up"} 1"#, &[], 1.0);
    reads(r#"{"up","a b"="c"} 1"#, &[("a b", "c")], 1.0);
    reads(r#"{a="b", "up"} 1"#, &[("a", "b")], 1.0);
}

#[test]
fn illegal_lines_are_refused_with_their_number_and_the_others_survive() {
    refuses("up", Reason::NoValue);
    refuses("up{", Reason::LabelsUnclosed);
    refuses(r#"up{a="b} 1"#, Reason::LabelsUnclosed);
    refuses(r#"up{a="b" c="d"} 1"#, Reason::LabelSeparator);
    refuses(r#"up{a="b",a="b"} 1"#, Reason::LabelTwice);
    refuses(r#"up{"a"} 1"#, Reason::NameTwice);
    refuses("up 1_0", Reason::Value);
    refuses("up 1 2 3", Reason::TrailingCharacters);
    refuses("up 1 x", Reason::Timestamp);
}
