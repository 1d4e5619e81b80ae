// SPDX-License-Identifier: Apache-2.0
//! What a page costs once a scanner has seen its like.

use std::hint::black_box;
use std::sync::Arc;

use super::super::{Ended, Format, Limits, Scanner, Wanted};
use super::captures;

/// Allocations while a page is read in chunks of a size that cuts lines in two.
fn allocations(scanner: &mut Scanner, page: &str) -> u64 {
    let measured = allocation_counter::measure(|| {
        let mut samples = 0;
        scanner.begin(Format::Text);
        for chunk in page.as_bytes().chunks(4093) {
            scanner
                .feed(chunk, |sample| {
                    black_box(sample.labels.get("model_name"));
                    samples += 1;
                })
                .unwrap();
        }
        assert_eq!(scanner.finish(Ended::Complete, |_| {}).unwrap().samples, samples);
        assert!(samples > 0);
    });
    measured.count_total
}

#[test]
fn a_page_like_the_last_one_is_read_without_allocating() {
    for (path, page) in captures::all() {
        let wanted = Arc::new(Wanted::new(captures::names(&page)));
        let mut scanner = Scanner::new(wanted, Limits::default());
        assert!(allocations(&mut scanner, &page) > 0, "buffers grow with the first page");
        assert_eq!(allocations(&mut scanner, &page), 0, "{path:?}");
    }
}
