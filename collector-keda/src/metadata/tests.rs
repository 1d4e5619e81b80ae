// SPDX-License-Identifier: Apache-2.0
//! Each key, and any text at all.

use proptest::prelude::*;

use super::*;

fn object(metadata: &[(&str, &str)]) -> ScaledObjectRef {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    ScaledObjectRef {
        name: "chat".to_owned(),
        namespace: "prod".to_owned(),
        scaler_metadata: metadata.iter().map(pair).collect(),
    }
}

/// A trigger with a model and these keys.
fn with(metadata: &[(&str, &str)]) -> Result<Trigger, Invalid> {
    Trigger::of(&object(&[&[("model", "org/m")], metadata].concat()))
}

#[track_caller]
fn refused(metadata: &[(&str, &str)], part: &str) {
    let Invalid(text) = with(metadata).unwrap_err();
    assert!(text.contains(part), "{text:?} lacks {part:?}");
}

fn number(number: f64) -> Positive {
    Positive::new(number).unwrap()
}

#[test]
fn a_model_alone_gets_the_defaults() {
    let trigger = with(&[("scalerAddress", "collector:9465")]).unwrap();
    let subject =
        Subject { model: ModelRef::new("org/m", "prod"), variant: None, signal: Signal::Queue };
    let expected = Trigger {
        subject,
        target: number(5.0),
        activation: 0.0,
        max_age: None,
        on_missing: OnMissing::Error,
        pending_credit: false,
    };
    assert_eq!(trigger, expected);
}

#[test]
fn every_key_is_read() {
    let trigger = with(&[
        ("modelNamespace", "models"),
        ("variant", "m-h100"),
        ("signal", "kv-max"),
        ("target", "0.75"),
        ("activation", "0.1"),
        ("maxAge", "90s"),
        ("onMissing", "hold=10m"),
    ])
    .unwrap();
    assert_eq!(trigger.subject.model, ModelRef::new("org/m", "models"));
    assert_eq!(trigger.subject.variant, Some("m-h100".into()));
    assert_eq!(trigger.subject.signal, Signal::KvMax);
    assert_eq!((trigger.target, trigger.activation), (number(0.75), 0.1));
    assert_eq!(trigger.max_age, Some(Duration::from_secs(90)));
    assert_eq!(trigger.on_missing, OnMissing::Hold(Duration::from_secs(600)));
    assert_eq!(with(&[("onMissing", "zero")]).unwrap().on_missing, OnMissing::Zero);
    assert_eq!(with(&[("onMissing", "error")]).unwrap().on_missing, OnMissing::Error);
}

#[test]
fn a_credit_is_asked_for_where_pods_take_demand() {
    assert!(with(&[("pendingCredit", "true")]).unwrap().pending_credit);
    assert!(!with(&[("pendingCredit", "false")]).unwrap().pending_credit);
    refused(&[("pendingCredit", "yes")], "pendingCredit: \"yes\" is neither true nor false");
    let of_supply = [("signal", "supply-ready"), ("pendingCredit", "true")];
    refused(&of_supply, "pendingCredit: supply-ready is not a demand");
}

#[test]
fn every_signal_has_its_name_and_its_target() {
    let targets = [
        ("queue", 5.0),
        ("running", 16.0),
        ("kv-sum", 0.8),
        ("kv-max", 0.8),
        ("saturation", 0.7),
        ("backlog-seconds", 1.5),
        ("waiting-capacity", 5.0),
        ("composite", 1.0),
        ("slo-ratio", 1.0),
        ("supply-ready", 1.0),
        ("supply-starting", 1.0),
        ("supply-wanted", 1.0),
        ("supply-shortfall", 1.0),
    ];
    assert_eq!(targets.map(|(name, _)| name), Signal::NAMES);
    for (name, target) in targets {
        let metadata = [
            ("signal", name),
            ("peakPrefillThroughput", "8000"),
            ("signals", "queue,kv-max=0.9"),
            ("metric", "ttft"),
            ("slo", "500ms"),
        ];
        let trigger = with(&metadata).unwrap();
        assert_eq!((trigger.subject.signal.name(), trigger.target.get()), (name, target));
        let Spec { metric_name, target: of_spec } = Spec::of(&object(&metadata));
        assert_eq!((metric_name, of_spec.get()), (format!("collector-{name}"), target));
    }
    let parts = with(&[("signal", "composite"), ("signals", "queue, kv-max = 0.9")]).unwrap();
    let part = |signal, target| Part { signal, target: number(target) };
    let parts_expected = vec![part(Signal::Queue, 5.0), part(Signal::KvMax, 0.9)];
    assert_eq!(parts.subject.signal, Signal::Composite(parts_expected));
    let slo = [("signal", "slo-ratio"), ("metric", "itl"), ("slo", "50ms"), ("quantile", "0.99")];
    let expected = Slo { latency: Latency::Itl, quantile: number(0.99), limit: number(0.05) };
    assert_eq!(with(&slo).unwrap().subject.signal, Signal::SloRatio(expected));
}

#[test]
fn what_grows_with_the_replicas_is_an_average_and_nothing_else() {
    let averages = ["queue", "running", "kv-sum", "waiting-capacity"];
    for signal in Signal::PLAIN {
        let is_average = averages.contains(&signal.name()) || signal.is_of_supply();
        let expected = if is_average { "AverageValue" } else { "Value" };
        assert_eq!(signal.metric_type(), expected, "{}", signal.name());
        assert_eq!(Signal::plain(signal.name()), Some(signal));
    }
    let of = |metadata: &[(&str, &str)]| with(metadata).unwrap().subject.signal.metric_type();
    assert_eq!(of(&[("signal", "backlog-seconds"), ("peakPrefillThroughput", "8000")]), "Value");
    assert_eq!(of(&[("signal", "composite"), ("signals", "queue")]), "Value");
    assert_eq!(Signal::plain("composite"), None);
}

