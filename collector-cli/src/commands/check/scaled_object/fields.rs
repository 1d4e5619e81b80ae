// SPDX-License-Identifier: Apache-2.0
//! Fields that KEDA does not have, or has in another place: the API server drops them or refuses the object, and a key of the
//! metadata is ignored.

use serde_json::Value;

use crate::output::nearest_first;

const SPEC: [&str; 10] = [
    "scaleTargetRef",
    "pollingInterval",
    "cooldownPeriod",
    "initialCooldownPeriod",
    "idleReplicaCount",
    "minReplicaCount",
    "maxReplicaCount",
    "advanced",
    "triggers",
    "fallback",
];
const TRIGGER: [&str; 6] =
    ["type", "name", "useCachedMetrics", "metadata", "authenticationRef", "metricType"];
/// The metadata of a `prometheus` trigger, also that of older releases and for the clouds.
const METADATA: [&str; 18] = [
    "serverAddress",
    "query",
    "queryParameters",
    "threshold",
    "activationThreshold",
    "namespace",
    "customHeaders",
    "ignoreNullValues",
    "unsafeSsl",
    "awsRegion",
    "timeout",
    "identityOwner",
    "authModes",
    "authMode",
    "metricName",
    "cortexOrgID",
    "cloud",
    "azureManagedPrometheusResourceURL",
];

/// Returns a sentence about each field of a spec, and of its triggers, that KEDA does not read.
pub(super) fn unknown(spec: &Value) -> Vec<String> {
    let mut found = unknown_in(spec, "spec", &SPEC);
    for (index, trigger) in spec["triggers"].as_array().into_iter().flatten().enumerate() {
        let place = format!("spec.triggers[{index}]");
        found.extend(unknown_in(trigger, &place, &TRIGGER));
        if trigger["type"] == "prometheus" {
            found.extend(unknown_in(&trigger["metadata"], &format!("{place}.metadata"), &METADATA));
        }
    }
    found
}

/// Returns whether a key has at most half of its letters wrong.
fn is_misspelt(key: &str, nearest: &str) -> bool {
    key.len() <= 64 && strsim::damerau_levenshtein(key, nearest) * 2 <= key.len()
}

fn unknown_in(value: &Value, place: &str, known: &[&str]) -> Vec<String> {
    let keys = value.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    let is_unknown = |key: &&str| !known.contains(key) && !key.contains("FromEnv");
    let sentence = |key: &str| {
        let belongs = [("spec", &SPEC[..]), ("the trigger", &TRIGGER), ("metadata", &METADATA)];
        let belongs = belongs.iter().find(|(_, keys)| keys.contains(&key));
        let advice = match (belongs, nearest_first(key, known.iter().copied()).first()) {
            (Some((place, _)), _) => format!(": it belongs to {place}"),
            (None, Some(nearest)) if is_misspelt(key, nearest) => {
                format!(": did you mean {nearest}?")
            }
            (None, _) => String::new(),
        };
        format!("KEDA 2.18 has no field {place}.{key}, so nothing reads it{advice}")
    };
    keys.filter(is_unknown).map(sentence).collect()
}
