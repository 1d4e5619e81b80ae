// SPDX-License-Identifier: Apache-2.0
//! A model is fetched once at a time, and no caller that joins is lost.

use std::sync::Arc;

use collector_testkit::explore;
use loom::thread;

use super::world::{Seen, World};
use crate::fetch::next_batch::NextBatch;

#[test]
fn concurrent_readers_share_one_fetch_and_each_gets_its_value() {
    explore(|| {
        let world = World::new();
        let readers = [(); 2].map(|()| world.spawn(World::read));
        let mut seen = vec![world.read()];
        seen.extend(readers.map(|reader| reader.join().unwrap()));

        assert_eq!(world.fetches(), 1, "nothing expires here");
        for seen in seen {
            assert_eq!(seen.value(), Some(1), "a reader was lost");
        }
        assert!(world.nothing_is_in_flight());
    });
}

#[test]
fn a_refresh_and_readers_lose_nobody() {
    explore(|| {
        let world = World::new();
        let worker = world.spawn(World::refresh);
        let reader = world.spawn(World::read);
        let seen = world.read();
        worker.join().unwrap();
        for seen in [seen, reader.join().unwrap()] {
            assert_eq!(seen.value(), Some(1), "a reader was lost");
        }
        assert!(world.nothing_is_in_flight() && world.is_tracked());
    });
}

#[test]
fn a_caller_who_joins_a_fetch_that_is_given_up_learns_it_and_the_next_read_fetches() {
    explore(|| {
        let world = World::new();
        let given_up = world.spawn(World::give_up);
        let reader = world.spawn(World::read);
        let seen = [world.read(), reader.join().unwrap()];
        let given_up = given_up.join().unwrap();

        for seen in seen {
            let learns_it = match (&seen, &given_up) {
                (Seen::Waits(fetch), Some(given_up)) => Arc::ptr_eq(fetch, given_up),
                _ => false,
            };
            assert!(learns_it || seen.value() == Some(1), "a reader was lost");
        }
        assert_eq!(world.read().value(), Some(1));
    });
}

#[test]
fn of_two_who_add_to_a_batch_one_opens_it() {
    explore(|| {
        let next = Arc::new(NextBatch::default());
        let other = {
            let next = Arc::clone(&next);
            thread::spawn(move || next.add(&mut vec![Arc::new("one")]))
        };
        let openers =
            u32::from(next.add(&mut vec![Arc::new("two")])) + u32::from(other.join().unwrap());
        assert_eq!(openers, 1);
        assert_eq!(next.take().len(), 2);
    });
}
