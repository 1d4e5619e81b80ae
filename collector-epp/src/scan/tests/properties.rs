// SPDX-License-Identifier: Apache-2.0
//! Whatever the page, the scanner reads what the reference reads, however the page is cut.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::{Ended, Format, Limits, MALFORMED_KEPT, Scanner, Wanted};
use super::reference::{self, How, Seen};
use super::{scan, scan_with};

/// Short and long ones, some that begin alike, and some that only stand in quotes.
const WANTED: [&str; 8] = [
    "up",
    "x_sum",
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:time_to_first_token_seconds_count",
    "dotted.name",
    "quoted \"é\\",
];

const UNWANTED: [&str; 8] = [
    "u",
    "up_",
    "x_summary",
    "vllm:num_requests_waiting_by_reason",
    "vllm:num_requests_wait",
    "vllm:time_to_first_token_seconds_bucket",
    "process_start_time_seconds",
    "a",
];

fn blanks() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(String::new()), 1 => "[ \t]{1,3}"]
}

fn some_blanks() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just(" ".to_owned()), 1 => "[ \t]{1,3}"]
}

fn quote(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{text}\"")
}

/// A name as it may stand, and how it is written.
fn label_name() -> impl Strategy<Value = (String, String)> {
    prop_oneof![
        4 => "[a-zA-Z_][a-zA-Z0-9_]{0,12}".prop_map(|name| (name.clone(), name)),
        1 => any::<String>().prop_map(|name| (name.clone(), quote(&name))),
    ]
}

fn label_value() -> impl Strategy<Value = (String, String)> {
    let any_text = prop_oneof!["[a-zA-Z0-9/.-]{0,40}", "[\\\\\"\n},=# é]{0,8}", any::<String>()];
    prop_oneof![
        8 => any_text.prop_map(|value| (value.clone(), quote(&value))),
        1 => "[a-z]{0,4}".prop_map(|text| (format!("\\x{text}"), format!("\"\\x{text}\""))),
    ]
}

type Label = ((String, String), (String, String));

/// Labels of different names, and how they are written between the braces.
fn labels() -> impl Strategy<Value = (Vec<(String, String)>, Vec<String>)> {
    let label = (label_name(), label_value());
    let written = |((name, raw_name), (value, raw_value)): Label, blank: &str| {
        ((name, value), format!("{blank}{raw_name}{blank}={blank}{raw_value}{blank}"))
    };
    (vec(label, 0..6), blanks()).prop_map(move |(mut labels, blank)| {
        labels.sort_by(|a, b| a.0.0.cmp(&b.0.0));
        labels.dedup_by(|a, b| a.0.0 == b.0.0);
        labels.into_iter().map(|label| written(label, &blank)).unzip()
    })
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        (0..1_000_000_u64).prop_map(|count| format!("{count}.0")),
        any::<f64>().prop_filter("words are below", |value| value.is_finite()).prop_map(|value| {
            if value.to_bits() % 2 == 0 { value.to_string() } else { format!("{value:e}") }
        }),
        "[+-]?[0-9]{1,25}\\.[0-9]{0,25}([eE][+-]?[0-9]{1,2})?",
        "[+-]?\\.[0-9]{1,4}",
        select(vec!["NaN", "nan", "+Inf", "-Inf", "inf", "INFINITY"]).prop_map(str::to_owned),
    ]
}

/// A legal sample line and what it says; its line number is 0.
fn sample(name: &'static str, format: Format) -> impl Strategy<Value = (Seen, String)> {
    let openmetrics = format == Format::OpenMetrics;
    let quoted = any::<bool>().prop_map(move |quoted| {
        quoted || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
    });
    let timestamp = prop::option::of(if openmetrics {
        (0..2_000_000_000_000_i64)
            .prop_map(|ms| (ms, format!("{}.{:03}", ms / 1000, ms % 1000)))
            .boxed()
    } else {
        any::<i64>().prop_map(|ms| (ms, ms.to_string())).boxed()
    });
    let exemplar = if openmetrics {
        prop_oneof![Just(""), Just(" # {} 1"), Just(" # {trace_id=\"a#b\"} 0.5 1.5")].boxed()
    } else {
        Just("").boxed()
    };
    let spacing = (blanks(), blanks(), some_blanks(), some_blanks(), any::<bool>());
    (quoted, labels(), number(), timestamp, exemplar, spacing).prop_map(
        move |(quoted, (labels, mut written), number, timestamp, exemplar, spacing)| {
            let (indent, end, before_value, before_timestamp, comma) = spacing;
            let bare = if quoted { "" } else { name };
            if quoted {
                written.insert(0, quote(name));
            }
            let comma = if comma && !written.is_empty() { "," } else { "" };
            let set = if written.is_empty() && !end.is_empty() {
                String::new()
            } else {
                format!("{end}{{{}{comma}}}", written.join(","))
            };
            let after = timestamp.as_ref().map(|(_, text)| format!("{before_timestamp}{text}"));
            let after = after.unwrap_or_default();
            let line = format!("{indent}{bare}{set}{before_value}{number}{after}{exemplar}{end}");
            let value = reference::number(&number).unwrap().to_bits();
            let timestamp_ms = timestamp.map(|(ms, _)| ms);
            (Seen { name: name.to_owned(), labels, value, timestamp_ms, line: 0 }, line)
        },
    )
}

