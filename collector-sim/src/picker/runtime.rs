// SPDX-License-Identifier: Apache-2.0
//! The families of any Go controller: on the page, but not simulated.

use crate::engine::{Histogram, Numbers, Page, bound_label, labels};

const CONTROLLERS: [&str; 4] =
    ["inferencemodelrewrite", "inferenceobjective", "inferencepool", "pod"];

const RECONCILE: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9,
    1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0,
    25.0, 30.0, 40.0, 50.0, 60.0,
];
/// Powers of ten as the library computes them.
const WORK: &[f64] = &[
    1e-8,
    1e-7,
    1e-6,
    9.999_999_999_999_999e-6,
    9.999_999_999_999_999e-5,
    0.001,
    0.01,
    0.1,
    1.0,
    10.0,
    100.0,
    1000.0,
];

/// The families whose names sort before the picker's own.
pub(super) fn before(page: &mut Page) {
    page.family("certwatcher_read_certificate_total", "Certificate reads", "counter");
    page.sample("certwatcher_read_certificate_total", &[], 0.0);
    let controllers = CONTROLLERS.map(|name| labels(&[("controller", name)]));
    for (family, kind, value) in [
        ("controller_runtime_active_workers", "gauge", 0.0),
        ("controller_runtime_max_concurrent_reconciles", "gauge", 1.0),
        ("controller_runtime_reconcile_errors_total", "counter", 0.0),
    ] {
        page.family(family, "Controllers", kind);
        for labels in &controllers {
            page.sample(family, &[labels], value);
        }
    }
    let family = "controller_runtime_reconcile_time_seconds";
    unused_histograms(page, family, RECONCILE, &controllers);
    let family = "controller_runtime_reconcile_total";
    page.family(family, "Reconciliations", "counter");
    for controller in &controllers {
        for result in ["error", "requeue", "requeue_after", "success"] {
            page.sample(family, &[controller, &labels(&[("result", result)])], 0.0);
        }
    }
    go(page);
}

fn go(page: &mut Page) {
    let family = "go_gc_duration_seconds";
    page.family(family, "Pauses of the garbage collector", "summary");
    for (quantile, value) in
        [("0", 3.2e-5), ("0.25", 5.1e-5), ("0.5", 7.4e-5), ("0.75", 0.000_121), ("1", 0.0012)]
    {
        page.sample(family, &[&labels(&[("quantile", quantile)])], value);
    }
    page.sample("go_gc_duration_seconds_sum", &[], 1.82);
    page.sample("go_gc_duration_seconds_count", &[], 20_311.0);
    for (family, kind, labels, value) in [
        ("go_gc_gogc_percent", "gauge", "", 100.0),
        ("go_gc_gomemlimit_bytes", "gauge", "", 9.223_372_036_854_776e18),
        ("go_goroutines", "gauge", "", 412.0),
        ("go_info", "gauge", "version=\"go1.25.3\",", 1.0),
        ("go_memstats_alloc_bytes", "gauge", "", 8.1e7),
        ("go_memstats_alloc_bytes_total", "counter", "", 1.2e12),
        ("go_memstats_frees_total", "counter", "", 9e9),
        ("go_memstats_heap_alloc_bytes", "gauge", "", 8.1e7),
        ("go_memstats_heap_idle_bytes", "gauge", "", 4.6e7),
        ("go_memstats_heap_inuse_bytes", "gauge", "", 9.3e7),
        ("go_memstats_heap_objects", "gauge", "", 512_331.0),
        ("go_memstats_heap_released_bytes", "gauge", "", 2.1e7),
        ("go_memstats_heap_sys_bytes", "gauge", "", 1.4e8),
        ("go_memstats_last_gc_time_seconds", "gauge", "", 1.755_400_099_5e9),
        ("go_memstats_mallocs_total", "counter", "", 9.1e9),
        ("go_memstats_next_gc_bytes", "gauge", "", 1.5e8),
        ("go_memstats_stack_inuse_bytes", "gauge", "", 6.8e6),
        ("go_memstats_sys_bytes", "gauge", "", 1.7e8),
        ("go_sched_gomaxprocs_threads", "gauge", "", 8.0),
        ("go_threads", "gauge", "", 19.0),
    ] {
        page.family(family, "Go runtime", kind);
        page.sample(family, &[labels], value);
    }
}

/// The families whose names sort after the picker's own.
pub(super) fn after(page: &mut Page, started: f64) {
    for (family, kind, value) in [
        ("process_cpu_seconds_total", "counter", 88_123.4),
        ("process_max_fds", "gauge", 1_048_576.0),
        ("process_open_fds", "gauge", 77.0),
        ("process_resident_memory_bytes", "gauge", 1.9e8),
        ("process_start_time_seconds", "gauge", started),
        ("process_virtual_memory_bytes", "gauge", 1.4e9),
        ("process_virtual_memory_max_bytes", "gauge", 1.844_674_407_370_955_2e19),
    ] {
        page.family(family, "Process", kind);
        page.sample(family, &[], value);
    }
    let family = "rest_client_requests_total";
    page.family(family, "Requests to the API server", "counter");
    for code in ["200", "201", "409"] {
        let labels = labels(&[("code", code), ("host", "172.30.0.1:443"), ("method", "GET")]);
        page.sample(family, &[&labels], 0.0);
    }
    let queues = CONTROLLERS.map(|name| labels(&[("controller", name), ("name", name)]));
    page.family("workqueue_adds_total", "Items added", "counter");
    for queue in &queues {
        page.sample("workqueue_adds_total", &[queue], 0.0);
    }
    page.family("workqueue_depth", "Items waiting", "gauge");
    for queue in &queues {
        page.sample("workqueue_depth", &[queue, "priority=\"0\","], 0.0);
    }
    unused_histograms(page, "workqueue_queue_duration_seconds", WORK, &queues);
    unused_histograms(page, "workqueue_work_duration_seconds", WORK, &queues);
}

fn unused_histograms(page: &mut Page, name: &str, bounds: &'static [f64], series: &[String]) {
    let histogram = Histogram::of_times(bounds);
    page.family(name, "Time taken", "histogram");
    for labels in series {
        for bound in histogram.bounds().iter().copied().chain([f64::INFINITY]) {
            let le = bound_label(Numbers::Go, bound);
            page.sample(&format!("{name}_bucket"), &[labels, &le], 0.0);
        }
        page.sample(&format!("{name}_sum"), &[labels], 0.0);
        page.sample(&format!("{name}_count"), &[labels], 0.0);
    }
}
