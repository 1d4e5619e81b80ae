// SPDX-License-Identifier: Apache-2.0
//! The buckets of histograms, as a reader takes them from a page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use collector_epp::engines::{Buckets, Engines, Exposition, Quantity, ServerExposition};
use collector_epp::scan::{Ended, Format, Limits, Scanner};

const INF: f64 = f64::INFINITY;

/// Reads a page with its buckets.
fn read(engines: &Engines, page: &str) -> ServerExposition {
    let mut reader = engines.reader();
    reader.set_buckets(true);
    let wanted = Arc::clone(engines.wanted_with_buckets());
    let mut scanner = Scanner::new(wanted, Limits::default());
    scanner.begin(Format::Text);
    scanner.feed(page.as_bytes(), |sample| reader.sample(sample)).unwrap();
    let summary = scanner.finish(Ended::Complete, |_| {}).unwrap();
    match reader.finish(&summary) {
        Ok(Exposition::Server(page)) => page,
        other => panic!("{other:?}"),
    }
}

/// The buckets of the times to first token in the only row of a vLLM page with these lines.
fn ttft(lines: &str) -> Option<Buckets> {
    let mut page = read(&Engines::builtin(), &format!("{HEAD}{lines}"));
    assert_eq!((page.rows.len(), page.has_buckets), (1, true));
    assert_eq!(page.rows[0].numbers[Quantity::TtftCount], Some(9.0), "the others are read");
    let mut buckets = std::mem::take(&mut page.rows[0].buckets);
    buckets.pop().map(|(count, buckets)| {
        assert_eq!(count, Quantity::TtftCount);
        buckets
    })
}

const HEAD: &str = "vllm:num_requests_waiting{model_name=\"m\"} 3\n\
     vllm:time_to_first_token_seconds_sum{model_name=\"m\"} 4.5\n\
     vllm:time_to_first_token_seconds_count{model_name=\"m\"} 9\n";

/// A histogram of the times to first token with these bounds and values.
fn lines(labels: &str, buckets: &[(&str, &str)]) -> String {
    let mut lines = String::new();
    for (bound, value) in buckets {
        let name = "vllm:time_to_first_token_seconds_bucket";
        writeln!(lines, "{name}{{{labels}le=\"{bound}\",model_name=\"m\"}} {value}").unwrap();
    }
    lines
}

fn of(buckets: &[(&str, &str)]) -> Option<Buckets> {
    ttft(&lines("", buckets))
}

#[test]
fn each_bucket_has_its_own_observations() {
    let buckets = of(&[("0.1", "2.0"), ("0.5", "2"), ("1.0", "8e0"), ("+Inf", "9.0")]).unwrap();
    assert_eq!(*buckets.bounds, [0.1, 0.5, 1.0, INF]);
    let [(_, counts)] = &*buckets.series else { panic!("{buckets:?}") };
    assert_eq!(**counts, [2, 0, 6, 1]);
    // The order of the lines does not matter, and the first of two equal ones counts.
    let shuffled = [("+Inf", "9"), ("0.5", "2"), ("1.0", "8"), ("0.1", "2"), ("0.5", "7")];
    let again = of(&shuffled).unwrap();
    assert_eq!((&again.bounds, &*again.series[0].1), (&buckets.bounds, &**counts));
}

#[test]
fn what_is_no_histogram_has_no_buckets() {
    let good = [("0.1", "2"), ("1", "8"), ("+Inf", "9")];
    assert!(of(&good).is_some());
    let with = |index: usize, bucket| {
        let mut buckets = good;
        buckets[index] = bucket;
        of(&buckets)
    };
    assert_eq!(with(1, ("1", "1")), None, "counts fall");
    for bound in ["", "one", "NaN", "-1", "-Inf", "1e999"] {
        assert_eq!(with(1, (bound, "8")), None, "bound {bound}");
    }
    for value in ["NaN", "+Inf", "-8", "2.5", "1e300", "many"] {
        assert_eq!(with(1, ("1", value)), None, "value {value}");
    }
    assert_eq!(of(&good[..2]), None, "no infinite bound");
    assert_eq!(of(&good[2..]), None, "no finite bound");
    let unlabelled =
        lines("", &good) + "vllm:time_to_first_token_seconds_bucket{model_name=\"m\"} 9\n";
    assert_eq!(ttft(&unlabelled), None, "a bucket without a bound");
}

