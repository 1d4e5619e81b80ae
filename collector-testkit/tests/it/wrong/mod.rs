// SPDX-License-Identifier: Apache-2.0
//! Deliberately wrong backends, each of which the suite must find out.

mod backend;
mod faults;
mod live;
mod server;

use std::sync::Arc;

use collector_testkit::conformance;

use backend::MemoryBackend;
use faults::{Fault, Live, LiveFault};
use server::Server;

/// The message of the suite about a backend; `None` when it passed.
async fn verdict(fault: Option<Fault>, live: Live) -> Option<String> {
    let suite = tokio::spawn(async move {
        let server = Arc::new(Server::new());
        let backend = MemoryBackend::new(Arc::clone(&server), fault, live);
        conformance::backend(&backend, &*server).await;
    });
    let panic = suite.await.err()?.into_panic();
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_right_backend_conforms() {
    assert_eq!(verdict(None, Live::None).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_right_backend_that_pushes_conforms() {
    assert_eq!(verdict(None, Live::Right).await, None);
}

/// Each wrong backend is found out, by a message that says which case it was, and what was expected.
#[track_caller]
fn check_found_out<F: std::fmt::Debug>(verdicts: &[(F, Option<String>)]) {
    let mut passed = Vec::new();
    for (fault, verdict) in verdicts {
        let Some(message) = verdict else {
            passed.push(fault);
            continue;
        };
        assert!(message.starts_with("conformance of the "), "{fault:?}: {message}");
        assert!(
            message.contains(": expected ") || message.contains(" expected "),
            "{fault:?}: {message}"
        );
    }
    assert!(passed.is_empty(), "{} of {} passed: {passed:?}", passed.len(), verdicts.len());
}

#[tokio::test(start_paused = true)]
async fn wrong_backends_are_found_out() {
    let mut verdicts = Vec::new();
    for fault in Fault::ALL {
        verdicts.push((fault, verdict(Some(*fault), Live::None).await));
    }
    assert!(verdicts.len() >= 65);
    check_found_out(&verdicts);
}

#[tokio::test(start_paused = true)]
async fn wrong_live_halves_are_found_out() {
    let mut verdicts = Vec::new();
    for fault in LiveFault::ALL {
        verdicts.push((fault, verdict(None, Live::Wrong(*fault)).await));
    }
    assert!(verdicts.len() >= 11);
    check_found_out(&verdicts);
}

/// What is wrong with fetches is found out while a live half runs as well, where that cannot hide it.
#[tokio::test(start_paused = true)]
async fn wrong_values_are_found_out_in_pushes() {
    let faults = [
        Fault::SampledByUnixTime,
        Fault::SwapsQueueAndRunning,
        Fault::LoadPerMinute,
        Fault::LosesAPod,
    ];
    let mut verdicts = Vec::new();
    for fault in faults {
        verdicts.push((fault, verdict(Some(fault), Live::Right).await));
    }
    check_found_out(&verdicts);
}
