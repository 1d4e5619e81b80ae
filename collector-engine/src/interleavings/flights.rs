//! A model is fetched once at a time, and nobody who joins is lost.

use std::sync::Arc;

use collector_core::ModelRef;
use collector_testkit::explore;

use super::world::{Flight, Seen, World};
use crate::flight::table::Joined;

#[test]
fn readers_at_once_share_one_fetch_and_each_gets_its_value() {
    explore(|| {
        let world = World::new();
        let readers = [(); 2].map(|()| world.spawn(World::read));
        let mut seen = vec![world.read()];
        seen.extend(readers.map(|reader| reader.join().unwrap()));

        assert_eq!(world.fetches(), 1, "nothing expires here");
        for seen in seen {
            assert_eq!(seen.value(), Some(1), "a reader was lost");
        }
        assert!(world.nothing_is_listed());
    });
}

#[test]
fn a_refresh_and_readers_never_fetch_at_once() {
    explore(|| {
        let world = World::new();
        let worker = world.spawn(World::refresh);
        let reader = world.spawn(World::read);
        let seen = [world.read(), {
            worker.join().unwrap();
            reader.join().unwrap()
        }];

        for seen in seen {
            assert_eq!(seen.value(), Some(1), "a reader was lost");
        }
        assert!(world.nothing_is_listed());
    });
}

#[test]
fn whoever_joins_a_fetch_that_is_given_up_is_told_and_the_next_read_fetches() {
    explore(|| {
        let world = World::new();
        // A task that is dropped in flight, as `Aloft` does it.
        let given_up = world.spawn(|world| {
            let models = vec![world.model.clone()];
            let (flights, _) = world.table.charter(&world.gate, models, |_| Flight::default());
            for flight in &flights {
                world.table.take_off_list(&world.model, flight);
            }
            flights
        });
        let reader = world.spawn(World::read);
        let seen = [world.read(), reader.join().unwrap()];
        let given_up = given_up.join().unwrap();

        for seen in seen {
            let told = match &seen {
                Seen::Rides(flight) => given_up.iter().any(|f| Arc::ptr_eq(f, flight)),
                Seen::Cached(_) => false,
            };
            assert!(told || seen.value() == Some(1), "a reader was lost");
        }
        assert_eq!(world.read().value(), Some(1));
    });
}

#[test]
fn two_who_board_at_once_have_one_departure() {
    explore(|| {
        let world = World::new();
        let board = |world: &World, name| {
            let model = ModelRef::new(name, "prod");
            let joined = world.table.join(&model, || None::<()>, |_| Flight::default());
            matches!(joined, Joined::Boards { opens_boarding: true, .. })
        };
        let other = world.spawn(move |world| board(world, "one"));
        let openers = u32::from(board(&world, "two")) + u32::from(other.join().unwrap());
        assert_eq!(openers, 1);
        assert_eq!(world.table.depart(&world.gate).0.len(), 2);
    });
}
