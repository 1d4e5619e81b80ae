// SPDX-License-Identifier: Apache-2.0
//! The API server fails: nothing is forgotten, no zero is made up, and the age is told.

use std::time::Duration;

use collector_core::VariantDirectory as _;
use collector_testkit::kubernetes::{Fault, Interruption, Scope, Verb, kinds};

use crate::fixture::{Kubeconfig, NAMESPACE, Watching, server, starting};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn in_a_quiet_cluster_the_supply_is_half_a_minute_old_at_most() {
    let server = server(1).await;
    let watching = Watching::new(&server);
    watching.wait_for("0=ready").await;
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_secs(7)).await;
        let age = watching.age();
        assert!(age < Duration::from_secs(40), "{age:?}");
    }
    let lists = server.counters().requests(Verb::List, kinds::PODS);
    assert_eq!(lists, 1, "a watch goes on from where the last one ended");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_for_a_minute_is_told_and_nothing_is_forgotten() {
    let mut server = server(2).await;
    let watching = Watching::new(&server);
    watching.wait_for("0=ready 1=ready").await;
    server.stop().await.unwrap();
    watching.wait_for_failure("could not be read").await;
    tokio::time::sleep(MINUTE).await;
    watching.wait_for_failure("could not be read for 1m").await;
    assert_eq!(watching.cluster.directory().variants().len(), 1);
    server.delete(kinds::PODS, NAMESPACE, "d-5d4f8c7b9-0");
    server.resume().unwrap();
    watching.wait_for("1=ready").await;
    let lists = server.counters().requests(Verb::List, kinds::PODS);
    assert_eq!(lists, 1, "the watch goes on after a restart");
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_makes_the_supply_age_until_all_is_listed_again() {
    let server = server(1).await;
    let watching = Watching::new(&server);
    watching.wait_for("0=ready").await;
    server.set_fault(Scope::Verb(Verb::Watch, kinds::PODS), Fault::SilentWatch);
    tokio::time::sleep(Duration::from_secs(40)).await;
    let age = watching.age();
    assert!(age > Duration::from_secs(30), "{age:?}");
    assert_eq!(watching.shown().as_deref(), Some("0=ready"));
    server.apply(starting("p"));
    watching.wait_for("0=ready p=starting").await;
    assert_eq!(server.counters().requests(Verb::List, kinds::PODS), 2);
}

#[tokio::test(start_paused = true)]
async fn after_a_version_that_is_too_old_all_is_listed_again() {
    for by_status in [false, true] {
        let server = server(2).await;
        server.refuse_expired_watches(by_status);
        let watching = Watching::new(&server);
        watching.wait_for("0=ready 1=ready").await;
        server.set_fault(Scope::Verb(Verb::Watch, kinds::PODS), Fault::InternalError);
        server.interrupt_watches(kinds::PODS, Interruption::BrokenConnection);
        watching.wait_for_failure("pods could not be read").await;
        server.delete(kinds::PODS, NAMESPACE, "d-5d4f8c7b9-0");
        server.apply(starting("p"));
        server.forget_history();
        server.clear_faults();
        watching.wait_for("1=ready p=starting").await;
        assert_eq!(server.counters().requests(Verb::List, kinds::PODS), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn while_all_is_listed_again_what_is_known_stays() {
    let server = server(2).await;
    let watching = Watching::new(&server);
    watching.wait_for("0=ready 1=ready").await;
    let held = server.hold_pages(kinds::PODS);
    server.interrupt_watches(kinds::PODS, Interruption::Gone);
    server.wait_for(|counters| counters.held_pages(kinds::PODS) == 1).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(watching.shown().as_deref(), Some("0=ready 1=ready"));
    assert!(watching.age() >= Duration::from_secs(20));
    server.delete(kinds::PODS, NAMESPACE, "d-5d4f8c7b9-0");
    drop(held);
    watching.wait_for("1=ready").await;
}

#[tokio::test(start_paused = true)]
async fn a_list_whose_pages_expire_is_begun_again() {
    let server = server(0).await;
    server.apply_all((0..1200).map(|n| starting(&format!("p{n}"))));
    let held = server.hold_pages(kinds::PODS);
    let watching = Watching::new(&server);
    held.release(2);
    server
        .wait_for(|counters| {
            counters.held_pages(kinds::PODS) == 1 && counters.requests(Verb::List, kinds::PODS) == 3
        })
        .await;
    assert_eq!(watching.shown(), None, "a part of a list is no answer");
    server.expire_continue_tokens();
    drop(held);
    let all = |answer: &collector_core::Answer| match answer {
        collector_core::Answer::Found(sample) => {
            sample.supply.as_ref().unwrap().pods().count() == 1200
        }
        _ => false,
    };
    watching.wait("all pods", all).await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_read_again() {
    let server = server(1).await;
    let kubeconfig = Kubeconfig::new(&server.url());
    server.accept_tokens(["token"]);
    let watching = Watching::with_config(kubeconfig.config());
    watching.wait_for("0=ready").await;
    server.accept_tokens(["other"]);
    watching.wait_for_failure("not authorized (401)").await;
    kubeconfig.set_token("other");
    watching.wait_for("0=ready").await;
    let lists = server.counters().requests(Verb::List, kinds::PODS);
    assert_eq!(lists, 1, "the watch goes on with the new token");
}

#[tokio::test(start_paused = true)]
async fn half_an_event_is_no_event() {
    let server = server(1).await;
    let watching = Watching::new(&server);
    watching.wait_for("0=ready").await;
    for interruption in [
        Interruption::HalfEvent,
        Interruption::BrokenConnection,
        Interruption::End,
        Interruption::InternalError,
        Interruption::Garbage,
    ] {
        server.interrupt_watches(kinds::PODS, interruption);
        server.apply(starting("p"));
        watching.wait_for("0=ready p=starting").await;
        server.delete(kinds::PODS, NAMESPACE, "p");
        watching.wait_for("0=ready").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_restored_from_a_backup_is_listed_again() {
    let mut server = server(1).await;
    let watching = Watching::new(&server);
    watching.wait_for("0=ready").await;
    server.stop().await.unwrap();
    server.renumber();
    server.apply(starting("p"));
    server.resume().unwrap();
    watching.wait_for("0=ready p=starting").await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_overloaded_is_left_alone_as_long_as_it_asks() {
    let server = server(1).await;
    server.set_fault(kinds::PODS, Fault::TooManyRequests { retry_after_seconds: 20 });
    let watching = Watching::new(&server);
    watching.wait_for_failure("too many requests (429)").await;
    tokio::time::sleep(MINUTE).await;
    let lists = server.counters().requests(Verb::List, kinds::PODS);
    assert!(lists <= 4, "{lists} lists in a minute");
    server.clear_faults();
    watching.wait_for("0=ready").await;
}

#[tokio::test(start_paused = true)]
async fn a_first_list_that_hangs_is_told() {
    let server = server(1).await;
    server.set_fault(kinds::REPLICA_SETS, Fault::NoAnswer);
    let watching = Watching::new(&server);
    watching.wait_for_failure("the first list of replicasets is under way since 10s").await;
    watching.wait_for_failure("replicasets could not be read").await;
    server.clear_faults();
    watching.wait_for("0=ready").await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_lists_do_not_come_at_once() {
    let mut server = server(1).await;
    let watching: Vec<Watching> = (0..8).map(|_| Watching::new(&server)).collect();
    for one in &watching {
        one.wait_for("0=ready").await;
    }
    server.stop().await.unwrap();
    watching[0].wait_for_failure("could not be read").await;
    tokio::time::sleep(MINUTE).await;
    let before = server.counters().requests(Verb::List, kinds::PODS);
    server.resume().unwrap();
    for one in &watching {
        one.wait_for("0=ready").await;
    }
    let after = server.counters().requests(Verb::List, kinds::PODS);
    assert_eq!(after, before, "none of them lists again");
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_supply_is_as_old_as_that_until_the_server_has_told_what_changed() {
    let mut server = server(1).await;
    let watching = Watching::new(&server);
    watching.wait_for("0=ready").await;
    server.stop().await.unwrap();
    watching.wait_for_failure("cannot connect").await;
    tokio::time::sleep(MINUTE).await;
    server.set_fault(Scope::Verb(Verb::Watch, kinds::PODS), Fault::SilentWatch);
    server.resume().unwrap();
    watching.wait_for("0=ready").await;
    assert!(watching.age() >= MINUTE, "{:?}", watching.age());
    server.clear_faults();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(watching.age() < Duration::from_secs(40), "{:?}", watching.age());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_each_watch_after_a_list_is_not_asked_for_lists_all_the_time() {
    let server = server(1).await;
    server.set_fault(Scope::Verb(Verb::Watch, kinds::PODS), Fault::Gone);
    let watching = Watching::new(&server);
    watching.wait_for("0=ready").await;
    tokio::time::sleep(2 * MINUTE).await;
    let lists = server.counters().requests(Verb::List, kinds::PODS);
    assert!(lists < 15, "{lists} lists in two minutes");
}
