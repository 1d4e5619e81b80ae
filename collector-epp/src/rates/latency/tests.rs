// SPDX-License-Identifier: Apache-2.0
use super::*;
use proptest::prelude::*;

const WINDOW: Duration = Duration::from_secs(60);
const BOUNDS: [f64; 3] = [0.1, 1.0, f64::INFINITY];

fn at(seconds: u64) -> Tick {
    Tick::from_nanos((1 << 62) + seconds * 1_000_000_000)
}

/// The buckets of one page: of each series its hash and the observations of each bucket.
fn page<const N: usize>(series: [(u64, [u64; 3]); N]) -> Buckets {
    let series = series.map(|(hash, counts)| (hash, Box::from(counts)));
    Buckets { bounds: BOUNDS.into(), series: series.into() }
}

/// The observations of each bucket in the window.
fn counts(window: &LatencyWindow) -> Option<Vec<u64>> {
    window.histogram().map(|histogram| histogram.counts().to_vec())
}

#[test]
fn a_window_takes_two_pages() {
    let mut window = LatencyWindow::default();
    window.record(at(0), Some(&page([(7, [100, 20, 3])])), WINDOW);
    assert_eq!(counts(&window), None);
    window.record(at(30), Some(&page([(7, [101, 25, 3])])), WINDOW);
    assert_eq!(counts(&window), Some(vec![1, 5, 0]));
    assert_eq!(window.newest_at(), Some(at(30)));
    // Nothing ended: known, and empty.
    window.record(at(80), Some(&page([(7, [101, 25, 3])])), WINDOW);
    window.record(at(95), Some(&page([(7, [101, 25, 3])])), WINDOW);
    assert_eq!(counts(&window), Some(vec![0, 0, 0]));
}

#[test]
fn a_restart_counts_what_came_after_it_in_each_bucket() {
    let mut window = LatencyWindow::default();
    window.record(at(0), Some(&page([(7, [100, 20, 3])])), WINDOW);
    window.record(at(10), Some(&page([(7, [110, 20, 3])])), WINDOW);
    // More observations than before in some buckets, which would hide the restart from these.
    window.record(at(20), Some(&page([(7, [5, 60, 4])])), WINDOW);
    assert_eq!(counts(&window), Some(vec![10 + 5, 60, 4]));
}

#[test]
fn series_restart_one_by_one_and_a_new_one_adds_nothing() {
    let mut window = LatencyWindow::default();
    window.record(at(0), Some(&page([(7, [100, 0, 0]), (8, [50, 0, 0])])), WINDOW);
    window.record(at(10), Some(&page([(7, [101, 0, 0]), (8, [2, 0, 0])])), WINDOW);
    assert_eq!(counts(&window), Some(vec![3, 0, 0]));
    window.record(at(20), Some(&page([(8, [2, 1, 0]), (9, [1000, 1000, 0])])), WINDOW);
    assert_eq!(counts(&window), Some(vec![3, 1, 0]));
}

#[test]
fn other_bounds_or_a_page_without_buckets_begin_the_window_again() {
    let good = |count| page([(7, [count, 0, 0])]);
    let other = Buckets { bounds: [0.2, 1.0, f64::INFINITY].into(), ..good(30) };
    for between in [Some(&other), None] {
        let mut window = LatencyWindow::default();
        window.record(at(0), Some(&good(10)), WINDOW);
        window.record(at(10), Some(&good(20)), WINDOW);
        assert_eq!(counts(&window), Some(vec![10, 0, 0]));
        window.record(at(20), between, WINDOW);
        assert_eq!(counts(&window), None);
        window.record(at(30), Some(&good(40)), WINDOW);
        assert_eq!(counts(&window), None, "no bucket of the two is the same");
        window.record(at(40), Some(&good(45)), WINDOW);
        assert_eq!(counts(&window), Some(vec![5, 0, 0]));
    }
}

