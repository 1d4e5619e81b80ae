// SPDX-License-Identifier: Apache-2.0
//! One line a rule.

use super::super::{Ended, Format, Limits, MALFORMED_KEPT, Reason, Summary, TooLarge};
use super::reference::Seen;
use super::scan;

const NAMES: [&str; 3] = ["up", "vllm:num_requests_waiting", "dotted.name"];

fn read(page: impl AsRef<[u8]>, format: Format) -> (Vec<Seen>, Summary) {
    scan(page.as_ref(), &NAMES, format, Limits::default(), Ended::Complete).unwrap()
}

/// The only sample of a line.
#[track_caller]
fn only(line: &str, format: Format) -> Seen {
    let (mut seen, summary) = read(line, format);
    assert_eq!((seen.len(), summary.malformed), (1, vec![]), "{line:?}");
    seen.remove(0)
}

#[track_caller]
fn labels(line: &str, expected: &[(&str, &str)]) {
    let seen = only(line, Format::Text);
    let labels: Vec<_> = seen.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!((labels.as_slice(), seen.value), (expected, 1_f64.to_bits()), "{line:?}");
}

#[track_caller]
fn value(text: &str, expected: f64) {
    let seen = only(&format!("up {text}"), Format::Text);
    assert_eq!(f64::from_bits(seen.value).to_bits(), expected.to_bits(), "{text:?}");
}

#[track_caller]
fn timestamp(line: &str, format: Format, expected: i64) {
    assert_eq!(only(line, format).timestamp_ms, Some(expected), "{line:?}");
}

/// The line is of no wanted name.
#[track_caller]
fn ignores(line: impl AsRef<[u8]>) {
    let line = line.as_ref();
    let (seen, summary) = read(line, Format::Text);
    assert_eq!((seen, summary.malformed), (vec![], vec![]), "{}", line.escape_ascii());
}

#[track_caller]
fn refuses_in(format: Format, line: impl AsRef<[u8]>, reason: Reason) {
    let line = line.as_ref();
    let (seen, summary) = read([b"up 1\n", line, b"\nup 2"].concat(), format);
    let line = line.escape_ascii();
    assert_eq!(seen.len(), 2, "the lines around {line} survive");
    let malformed: Vec<_> = summary.malformed.iter().map(|bad| (bad.line, bad.reason)).collect();
    assert_eq!(malformed, [(2, reason)], "{line}");
}

#[track_caller]
fn refuses(line: impl AsRef<[u8]>, reason: Reason) {
    refuses_in(Format::Text, line, reason);
}