/// A line and what is to be read of it.
fn line(format: Format) -> impl Strategy<Value = (Option<Seen>, String)> {
    let wanted = select(WANTED.to_vec()).prop_flat_map(move |name| sample(name, format));
    let unwanted = select(UNWANTED.to_vec()).prop_flat_map(move |name| sample(name, format));
    prop_oneof![
        4 => wanted.prop_map(|(seen, line)| (Some(seen), line)),
        2 => unwanted.prop_map(|(_, line)| (None, line)),
        1 => "[ \t]*# (HELP|TYPE|EOF[!-~])? ?[ -~]{0,30}".prop_map(|line| (None, line)),
        1 => "[ \t]{0,2}".prop_map(|line| (None, line)),
        1 => select(UNWANTED.to_vec()).prop_map(|name| (None, format!("{name}{{\"\\ broken"))),
    ]
}

fn format() -> impl Strategy<Value = Format> {
    select(vec![Format::Text, Format::OpenMetrics])
}

/// A legal page with what is to be read of it.
fn legal_page() -> impl Strategy<Value = (Format, Vec<Seen>, String)> {
    let lines = format().prop_flat_map(|format| (Just(format), vec(line(format), 0..12)));
    let ends = (select(vec!["\n", "\r\n"]), select(vec!["", "\u{feff}"]));
    (lines, any::<bool>(), any::<bool>(), ends).prop_map(
        |((format, lines), marker, newline, ends)| {
            let (end, mark) = ends;
            let mut seen = Vec::new();
            let mut text = Vec::new();
            for (number, (sample, line)) in (1..).zip(lines) {
                seen.extend(sample.map(|sample| Seen { line: number, ..sample }));
                text.push(line);
            }
            if marker && format == Format::OpenMetrics {
                text.extend(["# EOF".to_owned(), "up 1".to_owned()]);
            }
            let mut text = mark.to_owned() + &text.join(end);
            if newline {
                text.push_str(end);
            }
            (format, seen, text)
        },
    )
}

/// Pieces of which lines are made, and some that spoil them.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"up",
        b"x_sum",
        b"vllm:num_requests_waiting",
        b"{",
        b"}",
        b"=",
        b",",
        b"\"",
        b"\\",
        b"#",
        b" ",
        b"\t",
        b"\n",
        b"\n",
        b"\r",
        b"\r\n",
        b"\xef\xbb\xbf",
        b"a",
        b"b=\"c\"",
        b"a=\"1\"",
        b"\"up\"",
        b"\"x_sum\"",
        b"\"a b\"",
        b"1",
        b".5",
        b"e",
        b"+",
        b"-",
        b"_",
        b"NaN",
        b"Inf",
        b"1e400",
        b" 1 1e300\n",
        b"0x10",
        b"\xff",
        b"\0",
        b"\xc3\xa9",
        b"# EOF",
        b" # {} 1",
        b"up{a=\"b\"} 1\n",
        b"{\"up\"} 1\n",
        b"{\"up\".x=\"1\"} 1\n",
        b"{\"a\",",
    ];
    vec(select(pieces), 0..40).prop_map(|pieces| pieces.concat())
}

/// A legal page with some bytes cut out, and others put in.
fn mutated_page() -> impl Strategy<Value = (Format, Vec<u8>)> {
    let bytes = select(b"\"\\{},=# \r\n\t0a_:\xff".to_vec());
    let mutations = vec((any::<Index>(), any::<bool>(), bytes), 1..6);
    (legal_page(), mutations).prop_map(|((format, _, page), mutations)| {
        let mut page = page.into_bytes();
        for (place, removes, byte) in mutations {
            let place = place.index(page.len() + 1);
            if removes && place < page.len() {
                page.remove(place);
            } else {
                page.insert(place, byte);
            }
        }
        (format, page)
    })
}

