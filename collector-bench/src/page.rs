// SPDX-License-Identifier: Apache-2.0
//! Writes `docs/benchmarks.md` and its plots: what the report holds, with the words that it needs.

mod plots;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::report::Report;

const HEAD: &str = "\
# Benchmarks

Made by `cargo xtask bench`, which measures everything below in one run and writes this page. Ratios are taken
within that run and hold elsewhere; times drift from machine to machine and from hour to hour.
";

const HOW: &str = "\
Systems that are compared take turns, round by round, so that what else the machine does meets all of them, and
the best round of each counts. The allocator counts in all of them, which costs a few nanoseconds for each
allocation. Times of reads are those of whole passes over all keys, divided by their number.
";

/// What a suite measures, and how.
struct Section {
    suite: &'static str,
    title: &'static str,
    text: &'static str,
}

const SECTIONS: [Section; 17] = [
    Section {
        suite: "hit",
        title: "A cache hit",
        text: "A cached read of `replicas:<model>:<namespace>` of 8 replicas, with ids such as \
`meta-llama/Llama-3.1-8B-Instruct-17` in `inference-prod`, judged by ttl and freshness, the value shared.

*As written* is what a caller of each library writes: a key by `format!`, the library's own hasher, \
`Instant::now` for age and ttl; moka with an `Expiry` and LRU. *Like for like* takes all that away from the \
peers: the key is there already, the hasher and the coarse clock are ours. moka reads its own clock in both. \
*Spread* reads 10 000 entries in an order that no prefetcher guesses.",
    },
    Section {
        suite: "instructions",
        title: "Instructions",
        text: "Of one operation, counted by callgrind: the difference of two runs of different length, so that \
starting and filling fall out. Unlike a time, it does not depend on the machine's load.",
    },
    Section {
        suite: "threads",
        title: "Two threads",
        text: "Time of one read while another thread reads as fast as it can. On one hot key both pass the same \
cache lines back and forth. A write is an overwrite of the key that is read. Hits during a sweep are timed one \
by one, with the 20 to 30 ns that reading the clock takes; on a machine of two cores the slowest are those in \
which the thread was not running.",
    },
    Section {
        suite: "invalidate",
        title: "Dropping one model",
        text: "Ours finds what belongs to a model by an index. A cache with text keys walks over all of them.",
    },
    Section {
        suite: "overwrite",
        title: "Overwriting a key",
        text: "Putting a value in place of one that is there, as each refresh does, with an owned key that was \
made before.",
    },
    Section {
        suite: "memory",
        title: "Memory",
        text: "Bytes on the heap, as the allocator counts them, that stand around a value: key, table, index, \
times. The value itself, 8 replicas, is the same for all and not in it. *In all* is a whole collector with \
values, keys and the answers they were made of.",
    },
    Section {
        suite: "ratio",
        title: "Hit ratios",
        text: "How many accesses find their key, with room for a share of 10 000 keys. In the Zipf traces a scan \
of 2000 keys that nobody else wants comes after each 10 000 accesses. In the day of reconciles an autoscaler \
looks at variants as often as they have work, which has a rush hour for each, and walks over all of them each \
half hour. The traces are the same in each run.",
    },
    Section {
        suite: "miss",
        title: "Misses",
        text: "How often the backend is asked when a thousand callers want what is not there.",
    },
    Section {
        suite: "refresh",
        title: "A refresh from Prometheus",
        text: "One refresh of fleets with a model each for their variants and 4 to 8 pods a variant, over 40 \
namespaces, from a real Prometheus on the same machine. The *per-variant pattern* asks, one query after the \
other and each answer compressed, 5 things of a variant and 3 of its model, as the Workload Variant \
Autoscaler's own collector does. The *batched plan* reads the same fields and the age of every pod; its first \
look also learns the server's names and asks what is asked once a minute. What scraping costs the server, and \
reading its counters, is taken off. `wire` is what the answers weigh as they are sent.",
    },
    Section {
        suite: "adaptive",
        title: "Adaptive ttl",
        text: "How wrong held readings are, and how many looks they cost, with ttls that adapt and with \
fixed ones: see [adaptive ttls](adaptive-ttl.md).

![How wrong a held reading is, for the same looks](plots/adaptive.svg)",
    },
    Section {
        suite: "scan",
        title: "Reading a pod's page",
        text: "The scanner beside crates that read whole pages, and beside finding each newline, which is the \
least that a reader of lines must do.",
    },
    Section {
        suite: "sizes",
        title: "The program",
        text: "Its size, its memory, and how long a user waits for one reading, against a Prometheus with 800 \
pods.",
    },
    Section {
        suite: "latency",
        title: "From a change to a reading",
        text: "How long it takes until a change in a pod shows.",
    },
    Section {
        suite: "scrape",
        title: "Scraping pods directly",
        text: "What `collector serve` costs while it scrapes a simulated fleet, each in a process of its own.",
    },
    Section {
        suite: "autoscalers",
        title: "Autoscalers",
        text: "200 ScaledObjects with three triggers each, polled every 5 s by KEDA and every 15 s by the HPA, each at a \
time of its own. Queries on engines' series are passed on with their probe, so that they cost the Prometheus more than \
without a guard; queries on the collector's readings, and KEDA's external scaler, are answered from memory, and the \
Prometheus pays for the refresh of the readings alone. One query from memory is compared with a server of the web \
framework alone that gives the same answer, in a process of its own, over connections that stay open.",
    },
    Section {
        suite: "own-metrics",
        title: "Metrics of the collector itself",
        text: "The time to a whole page of `/metrics`, from the connection to its end, behind a real Prometheus; and one \
reading over connections that stay open, beside the same answer by the web framework alone.",
    },
    Section {
        suite: "daemon",
        title: "The daemon",
        text: "The processor time of `collector serve` at rest behind a real Prometheus, and what listeners of \
`/api/v1/events` add to it while 100 pods are scraped each second, so that each of 100 models changes each second. A reload \
is from the signal until one more variant is tracked, while others read.",
    },
];

