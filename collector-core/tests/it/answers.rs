// SPDX-License-Identifier: Apache-2.0
//! What backends answer with: who is answered, what is absent, whose load it is.

use std::collections::HashSet;
use std::time::Duration;

use collector_core::{
    Absent, Answer, Answers, Ask, Field, FieldReasons, Limits, LoadRates, LoadRow, LoadRows,
    ManualClock, ModelRef, PodName, Tick,
};

fn model(id: &str) -> ModelRef {
    ModelRef::new(id, "prod")
}

fn missing(id: &str) -> (ModelRef, Answer) {
    (model(id), Answer::Missing { as_of: Tick::MIN, last_seen: None })
}

#[test]
fn answers_are_counted_found_and_iterated_in_the_order_of_their_models() {
    let mut answers: Answers = [missing("b"), missing("a")].into_iter().collect();
    assert_eq!((answers.len(), answers.is_empty()), (2, false));
    assert!(answers.get(&model("a")).is_some() && answers.get(&model("c")).is_none());
    answers.extend([missing("c")]);
    let models: Vec<_> = answers.iter().map(|(model, _)| model.clone()).collect();
    assert_eq!(models, [model("a"), model("b"), model("c")]);
    assert_eq!(answers.into_iter().count(), 3);
    assert!(Answers::new().is_empty());
}

#[test]
fn what_is_absent_is_nothing_some_pods_or_anything() {
    assert!(Absent::pods(Vec::new()).is_none());
    let pods = vec![PodName::from("hung")];
    let some = Absent::pods(pods.clone());
    assert_eq!((some.is_none(), some.named()), (false, pods.as_slice()));
    assert_eq!(some.warning(), None);
    let any = Absent::Unknown(Some("a store is away".into()));
    assert_eq!(any.warning().map(|warning| &**warning), Some("a store is away"));
    assert!(any.named().is_empty() && !any.is_none());
}

#[test]
fn load_is_of_the_model_or_of_pods() {
    let row = |requests: f64| LoadRow::from(LoadRates::default().with_requests(requests));
    let requests = |load: &LoadRows| load.iter().map(|row| row.rates.requests).collect::<Vec<_>>();
    let none = LoadRows::default();
    assert!(none.is_empty() && none.of_model().is_none() && none.pods().is_empty());

    let mut of_model = LoadRows::Model(row(3.0));
    assert!(!of_model.is_empty() && of_model.pods().is_empty());
    assert_eq!(of_model.of_model(), Some(&row(3.0)));
    of_model.iter_mut().for_each(|row| row.rates.requests = Some(4.0));
    assert_eq!(requests(&of_model), [Some(4.0)]);

    let mut of_pods: LoadRows =
        [("a", 1.0), ("b", 2.0)].map(|(pod, rate)| (pod.into(), row(rate))).into_iter().collect();
    assert!(!of_pods.is_empty() && of_pods.of_model().is_none());
    assert_eq!(of_pods.pods()[1], ("b".into(), row(2.0)));
    of_pods.iter_mut().for_each(|row| row.rates.requests = row.rates.requests.map(|rate| -rate));
    assert_eq!(requests(&of_pods), [Some(-1.0), Some(-2.0)]);
    assert!(LoadRows::Pods(Vec::new()).is_empty());
}

#[test]
fn load_by_pod_is_wanted_of_the_models_that_were_named() {
    let (clock, models) = (ManualClock::new(), [model("a"), model("b")]);
    let ask = Ask::new(&models, &clock);
    assert!(!ask.wants_load_per_pod(&models[0]));
    let named = HashSet::from([model("a")]);
    let ask = ask.with_load_per_pod(&named);
    assert!(ask.wants_load_per_pod(&models[0]) && !ask.wants_load_per_pod(&models[1]));
}

#[test]
fn a_reason_is_found_by_its_field() {
    let reasons: FieldReasons = [(Field::QueueLength, "422")].into_iter().collect();
    assert_eq!(reasons.get(Field::QueueLength).map(|reason| &**reason), Some("422"));
    assert_eq!(reasons.get(Field::KvCacheUsage), None);
    assert!(reasons.contains(Field::QueueLength) && !reasons.contains(Field::KvCacheUsage));
    assert!(FieldReasons::NONE.is_empty() && !reasons.is_empty());
}

#[test]
fn limits_are_a_timeout_and_a_rate() {
    let limits = Limits::new(Duration::from_secs(3)).with_rate(20, 5);
    let rate = (limits.requests_per_second, limits.request_burst);
    assert_eq!((limits.timeout, rate), (Duration::from_secs(3), (20, 5)));
}
