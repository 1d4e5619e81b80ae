// SPDX-License-Identifier: Apache-2.0
//! From the state of a real fleet to the number of replicas: what KEDA decides from the answers of the guarded API, and
//! what it would decide from the server's own.

use std::time::Duration;

use collector_sim::{Faults, FleetSpec, PickerSpec};

use super::fixture::{World, eventually, variant};
use super::promql::Fixture;
use crate::keda_arithmetic::{Fallback, Polled, Scaled, read};

/// Polls beyond the cooldown.
const LONG: u32 = 20;

/// What a trigger reads, with every setting at KEDA's default.
fn polled(fixture: &Fixture, path: &str, query: &str) -> Polled {
    let answer = fixture.get(path, query, "");
    read(answer.status, &answer.body, true)
}

fn guarded(fixture: &Fixture, query: &str) -> Polled {
    polled(fixture, "/api/v1/query", query)
}

fn directly(fixture: &Fixture, query: &str) -> Polled {
    polled(fixture, "/raw/api/v1/query", query)
}

/// Replicas after a long time of this one answer: of a model with 3 that keeps one, of one with 3 that may have none, and
/// of one that has none; the latter two with the fallback of the documentation.
fn decided(polled: &Polled) -> [u32; 3] {
    let triggers = std::slice::from_ref(polled);
    [
        Scaled::new(3, 1, None).polls(LONG, triggers),
        Scaled::new(3, 0, Some(Fallback::GOOD)).polls(LONG, triggers),
        Scaled::new(0, 0, Some(Fallback::GOOD)).polls(LONG, triggers),
    ]
}

/// It holds, and the fallback wakes one.
const HELD: [u32; 3] = [3, 3, 1];
/// A true zero: it scales down, and sleeps on.
const IDLE: [u32; 3] = [1, 0, 0];

#[tokio::test(flavor = "multi_thread")]
async fn keda_scales_to_zero_by_what_is_known_alone() {
    let picker =
        PickerSpec { variants: vec!["other".to_owned()], ..PickerSpec::new("pool", "prod") };
    let spec = FleetSpec {
        variants: vec![variant("idle", "org/idle"), variant("other", "org/other")],
        pickers: vec![picker],
        ..FleetSpec::default()
    };
    let settings = "ttl = \"500ms\"\nmax_stale = \"4s\"\nanswer_within = \"500ms\"";
    let Some(mut fixture) = Fixture::of(World::of(spec).await, settings) else { return };
    let queue = |model: &str| {
        format!(
            r#"sum(llm_d_epp_flow_control_queue_size{{namespace="prod",model_name="{model}"}})"#
        )
    };
    let running = r#"sum(vllm:num_requests_running{namespace="prod",model_name="org/other"})"#;
    eventually("the fleet is scraped", Duration::from_secs(30), || async {
        directly(&fixture, running).is_ok_and(|value| value > 0.0)
            && guarded(&fixture, &queue("org/idle")).is_ok()
    })
    .await;

    // The model has data.
    let heard = guarded(&fixture, running);
    assert_eq!(Scaled::new(0, 0, None).polls(1, std::slice::from_ref(&heard)), 1, "{heard:?}");
    // The picker is up, and no request waits.
    assert_eq!(decided(&guarded(&fixture, &queue("org/idle"))), IDLE);
    // A misspelt model. The server's own answer scales a running model to zero, and nothing says so.
    assert_eq!(decided(&guarded(&fixture, &queue("org/idel"))), HELD);
    assert_eq!(decided(&directly(&fixture, &queue("org/idel"))), IDLE);
    // A name that nothing exports.
    let nowhere = r#"sum(vllm:num_requests_wating{namespace="prod",model_name="org/other"})"#;
    assert_eq!(decided(&guarded(&fixture, nowhere)), HELD);
    assert_eq!(decided(&directly(&fixture, nowhere)), IDLE);

    // The picker is gone.
    let gone = Faults { vanish: true, ..Faults::default() };
    fixture.world.fleet.set_faults("prod", "pool-epp", gone).await.unwrap();
    eventually("the picker is gone", Duration::from_secs(30), || async {
        guarded(&fixture, &queue("org/idle")).is_err()
    })
    .await;
    assert_eq!(decided(&guarded(&fixture, &queue("org/idle"))), HELD);
    assert_eq!(decided(&directly(&fixture, &queue("org/idle"))), IDLE);

    // The server is down: at first the last value, and then an error.
    fixture.world.prometheus.stop();
    eventually("the last value is too old", Duration::from_secs(30), || async {
        guarded(&fixture, running).is_err()
    })
    .await;
    assert_eq!(decided(&guarded(&fixture, running)), HELD);
}