/// Writes the page and its plots into the folder of the documentation.
pub(crate) fn write(docs: &Path, report: &Report) -> Result<()> {
    let plots = plots::draw(docs, report)?;
    let machine = report.machine();
    let mut page = format!("{HEAD}\nMeasured on: {}.\n\n{HOW}\n", machine.line());
    // Writing to a string cannot fail.
    if let Some(warning) = machine.warning() {
        let _ = writeln!(page, "**{warning}**\n");
    }
    let _ = writeln!(page, "## Goals\n\n{}", report.goals());
    for suite in report.suites() {
        let section = SECTIONS.iter().find(|section| section.suite == suite);
        let (title, text) = section.map_or((suite, ""), |it| (it.title, it.text));
        let _ = writeln!(page, "\n## {title}\n");
        if !text.is_empty() {
            let _ = writeln!(page, "{text}\n");
        }
        for plot in plots.iter().filter(|plot| plot.suite == suite) {
            let _ = writeln!(page, "![{}](plots/{})\n", plot.title, plot.file);
        }
        let tables: Vec<String> = report.tables(suite).iter().map(ToString::to_string).collect();
        let _ = writeln!(page, "{}", tables.join("\n\n"));
        for note in report.notes_of(suite) {
            let _ = writeln!(page, "\n{note}.");
        }
    }
    let path = docs.join("benchmarks.md");
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Figure;

    #[test]
    fn the_page_has_goals_tables_plots_and_what_was_not_measured() {
        let mut report = Report::new();
        for system in ["collector, by key", "moka::sync"] {
            let figure = Figure { name: "time", value: 26.0, unit: "ns" };
            report.row("hit", crate::hit::HOT_WRITTEN, system, &[figure]);
        }
        report.note("refresh", "not measured: there is no `prometheus` program");
        report.goal_at_least("hit.keyed.vs_moka_sync", 7.0, 9.4);
        let docs = tempfile::tempdir().unwrap();

        write(docs.path(), &report).unwrap();

        let page = fs::read_to_string(docs.path().join("benchmarks.md")).unwrap();
        for part in [
            "hit.keyed.vs_moka_sync",
            "## A cache hit",
            "![A hit among 100 entries](plots/hit-hot.svg)",
            "moka::sync",
            "## A refresh from Prometheus",
            "not measured: there is no `prometheus` program.",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert!(!page.contains("hit-growth.svg"), "what was not measured has no plot");
        let plot = fs::read_to_string(docs.path().join("plots/hit-hot.svg")).unwrap();
        assert!(plot.contains("moka::sync"), "{plot}");
    }

    #[test]
    fn every_suite_has_a_section_of_its_own() {
        let mut names: Vec<&str> = SECTIONS.iter().map(|section| section.suite).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SECTIONS.len());
    }
}
