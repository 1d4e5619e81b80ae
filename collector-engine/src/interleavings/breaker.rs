// SPDX-License-Identifier: Apache-2.0
//! A half-open circuit lets one fetch through, however many ask at the same time.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{BackendError, BreakerState, ErrorKind, Operation, Tick};
use collector_testkit::explore;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::fetch::breaker::Breaker;

fn error() -> Arc<BackendError> {
    Arc::new(BackendError::new(ErrorKind::Connect, "test".into(), Operation::Fetch, "nowhere"))
}

/// A breaker that has just opened, and a time when it lets one fetch through.
fn about_to_try() -> (Arc<Breaker>, Tick) {
    let breaker = Breaker::new(Duration::from_secs(1));
    let opened_at = Tick::from_nanos(1);
    while let Ok(admission) = breaker.admit(opened_at) {
        admission.failed(&error(), opened_at);
    }
    (Arc::new(breaker), opened_at + Duration::from_secs(1))
}

#[test]
fn one_of_several_concurrent_fetches_is_admitted() {
    explore(|| {
        let (breaker, now) = about_to_try();
        let others = [(); 2].map(|()| {
            let breaker = Arc::clone(&breaker);
            // It holds the trial to the end: nobody reports how it ended.
            thread::spawn(move || breaker.admit(now).map(std::mem::forget).is_ok())
        });
        let mut admitted = u32::from(breaker.admit(now).map(std::mem::forget).is_ok());
        for other in others {
            admitted += u32::from(other.join().unwrap());
        }
        assert_eq!(admitted, 1);
        assert!(breaker.admit(now).is_err(), "a trial is running");
    });
}

#[test]
fn a_cancelled_trial_admits_one_other_fetch() {
    explore(|| {
        let (breaker, now) = about_to_try();
        let looking = Arc::new(AtomicU32::new(0));
        let look_and_cancel = move |breaker: &Breaker, looking: &AtomicU32| {
            if let Ok(admission) = breaker.admit(now) {
                assert_eq!(looking.fetch_add(1, Ordering::SeqCst), 0, "two fetch at once");
                looking.fetch_sub(1, Ordering::SeqCst);
                drop(admission);
            }
        };
        let others = [(); 2].map(|()| {
            let (breaker, looking) = (Arc::clone(&breaker), Arc::clone(&looking));
            thread::spawn(move || look_and_cancel(&breaker, &looking))
        });
        look_and_cancel(&breaker, &looking);
        for other in others {
            other.join().unwrap();
        }
        let trial = breaker.admit(now);
        assert!(trial.is_ok(), "the trial is free again");
        assert!(breaker.admit(now).is_err(), "and there is one");
    });
}

#[test]
fn a_failed_trial_and_a_cancelled_one_never_admit_two_fetches() {
    explore(|| {
        let (breaker, now) = about_to_try();
        let failing = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || {
                let admission = breaker.admit(now);
                admission.map(|admission| admission.failed(&error(), now)).is_ok()
            })
        };
        drop(breaker.admit(now));
        let failed = failing.join().unwrap();
        // Either it has failed, and all are refused again, or it never got to fetch.
        assert_eq!(breaker.admit(now).is_err(), failed);
    });
}

#[test]
fn an_answer_closes_the_circuit_however_the_trial_ends() {
    explore(|| {
        let breaker = Arc::new(Breaker::new(Duration::from_secs(1)));
        let began = Tick::from_nanos(1);
        let late = breaker.admit(began).unwrap();
        while let Ok(admission) = breaker.admit(began) {
            admission.failed(&error(), began);
        }
        let now = began + Duration::from_secs(1);
        let cancelled = {
            let breaker = Arc::clone(&breaker);
            thread::spawn(move || drop(breaker.admit(now)))
        };
        late.answered(now);
        cancelled.join().unwrap();
        assert_eq!(breaker.report(now).state, BreakerState::Closed);
    });
}