#[test]
fn a_histogram_may_have_64_buckets() {
    let buckets = |count: usize| {
        let bounds: Vec<String> = (1..count).map(|bound| bound.to_string()).collect();
        let finite = bounds.iter().map(|bound| (&**bound, "1"));
        of(&finite.chain([("+Inf", "9")]).collect::<Vec<_>>())
    };
    assert_eq!(buckets(64).map(|buckets| buckets.bounds.len()), Some(64));
    assert_eq!(buckets(65), None);
}

#[test]
fn a_page_may_have_1024_series_of_buckets() {
    let page = |count: usize| {
        (0..count).fold(String::new(), |page, worker| {
            page + &lines(&format!("worker=\"{worker}\","), &[("1", "1"), ("+Inf", "2")])
        })
    };
    assert_eq!(ttft(&page(1024)).map(|buckets| buckets.series.len()), Some(1024));
    assert_eq!(ttft(&page(1025)), None);
}

#[test]
fn series_of_one_row_are_kept_apart_and_must_have_equal_bounds() {
    let (one, other) = ([("1", "1"), ("+Inf", "2")], [("1", "10"), ("+Inf", "20")]);
    let both = lines("worker=\"0\",", &one) + &lines("worker=\"1\",", &other);
    let buckets = ttft(&both).unwrap();
    let counts: Vec<&[u64]> = buckets.series.iter().map(|(_, counts)| &**counts).collect();
    assert_eq!(counts, [[1, 1], [10, 10]]);
    assert_ne!(buckets.series[0].0, buckets.series[1].0);
    let unequal = lines("worker=\"1\",", &[("2", "10"), ("+Inf", "20")]);
    assert_eq!(ttft(&(lines("worker=\"0\",", &one) + &unequal)), None);
    assert_eq!(
        ttft(&(lines("worker=\"0\",", &one) + &unequal + &lines("worker=\"2\",", &one))),
        None
    );
}

#[test]
fn buckets_are_read_only_when_asked_for() {
    let engines = Engines::builtin();
    let page = format!("{HEAD}{}", lines("", &[("1", "8"), ("+Inf", "9")]));
    let unread = crate::read::server_of(&engines, &page);
    assert!(!unread.has_buckets && unread.rows[0].buckets.is_empty());
    // The numbers are the same.
    let mut read = read(&engines, &page);
    read.rows[0].buckets.clear();
    read.has_buckets = false;
    assert_eq!(read, unread);
}

#[test]
fn an_engine_of_the_user_has_buckets_in_the_unit_of_its_sum_alone() {
    let buckets = |sum: &str, count: &str| {
        let spec = serde_json::json!({
            "name": "acme", "model": "m",
            "metrics": {"running": "acme_running", "ttft_sum": sum, "ttft_count": count},
        });
        let engines = Engines::new(&[serde_json::from_value(spec).unwrap()]).unwrap();
        let page = "acme_running 1\nacme_ttft_sum 4.5\nacme_ttft_count 9\nacme_other_sum 4.5\n\
                    acme_ttft_bucket{le=\"1\"} 8\nacme_ttft_bucket{le=\"+Inf\"} 9\n\
                    acme_ttft_bucket{le=\"1\",stage=\"x\"} 1\n";
        let page = read(&engines, page);
        assert_eq!(page.engine.as_str(), "acme");
        page.rows[0].buckets.first().map(|(_, buckets)| buckets.series.len())
    };
    let labels = "{stage=\"\"}";
    let (sum, count) = (format!("acme_ttft_sum{labels}"), format!("acme_ttft_count{labels}"));
    assert_eq!(buckets(&sum, &count), Some(1), "the labels select the buckets too");
    assert_eq!(buckets("acme_ttft_sum", "acme_ttft_count"), None, "a series is no histogram");
    // The bounds may be of another unit, or of something else.
    assert_eq!(buckets(&format!("{sum} / 1000"), &count), None);
    assert_eq!(buckets(&sum, "acme_ttft_count"), None);
    assert_eq!(buckets(&format!("acme_other_sum{labels}"), &count), None);
}

