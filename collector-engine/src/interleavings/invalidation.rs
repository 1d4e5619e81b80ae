//! Nothing that was looked at before an invalidation is left after it, nor told to who reads after it.

use collector_testkit::explore;

use super::world::World;

#[test]
fn a_fetch_from_before_leaves_nothing_and_a_read_from_after_never_joins_it() {
    explore(|| {
        let world = World::new();
        let before_or_after = world.spawn(World::read);
        let after = world.spawn(|world| {
            world.change_and_invalidate();
            world.read()
        });
        let (before_or_after, after) = (before_or_after.join().unwrap(), after.join().unwrap());

        assert_eq!(after.value(), Some(2), "what was begun before is told after");
        assert!(before_or_after.value().is_some(), "who joined before is answered all the same");
        world.assert_only_what_came_after_is_kept();
        assert_eq!(world.cached(), Some(2), "what was fetched after was not stored");
        assert!(world.nothing_is_listed());
    });
}

#[test]
fn a_refresh_and_a_reader_from_before_leave_nothing_either() {
    explore(|| {
        let world = World::new();
        let worker = world.spawn(World::refresh);
        let reader = world.spawn(World::read);
        world.change_and_invalidate();
        let after = world.read();
        worker.join().unwrap();
        let reader = reader.join().unwrap();

        assert_eq!(after.value(), Some(2), "what was begun before is told after");
        assert!(reader.value().is_some(), "who joined before is answered all the same");
        world.assert_only_what_came_after_is_kept();
        assert_eq!(world.cached(), Some(2), "what was fetched after was not stored");
        assert!(world.nothing_is_listed());
    });
}

#[test]
fn a_push_of_what_was_seen_before_leaves_nothing() {
    explore(|| {
        let world = World::new();
        let pushes = [(); 2].map(|()| world.spawn(World::push));
        world.change_and_invalidate();
        for push in pushes {
            push.join().unwrap();
        }

        world.assert_only_what_came_after_is_kept();
    });
}
