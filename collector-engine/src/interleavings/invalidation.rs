// SPDX-License-Identifier: Apache-2.0
//! Nothing that was sampled before an invalidation is left after it, nor answered to a read from after it.

use collector_testkit::explore;

use super::world::World;

#[test]
fn a_superseded_fetch_stores_nothing_and_no_later_read_joins_it() {
    for untrack in [false, true] {
        explore(move || {
            let world = World::new();
            let before_or_after = world.spawn(World::read);
            let after = world.spawn(move |world| {
                world.change_and_invalidate(untrack);
                world.read()
            });
            let (before_or_after, after) = (before_or_after.join().unwrap(), after.join().unwrap());

            assert_eq!(after.value(), Some(2), "the answer is from before the invalidation");
            assert!(before_or_after.value().is_some(), "a caller from before is answered as well");
            assert_eq!(
                world.cached(),
                Some(2),
                "what was fetched after is stored, and nothing else"
            );
            assert!(world.nothing_is_in_flight());
        });
    }
}

#[test]
fn a_superseded_refresh_stores_nothing() {
    explore(|| {
        let world = World::new();
        let worker = world.spawn(World::refresh);
        let reader = world.spawn(World::read);
        world.change_and_invalidate(false);
        let after = world.read();
        worker.join().unwrap();
        let reader = reader.join().unwrap();

        assert_eq!(after.value(), Some(2), "the answer is from before the invalidation");
        assert!(reader.value().is_some(), "a caller from before is answered as well");
        assert_eq!(world.cached(), Some(2), "what was fetched after is stored, and nothing else");
        assert!(world.nothing_is_in_flight());
    });
}

#[test]
fn a_push_sampled_before_an_invalidation_is_not_stored() {
    explore(|| {
        let world = World::new();
        world.track();
        let pushes = [(); 2].map(|()| world.spawn(World::push));
        world.change_and_invalidate(false);
        for push in pushes {
            push.join().unwrap();
        }
        assert_ne!(world.cached(), Some(1), "an old value was left behind");
    });
}

#[test]
fn a_push_sampled_before_an_invalidation_is_not_stored_in_a_model_that_is_tracked_again() {
    explore(|| {
        let world = World::new();
        world.track();
        let push = world.spawn(World::push);
        let again = world.spawn(World::track);
        world.change_and_invalidate(true);
        push.join().unwrap();
        again.join().unwrap();
        assert_ne!(world.cached(), Some(1), "an old value was left behind");
    });
}