/// What a page says about one bucket of a rank: the observations up to each bound.
type Expected = BTreeMap<Option<String>, Vec<(String, u64)>>;

/// The buckets of a name in a capture, line by line.
fn expected(page: &str, name: &str) -> Expected {
    let mut expected = Expected::new();
    for line in page.lines().filter(|line| line.starts_with(&format!("{name}_bucket{{"))) {
        let label = |label: &str| {
            let (_, rest) = line.split_once(&format!("{label}=\""))?;
            Some(rest.split_once('"').unwrap().0.to_owned())
        };
        let value = line.rsplit_once(' ').unwrap().1.trim_end_matches(".0");
        let rank = label("{engine").or_else(|| label("dp_rank"));
        expected.entry(rank).or_default().push((label("le").unwrap(), value.parse().unwrap()));
    }
    expected
}

#[test]
fn every_capture_gives_the_buckets_that_it_has() {
    let names = [
        ("vllm_v1", "vllm:", "inter_token_latency_seconds"),
        ("vllm_dp4", "vllm:", "inter_token_latency_seconds"),
        ("vllm_dp8", "vllm:", "inter_token_latency_seconds"),
        ("vllm_lora", "vllm:", "inter_token_latency_seconds"),
        ("vllm_old_names", "vllm:", "time_per_output_token_seconds"),
        ("sglang", "sglang:", "inter_token_latency_seconds"),
        ("trtllm", "trtllm_", "time_per_output_token_seconds"),
    ];
    for (capture, prefix, itl) in names {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures");
        let text = fs::read_to_string(format!("{folder}/{capture}.txt")).unwrap();
        for text in [text.clone(), text.replace(prefix, &prefix.replace(':', "_"))] {
            let page = read(&Engines::builtin(), &text);
            let prefix =
                if text.contains(prefix) { prefix.to_owned() } else { prefix.replace(':', "_") };
            let of_count = [
                (Quantity::TtftCount, format!("{prefix}time_to_first_token_seconds")),
                (Quantity::ItlCount, format!("{prefix}{itl}")),
            ];
            for (count, name) in of_count {
                let mut expected = expected(&text, &name);
                assert!(!expected.is_empty(), "{capture}: {name}");
                for row in &page.rows {
                    let Some((_, buckets)) = row.buckets.iter().find(|(of, _)| *of == count) else {
                        assert_eq!(row.numbers[count], None, "{capture}, rank {:?}", row.rank);
                        continue;
                    };
                    let expected =
                        expected.remove(&row.rank.as_deref().map(str::to_owned)).unwrap();
                    let [(_, counts)] = &*buckets.series else { panic!("{capture}: {buckets:?}") };
                    let mut up_to = 0;
                    for ((bound, count), line) in buckets.bounds.iter().zip(counts).zip(&expected) {
                        up_to += count;
                        assert_eq!((*bound, up_to), (line.0.parse().unwrap(), line.1), "{capture}");
                    }
                    assert_eq!(buckets.bounds.len(), expected.len(), "{capture}");
                    assert_eq!(row.numbers[count], Some(up_to as f64), "{capture}");
                }
                assert!(expected.is_empty(), "{capture}: no row has {expected:?}");
            }
        }
    }
}

#[test]
fn a_scanner_looks_for_buckets_only_when_told_to() {
    let engines = Engines::builtin();
    let name = "vllm:time_to_first_token_seconds_bucket";
    assert_eq!(engines.wanted().id_of(name), None);
    assert!(engines.wanted_with_buckets().id_of(name).is_some());
    // Buckets of other histograms are never read.
    let other = "vllm:e2e_request_latency_seconds_bucket";
    assert_eq!(engines.wanted_with_buckets().id_of(other), None);
    // A reader takes samples of both.
    let waiting = "vllm:num_requests_waiting";
    let id = engines.wanted().id_of(waiting);
    assert!(id.is_some() && id == engines.wanted_with_buckets().id_of(waiting));
}