#[test]
fn a_gap_longer_than_the_window_begins_it_again() {
    let mut window = LatencyWindow::default();
    window.record(at(0), Some(&page([(7, [10, 0, 0])])), WINDOW);
    window.record(at(10), Some(&page([(7, [20, 0, 0])])), WINDOW);
    window.record(at(71), Some(&page([(7, [500, 0, 0])])), WINDOW);
    assert_eq!(counts(&window), None);
    window.record(at(80), Some(&page([(7, [501, 0, 0])])), WINDOW);
    assert_eq!(counts(&window), Some(vec![1, 0, 0]));
}

#[test]
fn a_page_older_than_the_last_is_ignored() {
    let mut window = LatencyWindow::default();
    window.record(at(10), Some(&page([(7, [10, 0, 0])])), WINDOW);
    window.record(at(20), Some(&page([(7, [15, 0, 0])])), WINDOW);
    for earlier in [5, 20] {
        window.record(at(earlier), Some(&page([(7, [3, 0, 0])])), WINDOW);
        assert_eq!(counts(&window), Some(vec![5, 0, 0]));
    }
}

#[test]
fn more_observations_than_fit_begin_the_window_again() {
    let mut window = LatencyWindow::default();
    window.record(at(0), Some(&page([(7, [0, 0, 0])])), WINDOW);
    window.record(at(10), Some(&page([(7, [1 << 33, 0, 0])])), WINDOW);
    assert_eq!(counts(&window), None);
    window.record(at(20), Some(&page([(7, [(1 << 33) + 1, 0, 0])])), WINDOW);
    assert_eq!(counts(&window), Some(vec![1, 0, 0]));
}

proptest! {
    /// Requests end one by one, at known times, in servers that restart.
    #[test]
    fn the_window_has_the_requests_since_its_oldest_page(
        steps in prop::collection::vec((10_u64..40, any::<prop::sample::Index>(), 0_u64..30, prop::bool::weighted(0.1)), 1..40),
    ) {
        let mut window = LatencyWindow::default();
        let (mut now, mut total) = (0, [0_u64; 3]);
        // When each page was, and what ended since the page before.
        let mut ended: Vec<(u64, [u64; 3])> = Vec::new();
        for (step, bucket, requests, restarts) in steps {
            now += step;
            // A restart that shows: some bucket had more before.
            let restarts = restarts && total.iter().sum::<u64>() > requests;
            let mut since = [0; 3];
            since[bucket.index(3)] = requests;
            let base = if restarts { [0; 3] } else { total };
            total = std::array::from_fn(|index| base[index] + since[index]);
            window.record(at(now), Some(&page([(7, total)])), WINDOW);
            ended.push((now, since));
            let in_window = ended.iter().filter(|(at, _)| now - at <= 60).skip(1);
            let sum = in_window.clone().fold([0; 3], |sum: [u64; 3], (_, since)| {
                std::array::from_fn(|index| sum[index] + since[index])
            });
            let expected = (in_window.count() > 0).then(|| sum.to_vec());
            prop_assert_eq!(counts(&window), expected);
        }
    }
}

#[test]
fn a_window_has_seven_pages_however_close_they_are() {
    let mut window = LatencyWindow::default();
    for second in 0..50 {
        window.record(at(second), Some(&page([(7, [second, 0, 0])])), WINDOW);
    }
    assert_eq!(window.pages.len(), 7);
    assert_eq!(counts(&window), Some(vec![6, 0, 0]));
}

#[test]
fn a_histogram_of_23_buckets_holds_less_than_1500_bytes() {
    let bounds: Arc<[f64]> = (1..23).map(f64::from).chain([f64::INFINITY]).collect();
    let page =
        |count| Buckets { bounds: Arc::clone(&bounds), series: vec![(7, [count; 23].into())] };
    let mut window = LatencyWindow::default();
    let measured = allocation_counter::measure(|| {
        for part in 0..50 {
            window.record(at(part * 10), Some(&page(part)), WINDOW);
        }
    });
    assert_eq!(window.pages.len(), 7);
    assert!(measured.bytes_current < 1500, "{measured:?}");
}
