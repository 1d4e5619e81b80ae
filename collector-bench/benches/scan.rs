// SPDX-License-Identifier: Apache-2.0
//! The scanner alone, for `cargo bench --package collector-bench` while one works on it.

use std::hint::black_box;
use std::sync::Arc;

use collector_epp::engines::Engines;
use collector_epp::scan::{Ended, Format, Limits, Sample, Scanner};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const PAGES: [(&str, &str); 3] = [
    ("vllm_v1", include_str!("../../collector-epp/tests/captures/vllm_v1.txt")),
    ("vllm_dp8", include_str!("../../collector-epp/tests/captures/vllm_dp8.txt")),
    ("epp", include_str!("../../collector-epp/tests/captures/epp.txt")),
];

fn pages(criterion: &mut Criterion) {
    let engines = Engines::builtin();
    let mut group = criterion.benchmark_group("scan");
    for (name, page) in PAGES {
        group.throughput(Throughput::Bytes(page.len() as u64));
        let mut scanner = Scanner::new(Arc::clone(engines.wanted()), Limits::default());
        group.bench_function(name, |bencher| bencher.iter(|| read(&mut scanner, page)));
    }
}

fn read(scanner: &mut Scanner, page: &str) -> u64 {
    let each = |sample: &Sample<'_>| {
        black_box(sample);
    };
    scanner.begin(Format::Text);
    scanner.feed(page.as_bytes(), each).expect("the page is within its limit");
    scanner.finish(Ended::Complete, each).expect("the page is within its limit").samples
}

criterion_group!(benches, pages);
criterion_main!(benches);