#[test]
fn what_cannot_be_used_is_named() {
    let Invalid(text) = Trigger::of(&object(&[])).unwrap_err();
    assert!(text.starts_with("model is missing"), "{text}");
    refused(&[("model", "")], "model is empty");
    refused(&[("model", "a\nb")], "model has control characters");
    refused(&[("model", &"x".repeat(5000))], "model is longer than 4096 bytes");
    refused(&[("variant", " ")], "variant is empty");
    refused(&[("modelNamespace", &"x".repeat(254))], "modelNamespace is longer than 253 bytes");
    refused(&[("signal", "qeue")], "signal: there is no signal \"qeue\"; there are queue, running");
    refused(&[("signal", "backlog-seconds")], "peakPrefillThroughput is missing");
    refused(&[("signal", "composite")], "signals is missing");
    refused(&[("signal", "composite"), ("signals", "queue,")], "signals: there is no signal \"\"");
    let nested = [("signal", "composite"), ("signals", "composite=1")];
    refused(&nested, "signals: composite cannot be one of several signals");
    let slo = |more: &[(&str, &str)], says: &str| {
        let all = [&[("signal", "slo-ratio")], more].concat();
        refused(&all, says);
    };
    slo(&[], "metric is missing");
    slo(&[("metric", "e2e")], "metric: \"e2e\" is neither ttft nor itl");
    slo(&[("metric", "ttft")], "slo is missing");
    slo(&[("metric", "ttft"), ("slo", "0.5")], "slo: ");
    for quantile in ["1", "0", "90", "p90"] {
        slo(&[("metric", "ttft"), ("slo", "1s"), ("quantile", quantile)], "quantile: ");
    }
    let many = ["queue"; 9].join(",");
    refused(&[("signal", "composite"), ("signals", &many)], "more than 8 signals");
    for target in ["0", "-1", "NaN", "inf", "1e13", "0.0001", "five", "1,5"] {
        refused(&[("target", target)], "target: ");
        refused(&[("activation", &format!("-{target}x"))], "activation: ");
    }
    refused(&[("activation", "-1")], "activation: \"-1\" is not a number from 0");
    refused(&[("activation", "NaN")], "activation: ");
    refused(&[("maxAge", "5")], "maxAge: ");
    refused(&[("maxAge", "0")], "maxAge: must be more than 0");
    refused(&[("onMissing", "hold")], "onMissing: \"hold\" is none of error, zero and hold=10m");
    refused(&[("onMissing", "hold=x")], "onMissing: ");
}

#[test]
fn bad_metadata_have_the_default_target_of_their_signal() {
    let spec = |metadata: &[(&str, &str)]| {
        let Spec { metric_name, target } = Spec::of(&object(metadata));
        (metric_name, target.get())
    };
    assert_eq!(spec(&[]), ("collector-queue".to_owned(), 5.0));
    assert_eq!(spec(&[("signal", "nonsense")]), ("collector-queue".to_owned(), 5.0));
    assert_eq!(
        spec(&[("signal", "kv-max"), ("target", "much")]),
        ("collector-kv-max".to_owned(), 0.8)
    );
    assert_eq!(spec(&[("target", "7"), ("maxAge", "never")]), ("collector-queue".to_owned(), 7.0));
}

#[test]
fn only_keys_of_nobody_are_unknown() {
    let object = object(&[
        ("model", "m"),
        ("scalerAddress", "a"),
        ("caCert", "x"),
        ("tokenFromEnv", "T"),
        ("modell", "m"),
        ("slo", "500ms"),
        ("sloo", "500ms"),
    ]);
    assert_eq!(unknown_keys(&object).collect::<Vec<_>>(), ["modell", "sloo"]);
}

fn any_metadata() -> impl Strategy<Value = ScaledObjectRef> {
    let key = prop_oneof![prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned), ".{0,8}"];
    let value = prop_oneof![
        prop::sample::select(Signal::NAMES.to_vec()).prop_map(str::to_owned),
        prop::sample::select(vec!["1", "0.5", "hold=1m", "zero", "queue=1,kv-max", "30s", "ttft"])
            .prop_map(str::to_owned),
        "[0-9.eE+-]{1,8}",
        ".{0,12}",
    ];
    let metadata = prop::collection::btree_map(key, value, 0..10);
    (metadata, ".{0,5}").prop_map(|(scaler_metadata, namespace)| ScaledObjectRef {
        name: String::new(),
        namespace,
        scaler_metadata,
    })
}

proptest! {
    #[test]
    fn any_metadata_have_a_spec_that_an_hpa_can_use(object in any_metadata()) {
        let spec = Spec::of(&object);
        prop_assert!((0.001..=1e12).contains(&spec.target.get()));
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        prop_assert!(spec.metric_name.chars().all(fits));
        prop_assert_eq!(&spec, &Spec::of(&object));
        match Trigger::of(&object) {
            Ok(trigger) => {
                prop_assert_eq!(spec.target, trigger.target);
                prop_assert!(!trigger.subject.model.model.as_str().is_empty());
            }
            Err(Invalid(text)) => prop_assert!(text.len() < 2000 && !text.is_empty()),
        }
    }
}