fn cut<'a>(page: &'a [u8], places: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place.index(page.len() + 1)).collect();
    places.extend([0, page.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &page[pair[0]..pair[1]]).collect()
}

/// The scanner in one piece, in chunks and byte by byte, against the reference.
#[track_caller]
fn agrees(format: Format, page: &[u8], places: &[Index], max_line_bytes: usize, ended: Ended) {
    let mut scanner = scanner(max_line_bytes);
    for chunks in [vec![page], cut(page, places), page.chunks(1).collect()] {
        agrees_with(&mut scanner, format, page, chunks, max_line_bytes, ended);
    }
}

fn scanner(max_line_bytes: usize) -> Scanner {
    let limits = Limits { max_line_bytes, ..Limits::default() };
    Scanner::new(Arc::new(Wanted::new(WANTED)), limits)
}

#[track_caller]
fn agrees_with(
    scanner: &mut Scanner,
    format: Format,
    page: &[u8],
    chunks: Vec<&[u8]>,
    max_line_bytes: usize,
    ended: Ended,
) {
    let how = How {
        wanted: &WANTED,
        openmetrics: format == Format::OpenMetrics,
        max_line_bytes,
        complete: ended == Ended::Complete,
    };
    let expected = reference::read(page, how);
    let wanted = Wanted::new(WANTED);
    let (seen, summary) = scan_with(scanner, &wanted, format, chunks, ended).unwrap();
    assert_eq!(seen, expected.seen);
    let bad = summary.malformed.iter();
    let bad: Vec<_> = bad.map(|bad| (bad.line, wanted.name(bad.name).to_owned())).collect();
    assert_eq!(bad, expected.listed(MALFORMED_KEPT));
    assert_eq!(summary.malformed_count, expected.malformed.len() as u64);
    assert_eq!(summary.samples, expected.seen.len() as u64);
    assert_eq!(summary.lines, expected.lines);
    assert_eq!(summary.bytes, page.len() as u64);
    assert_eq!(summary.last_line_unterminated, expected.last_line_unterminated);
    assert_eq!(summary.eof_marker, expected.eof_marker);
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..8)
}

fn ended() -> impl Strategy<Value = Ended> {
    select(vec![Ended::Complete, Ended::CutShort])
}

proptest! {
    #[test]
    fn every_legal_line_is_read((format, expected, page) in legal_page()) {
        let (seen, summary) =
            scan(page.as_bytes(), &WANTED, format, Limits::default(), Ended::Complete).unwrap();
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(summary.malformed, []);
    }

    #[test]
    fn legal_pages_are_read_alike(
        (format, _, page) in legal_page(), places in cuts(), max in 0..200_usize, ended in ended(),
    ) {
        agrees(format, page.as_bytes(), &places, max, ended);
    }

    #[test]
    fn mutated_pages_are_read_alike(
        (format, page) in mutated_page(), places in cuts(), max in 20..2000_usize, ended in ended(),
    ) {
        agrees(format, &page, &places, max, ended);
    }

    #[test]
    fn token_soup_is_read_alike(
        format in format(), page in soup(), places in cuts(), max in 0..200_usize, ended in ended(),
    ) {
        agrees(format, &page, &places, max, ended);
    }

    #[test]
    fn a_page_before_changes_nothing(
        (format, former) in mutated_page(), (_, page) in mutated_page(), soup in soup(),
    ) {
        let mut scanner = scanner(1000);
        for page in [&former, &page, &soup, &former] {
            agrees_with(&mut scanner, format, page, vec![page], 1000, Ended::Complete);
        }
    }

    #[test]
    fn any_bytes_are_read_alike(
        format in format(), page in vec(any::<u8>(), 0..200), places in cuts(), ended in ended(),
    ) {
        agrees(format, &page, &places, 64, ended);
    }

    #[test]
    fn labels_are_found_by_their_whole_name((name, labels) in (label_name(), labels())) {
        let (labels, written) = labels;
        let page = format!("up{{{}}} 1\n", written.join(","));
        let mut scanner = scanner(page.len());
        scanner.begin(Format::Text);
        scanner.feed(page.as_bytes(), |sample| {
            for (name, value) in &labels {
                assert_eq!(sample.labels.get(name).as_deref(), Some(value.as_str()));
            }
            let known = labels.iter().any(|(other, _)| *other == name.0);
            assert_eq!(sample.labels.get(&name.0).is_some(), known);
        }).unwrap();
    }
}
