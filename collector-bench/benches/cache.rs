// SPDX-License-Identifier: Apache-2.0
//! The cache and its peers, for `cargo bench --package collector-bench --bench cache` while one works on it: a
//! group for each table of `cargo xtask bench`, a bench for each row.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

fn cases(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime starts");
    let cases = runtime.block_on(collector_bench::cases()).expect("the caches are filled");
    for mut case in cases {
        let mut group = criterion.benchmark_group(case.title());
        for system in case.systems() {
            let operations = u64::from(system.operations());
            group.bench_function(system.name(), |bencher| {
                bencher.iter_custom(|iterations| {
                    // Whole runs, of which criterion is told the share that it asked for.
                    let runs = iterations.div_ceil(operations).max(1);
                    let runs = u32::try_from(runs).unwrap_or(u32::MAX);
                    let time = system.run(runs).expect("no entry is lost");
                    let done = u64::from(runs) * operations;
                    Duration::from_secs_f64(time.as_secs_f64() * iterations as f64 / done as f64)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, cases);
criterion_main!(benches);
