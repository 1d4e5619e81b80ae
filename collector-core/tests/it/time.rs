// SPDX-License-Identifier: Apache-2.0
//! Clocks.

use std::time::{Duration, SystemTime};

use collector_core::{Clock, ManualClock, NoVariants, SystemClock, Tick, VariantDirectory};

#[test]
fn a_manual_clock_moves_by_what_it_is_advanced() {
    let clock = ManualClock::new();
    let (start, wall) = (clock.now(), clock.wall());
    clock.advance(Duration::from_secs(3));
    clock.catch_up();
    assert_eq!(start.age(clock.now()), Duration::from_secs(3));
    assert!(clock.now() > start);
    assert_eq!(clock.wall().duration_since(wall).unwrap(), Duration::from_secs(3));
    assert_eq!(wall, SystemTime::UNIX_EPOCH);
}

#[test]
fn the_machines_clock_moves() {
    let clock = SystemClock::new();
    let start = clock.now();
    // Its step is some milliseconds; a clock that stands still hangs here, and the runner says so.
    while clock.now() <= start {}
}

#[test]
fn there_is_room_for_a_century_before_the_machines_start() {
    let century = Duration::from_secs(100 * 365 * 86_400);
    for now in [ManualClock::new().now(), SystemClock::new().now()] {
        let long_ago = now - century;
        assert!(long_ago > Tick::MIN);
        assert_eq!(long_ago.age(now), century);
    }
}

#[test]
fn a_tick_survives_the_way_through_its_nanoseconds() {
    let tick = ManualClock::new().now() + Duration::from_nanos(5);
    assert_eq!(Tick::from_nanos(tick.to_nanos()), tick);
    assert_eq!(Tick::from_nanos(7).to_nanos(), 7);
}

#[test]
fn a_directory_without_variants_stays_empty() {
    assert!(NoVariants.variants().is_empty());
    assert_eq!(NoVariants.generation(), 0);
}
