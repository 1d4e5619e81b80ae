// SPDX-License-Identifier: Apache-2.0
//! Metadata of KEDA's triggers: any text is read or refused at once, and always has a metric that an HPA can use.

#![no_main]

use collector_keda::api::ScaledObjectRef;
use collector_keda::{Invalid, Spec, Trigger};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let object = ScaledObjectRef {
        name: "fuzzed".to_owned(),
        namespace: "prod".to_owned(),
        scaler_metadata: pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
    };
    let spec = Spec::of(&object);
    assert!((0.001..=1e12).contains(&spec.target.get()));
    assert_eq!(spec, Spec::of(&object));
    match Trigger::of(&object) {
        Ok(trigger) => assert_eq!(trigger.target, spec.target),
        Err(Invalid(text)) => assert!(text.len() < 4096),
    }
});