#[test]
fn blanks_may_stand_between_any_two_parts() {
    labels("up 1", &[]);
    labels("up\t1", &[]);
    labels(" \t up \t 1 \t", &[]);
    labels("up{} 1", &[]);
    labels("up{}1", &[]);
    labels("up {} 1", &[]);
    labels("up { } 1", &[]);
    labels(r#"up { a = "b" , c	=	"d" , } 1"#, &[("a", "b"), ("c", "d")]);
    labels(" \t { \t \"up\" \t , \t } \t 1", &[]);
}

#[test]
fn names_are_wanted_whole() {
    ignores("u 1");
    ignores("up_ 1");
    ignores("up_total{ broken");
    ignores("vllm:num_requests_waiting_by_reason 1");
    ignores("vllm:num_requests_wait");
    ignores(r#"{"upper"} 1"#);
    ignores("up.name 1");
    ignores("dotted.name 1");
    ignores(b"up\xc3\xa9 1");
    ignores("\n\u{feff}up 1");
    ignores("up\r 1");
    ignores("up\r\r\n");
}

#[test]
fn comments_and_empty_lines_are_passed_over() {
    ignores("");
    ignores("\n \n\t\n");
    ignores("# up 1");
    ignores(" \t# HELP up up 1");
    ignores("#up 1");
    ignores(b"# HELP up \xff\xfe\0");
    ignores("# EOF");
    assert_eq!(read("# EOF\nup 1", Format::Text).0.len(), 1, "in text it is a comment");
}

#[test]
fn label_values_hold_any_byte_but_a_bare_quote() {
    labels(
        r##"up{a="}",b=",",c="=",d="#",e="{",f="é日",g=""} 1"##,
        &[("a", "}"), ("b", ","), ("c", "="), ("d", "#"), ("e", "{"), ("f", "é日"), ("g", "")],
    );
    labels("up{a=\"\r\0\"} 1", &[("a", "\r\0")]);
}

#[test]
fn escapes_are_undone_and_unknown_ones_kept() {
    labels(r#"up{a="\\"} 1"#, &[("a", r"\")]);
    labels(r#"up{a="\""} 1"#, &[("a", "\"")]);
    labels(r#"up{a="\n"} 1"#, &[("a", "\n")]);
    labels(r#"up{a="\\n"} 1"#, &[("a", r"\n")]);
    labels(r#"up{a="\t\x\é"} 1"#, &[("a", r"\t\x\é")]);
    labels(r#"up{a="\\\""} 1"#, &[("a", "\\\"")]);
}

#[test]
fn quoted_names_are_read() {
    labels(r#"{"up"} 1"#, &[]);
    labels(r#"{"up",} 1"#, &[]);
    labels(r#"{"up",a="b"} 1"#, &[("a", "b")]);
    labels(r#"{a="b","up"} 1"#, &[("a", "b")]);
    labels(r#"up{"a b"="c","d"="e"} 1"#, &[("a b", "c"), ("d", "e")]);
    labels(r#"up{"\"\\"="c"} 1"#, &[("\"\\", "c")]);
    assert_eq!(only(r#"{"dotted.name"} 1"#, Format::Text).name, "dotted.name");
}

#[test]
fn illegal_label_sets_are_refused() {
    refuses("up{", Reason::LabelsUnclosed);
    refuses("up{a", Reason::LabelsUnclosed);
    refuses("up{a=", Reason::LabelsUnclosed);
    refuses(r#"up{a="b"#, Reason::LabelsUnclosed);
    refuses(r#"up{a="b\"} 1"#, Reason::LabelsUnclosed);
    refuses(r#"up{a="b\"#, Reason::LabelsUnclosed);
    refuses(r#"up{a="b""#, Reason::LabelsUnclosed);
    refuses(r#"up{a="b","#, Reason::LabelsUnclosed);
    refuses("up{,} 1", Reason::LabelName);
    refuses(r#"up{a="b",,} 1"#, Reason::LabelName);
    refuses(r#"up{="b"} 1"#, Reason::LabelName);
    refuses(r#"up{1a="b"} 1"#, Reason::LabelName);
    refuses(r#"up{a:b="c"} 1"#, Reason::LabelEquals);
    refuses(r#"up{a-b="c"} 1"#, Reason::LabelEquals);
    refuses(r#"up{a b="c"} 1"#, Reason::LabelEquals);
    refuses("up{a} 1", Reason::LabelEquals);
    refuses("up{a=b} 1", Reason::LabelValue);
    refuses("up{a='b'} 1", Reason::LabelValue);
    refuses(r#"up{a="b" c="d"} 1"#, Reason::LabelSeparator);
    refuses(r#"up{a="b"x} 1"#, Reason::LabelSeparator);
    refuses(r#"up{a="b"{} 1"#, Reason::LabelSeparator);
    refuses(r#"up{"a"} 1"#, Reason::NameTwice);
    refuses(r#"{"up","up"} 1"#, Reason::NameTwice);
    refuses(r#"{"up","other"} 1"#, Reason::NameTwice);
    refuses(r#"{"up",a} 1"#, Reason::LabelEquals);
    refuses(r#"{"up",a=b} 1"#, Reason::LabelValue);
    refuses(r#"{"up".label="x"} 1"#, Reason::LabelSeparator);
    refuses(r#"{"dotted.name".label="x"} 1"#, Reason::LabelSeparator);
    refuses(r#"{"up"x} 1"#, Reason::LabelSeparator);
    refuses(r#"{"up" a="b"} 1"#, Reason::LabelSeparator);
    refuses(r#"{"up"{} 1"#, Reason::LabelSeparator);
    refuses(r#"{"up" 1"#, Reason::LabelSeparator);
    refuses(r#"{a="b","up".c="d"} 1"#, Reason::LabelSeparator);
    refuses(r#"up{"a"b="c"} 1"#, Reason::LabelSeparator);
    ignores(r#"{"other","up"} 1"#);
    ignores(r#"{a="b" "up"} 1"#);
    ignores(r#"{a=b,"up"} 1"#);
    ignores(r#"{"other".label="up"} 1"#);
    ignores(r#"{"other".x,"up"="y"} 1"#);
    ignores(r#"{"up"="x" "y"="z"} 1"#);
    ignores(r#"{"up"#);
    refuses(r#"{"up"}"#, Reason::NoValue);
}

#[test]
fn a_label_name_stands_once() {
    refuses(r#"up{a="b",a="b"} 1"#, Reason::LabelTwice);
    refuses(r#"up{a="b",c="d",a="e"} 1"#, Reason::LabelTwice);
    refuses(r#"up{a="b","a"="c"} 1"#, Reason::LabelTwice);
    refuses(r#"up{"\x"="b","\\x"="c"} 1"#, Reason::LabelTwice);
    labels(r#"up{a="b",ab="c",A="d"} 1"#, &[("a", "b"), ("ab", "c"), ("A", "d")]);
}

#[test]
fn there_is_room_for_128_labels() {
    let line = |count: usize| {
        let labels: Vec<_> = (0..count).map(|number| format!("l{number}=\"v\"")).collect();
        format!("up{{{}}} 1", labels.join(","))
    };
    assert_eq!(only(&line(128), Format::Text).labels.len(), 128);
    refuses(line(129), Reason::TooManyLabels);
    refuses(line(5000), Reason::TooManyLabels);
}

#[test]
fn labels_that_are_not_utf8_are_refused() {
    refuses(b"up{a=\"\xff\"} 1", Reason::NotUtf8);
    refuses(b"up{\"\xff\"=\"a\"} 1", Reason::NotUtf8);
    refuses(b"up{a=\"\xc3\",b=\"\xa9\"} 1", Reason::NotUtf8);
    ignores(b"other{a=\"\xff\"} 1");
    ignores(b"{\"\xff\"} 1");
}

#[test]
fn values_are_decimal_numbers_and_the_words_that_prometheus_knows() {
    value("0", 0.0);
    value("-0", -0.0);
    value("+1", 1.0);
    value("1.", 1.0);
    value(".5", 0.5);
    value("-.5e+1", -5.0);
    value("1e5", 1e5);
    value("1.7554000003341248e+09", 1.755_400_000_334_124_8e9);
    value("0000000000000000000000000000001", 1.0);
    value("9007199254740993", 9_007_199_254_740_992.0);
    value("1e-400", 0.0);
    value("1.7976931348623157e308", f64::MAX);
    value("NaN", f64::NAN);
    value("nAn", f64::NAN);
    value("Inf", f64::INFINITY);
    value("+inf", f64::INFINITY);
    value("-INF", f64::NEG_INFINITY);
    value("infinity", f64::INFINITY);
    value("-Infinity", f64::NEG_INFINITY);
}

#[test]
fn what_is_no_number_is_refused_and_never_read_as_a_smaller_one() {
    for text in [
        "x",
        "1_0",
        "0x10",
        "0x1p4",
        "1e",
        "1e+",
        "e5",
        ".",
        "+",
        "-",
        "+-1",
        "--1",
        "1.2.3",
        "1,0",
        "1e5e5",
        "1e5.0",
        "1f",
        "1d",
        "1\r\r",
        "1\r2",
        "1\0",
        "1#",
        "+NaN",
        "-nan",
        "nano",
        "infinit",
        "infinityy",
        "in",
        "1e999999999999999999999x",
        "٣",
        "\"1\"",
        "=1",
        "{} {} 1",
    ] {
        refuses(format!("up {text}"), Reason::Value);
    }
    refuses("up + 1", Reason::Value);
    refuses("up 1e400", Reason::ValueTooLarge);
    refuses("up -1.8e308", Reason::ValueTooLarge);
    refuses(format!("up 1{}", "0".repeat(400)), Reason::ValueTooLarge);
    refuses("up 1e999999999999999999999", Reason::ValueTooLarge);
    refuses("up", Reason::NoValue);
    refuses("up \t", Reason::NoValue);
    refuses("up{}", Reason::NoValue);
    refuses("up{} \t", Reason::NoValue);
}

#[test]
fn timestamps_are_milliseconds_in_text() {
    timestamp("up 1 1520879607789", Format::Text, 1_520_879_607_789);
    timestamp("up 1\t-5 ", Format::Text, -5);
    timestamp("up 1 9223372036854775807", Format::Text, i64::MAX);
    refuses("up 1 9223372036854775808", Reason::Timestamp);
    refuses("up 1 1.5", Reason::Timestamp);
    refuses("up 1 NaN", Reason::Timestamp);
    refuses("up 1 x", Reason::Timestamp);
    refuses("up 1 2 3", Reason::TrailingCharacters);
    refuses("up 1 # {} 1", Reason::TrailingCharacters);
    refuses("up 1 2 # {} 1", Reason::TrailingCharacters);
}

#[test]
fn timestamps_are_seconds_in_openmetrics() {
    timestamp("up 1 1520879607.789", Format::OpenMetrics, 1_520_879_607_789);
    timestamp("up 1 1520879607", Format::OpenMetrics, 1_520_879_607_000);
    timestamp("up 1 1.5e9", Format::OpenMetrics, 1_500_000_000_000);
    timestamp("up 1 -0.0014", Format::OpenMetrics, -1);
    refuses_in(Format::OpenMetrics, "up 1 NaN", Reason::Timestamp);
    refuses_in(Format::OpenMetrics, "up 1 Inf", Reason::Timestamp);
    refuses_in(Format::OpenMetrics, "up 1 2 3", Reason::TrailingCharacters);
}

#[test]
fn a_time_beyond_64_bits_of_milliseconds_is_unknown_and_its_sample_counts() {
    for time in ["1e300", "-1e300", "1e400", "9223372036854775.808"] {
        for line in [format!("up 1 {time}"), format!("up 1 {time} # {{}} 1 {time}")] {
            let seen = only(&line, Format::OpenMetrics);
            assert_eq!((seen.value, seen.timestamp_ms), (1_f64.to_bits(), None), "{line:?}");
        }
    }
    timestamp("up 1 9e15", Format::OpenMetrics, 9_000_000_000_000_000_000);
}

#[test]
fn lines_may_end_in_a_carriage_return_and_a_newline() {
    let page = "# TYPE up gauge\r\n\r\nup 1\r\nup{a=\"b\"} 2 1520879607789\r\n {\"up\"} 3\r\nup x\r\nup\r\n";
    let (seen, summary) = read(page, Format::Text);
    let seen: Vec<_> = seen
        .iter()
        .map(|seen| (seen.line, f64::from_bits(seen.value), seen.timestamp_ms))
        .collect();
    assert_eq!(seen, [(3, 1.0, None), (4, 2.0, Some(1_520_879_607_789)), (5, 3.0, None)]);
    let malformed: Vec<_> = summary.malformed.iter().map(|bad| (bad.line, bad.reason)).collect();
    assert_eq!(malformed, [(6, Reason::Value), (7, Reason::NoValue)]);
    let (seen, summary) = read("up 1 1.5 # {} 1\r\n# EOF\r\nup 2\r\n", Format::OpenMetrics);
    assert_eq!((seen.len(), seen[0].timestamp_ms), (1, Some(1500)));
    assert!(summary.eof_marker);
    assert_eq!(read("up 1\r", Format::Text).0.len(), 1, "and so may the last one");
}

#[test]
fn a_byte_order_mark_at_the_start_of_the_page_is_skipped() {
    for page in ["\u{feff}up 1\nup 2\n", "\u{feff}up{a=\"b\"} 1", "\u{feff}\n{\"up\"} 1\n"] {
        let (seen, summary) = read(page, Format::Text);
        assert_eq!((seen[0].value, summary.malformed_count), (1_f64.to_bits(), 0), "{page:?}");
        assert_eq!(seen.len() as u64, summary.samples);
    }
    assert_eq!(read("\u{feff}# EOF\nup 1\n", Format::OpenMetrics).0, []);
    assert_eq!(read("\u{feff}up 1\nup 2\n", Format::Text).0.len(), 2);
}

#[test]
fn exemplars_of_openmetrics_are_left_out() {
    for exemplar in [
        "# {} 1",
        "# {a=\"b#}\",} 0.5",
        "#{a=\"b\"} 1 1520879607.789",
        "# {a=\"b\"}1 \t",
        "#",
        "# {",
        "# x",
    ] {
        for before in ["up 1 ", "up{a=\"b\"} 1 1.5 "] {
            only(&format!("{before}{exemplar}"), Format::OpenMetrics);
        }
    }
    refuses_in(Format::OpenMetrics, "up # {} 1", Reason::Value);
}

#[test]
fn openmetrics_ends_at_its_marker() {
    let (seen, summary) = read("up 1\n# EOF\nup 2\nup x\n", Format::OpenMetrics);
    assert_eq!((seen.len(), summary.malformed_count), (1, 0));
    assert_eq!((summary.lines, summary.bytes, summary.eof_marker), (2, 21, true));
    for comment in ["# EOFS", "# EO", "#EOF", "# EOF up 1"] {
        let (seen, summary) = read(format!("{comment}\nup 1"), Format::OpenMetrics);
        assert_eq!((seen.len(), summary.eof_marker), (1, false), "{comment:?}");
    }
    assert!(read("# EOF", Format::OpenMetrics).1.eof_marker);
}

#[test]
fn series_that_stand_twice_are_reported_twice() {
    let (seen, summary) = read("up 1\nother 1\nup 2\n", Format::Text);
    let seen: Vec<_> = seen.iter().map(|seen| (seen.line, f64::from_bits(seen.value))).collect();
    assert_eq!(seen, [(1, 1.0), (3, 2.0)]);
    assert_eq!((summary.samples, summary.lines), (2, 3));
}

#[test]
fn an_unterminated_last_line_is_dropped_if_the_transfer_was_cut() {
    let read = |page: &str, ended| {
        let limits = Limits::default();
        let (seen, summary) = scan(page.as_bytes(), &NAMES, Format::Text, limits, ended).unwrap();
        (seen.len(), summary.malformed_count, summary.last_line_unterminated, summary.lines)
    };
    assert_eq!(read("up 1\nup 12", Ended::Complete), (2, 0, true, 2));
    assert_eq!(read("up 1\nup 12", Ended::CutShort), (1, 0, true, 2));
    assert_eq!(read("up 1\nup 12\n", Ended::Complete), (2, 0, false, 2));
    assert_eq!(read("up 1\nup 12\n", Ended::CutShort), (2, 0, false, 2));
    assert_eq!(read("up 1\nup{", Ended::Complete), (1, 1, true, 2));
    assert_eq!(read("up 1\nup{", Ended::CutShort), (1, 0, true, 2));
    assert_eq!(read("", Ended::Complete), (0, 0, false, 0));
}

#[test]
fn a_line_over_the_limit_is_passed_over_and_counted_when_wanted() {
    let long = "x".repeat(100);
    let limits = Limits { max_line_bytes: 80, ..Limits::default() };
    let read = |line: &str| {
        let page = format!("up 1\n{line}\nup 2");
        scan(page.as_bytes(), &NAMES, Format::Text, limits, Ended::Complete).unwrap()
    };
    for line in [
        format!("up{{a=\"{long}\"}} 1"),
        format!("up 1{}", " ".repeat(80)),
        format!("  {{\"up\",a=\"{long}\"}} 1"),
    ] {
        let (seen, summary) = read(&line);
        assert_eq!(seen.len(), 2, "{line}");
        let malformed: Vec<_> =
            summary.malformed.iter().map(|bad| (bad.line, bad.reason)).collect();
        assert_eq!(malformed, [(2, Reason::LineTooLong)], "{line}");
    }
    for line in [
        format!("up{long} 1"),
        format!("# {long}"),
        format!("{{a=\"{long}\",\"up\"}} 1"),
        format!("{}up 1", " ".repeat(100)),
        format!("{}up{long}", " ".repeat(78)),
        format!("{}up\r{long}", " ".repeat(77)),
    ] {
        let (seen, summary) = read(&line);
        assert_eq!((seen.len(), summary.malformed), (2, vec![]), "{line}");
    }
    let exact = format!("up 1{}", " ".repeat(76));
    assert_eq!(read(&exact).0.len(), 3, "the limit itself is allowed");
}

#[test]
fn a_page_over_the_limit_is_refused() {
    let limits = Limits { max_page_bytes: 10, ..Limits::default() };
    let read = |page: &str| {
        scan(page.as_bytes(), &NAMES, Format::Text, limits, Ended::Complete).map(|(seen, _)| seen)
    };
    assert_eq!(read("up 1\nup 2\n").unwrap().len(), 2);
    let error = read("up 1\nup 2\n\n").unwrap_err();
    assert_eq!(error, TooLarge { max_page_bytes: 10 });
    assert_eq!(error.to_string(), "the page is larger than 10 bytes");
}

#[test]
fn malformed_lines_are_all_counted_and_the_first_shown() {
    let (seen, summary) = read("up x\n".repeat(100), Format::Text);
    assert_eq!((seen.len(), summary.malformed_count), (0, 100));
    let lines: Vec<_> = summary.malformed.iter().map(|bad| bad.line).collect();
    let first: Vec<_> = (1..=MALFORMED_KEPT as u64).collect();
    assert_eq!(lines, first);
}

#[test]
fn of_each_name_a_malformed_line_is_shown() {
    let page = "up x\n".repeat(100) + "{\"dotted.name\"} x\nup x\n{\"dotted.name\"} x\n";
    let (_, summary) = read(page, Format::Text);
    let lines: Vec<_> = summary.malformed.iter().map(|bad| bad.line).collect();
    assert_eq!((lines.len(), lines.last()), (MALFORMED_KEPT + 1, Some(&101)));
}
