// SPDX-License-Identifier: Apache-2.0
//! What KEDA makes of answers: its `prometheus` trigger, its scale loop and the HPA's arithmetic, as they were measured
//! on KEDA 2.20. The HPA's tolerance and stabilisation are left out.

use serde_json::Value;

/// What a trigger said in one poll; an error has the reason.
pub(crate) type Polled = Result<f64, String>;

/// Reads an answer to `/api/v1/query` as the `prometheus` trigger does. `ignore_null` is `ignoreNullValues`, true by
/// default.
pub(crate) fn read(status: u16, body: &str, ignore_null: bool) -> Polled {
    if !(200..300).contains(&status) || status == 204 {
        return Err(format!("status {status}"));
    }
    let document: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let null =
        |what: &str| if ignore_null { Ok(0.0) } else { Err(format!("{what}: target may be lost")) };
    // Neither the status in the document nor the type of the result is looked at.
    let Some(result) = document["data"]["result"].as_array() else { return null("no result") };
    let element = match result.as_slice() {
        [] => return null("an empty result"),
        [element] if element.is_object() => element,
        [element, ..] if element.is_object() => return Err("multiple elements".into()),
        _ => return Err("cannot unmarshal a scalar".into()),
    };
    match element["value"].as_array().map(|pair| &pair[1]) {
        None => null("no value"),
        Some(Value::Null) => Ok(0.0),
        Some(Value::String(text)) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            Ok(_) => null("not a finite number"),
            Err(error) => Err(error.to_string()),
        },
        Some(other) => panic!("KEDA's operator panics on the value {other}"),
    }
}

/// `fallback` with `behavior: currentReplicasIfHigher`, or `static`, which is KEDA's default.
#[derive(Clone, Copy)]
pub(crate) struct Fallback {
    pub(crate) failure_threshold: u32,
    pub(crate) replicas: u32,
    pub(crate) if_higher: bool,
}

impl Fallback {
    /// The one that the documentation demands.
    pub(crate) const GOOD: Self = Self { failure_threshold: 3, replicas: 1, if_higher: true };
}

/// A ScaledObject whose triggers are all `AverageValue` with one target, and its workload.
pub(crate) struct Scaled {
    pub(crate) replicas: u32,
    min: u32,
    target: f64,
    /// `cooldownPeriod` in polls.
    cooldown: u32,
    fallback: Option<Fallback>,
    inactive: u32,
    failures: u32,
}

impl Scaled {
    pub(crate) fn new(replicas: u32, min: u32, fallback: Option<Fallback>) -> Self {
        Self { replicas, min, target: 5.0, cooldown: 5, fallback, inactive: 0, failures: 0 }
    }

    /// One poll of all triggers, and then one of the HPA.
    pub(crate) fn poll(&mut self, triggers: &[Polled]) {
        let failed = triggers.iter().any(Result::is_err);
        self.failures = if failed { self.failures + 1 } else { 0 };
        let fallback = self.fallback.filter(|it| failed && self.failures >= it.failure_threshold);
        let active = triggers.iter().flatten().any(|value| *value > 0.0);
        if self.replicas == 0 {
            if active {
                self.replicas = self.min.max(1);
            } else if let Some(fallback) = fallback {
                self.replicas = fallback.replicas;
            }
            return;
        }
        // An error is neither active nor inactive, unless the fallback is zero replicas.
        let to_zero = self.fallback.is_some_and(|it| failed && it.replicas == 0);
        self.inactive = if active || (failed && !to_zero) { 0 } else { self.inactive + 1 };
        if self.min == 0 && self.inactive > self.cooldown {
            self.replicas = 0;
            return;
        }
        self.replicas = self.desired(triggers, fallback).max(self.min.max(1));
    }

    /// The HPA's proposal: the greatest of all metrics. While one fails it never scales down.
    fn desired(&self, triggers: &[Polled], fallback: Option<Fallback>) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
        let of_value = |value: f64| (value.max(0.0) / self.target).ceil() as u32;
        let proposals = triggers.iter().map(|polled| match (polled, fallback) {
            (Ok(value), _) => Some(of_value(*value)),
            (Err(_), Some(it)) if it.if_higher => Some(self.replicas.max(it.replicas)),
            (Err(_), Some(it)) => Some(it.replicas),
            (Err(_), None) => None,
        });
        let known = proposals.clone().flatten().max();
        let holds = proposals.into_iter().any(|proposal| proposal.is_none());
        let floor = if holds { self.replicas } else { 0 };
        known.unwrap_or(self.replicas).max(floor)
    }

    /// So many polls that all say the same.
    pub(crate) fn polls(mut self, count: u32, triggers: &[Polled]) -> u32 {
        (0..count).for_each(|_| self.poll(triggers));
        self.replicas
    }
}

#[test]
fn answers_are_read_as_the_trigger_reads_them() {
    let vector = |value: &str| {
        format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,{value}]}}]}}}}"#
        )
    };
    let both = |body: &str| (read(200, body, true), read(200, body, false).ok());
    assert_eq!(both(&vector("\"7\"")), (Ok(7.0), Some(7.0)));
    for nothing in [
        r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
        r#"{"status":"success"}"#,
        r#"{"status":"error","errorType":"timeout","error":"x"}"#,
        r#"{"status":"success","data":{"result":[{"metric":{},"histogram":[1,{}]}]}}"#,
        &vector("\"NaN\""),
        &vector("\"+Inf\""),
    ] {
        assert_eq!(both(nothing), (Ok(0.0), None), "{nothing}");
    }
    assert_eq!(both(&vector("null")), (Ok(0.0), Some(0.0)));
    let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"7"]}}"#;
    let two = r#"{"data":{"result":[{"value":[1,"1"]},{"value":[1,"2"]}]}}"#;
    for (status, body) in
        [(200, scalar), (200, two), (200, ""), (200, "<html>"), (204, ""), (503, "{}")]
    {
        assert!(read(status, body, true).is_err(), "{status} {body}");
    }
}

#[test]
fn errors_scale_as_they_were_seen_to() {
    let failing: [Polled; 1] = [Err("503".into())];
    let fixed = Some(Fallback { replicas: 2, ..Fallback { if_higher: false, ..Fallback::GOOD } });
    let zero = Some(Fallback { replicas: 0, ..Fallback { if_higher: false, ..Fallback::GOOD } });
    let rows = [(1, 3), (0, 3), (0, 0)];
    let after = |fallback| {
        rows.map(|(min, replicas)| Scaled::new(replicas, min, fallback).polls(20, &failing))
    };
    assert_eq!(after(None), [3, 3, 0]);
    assert_eq!(after(fixed), [2, 2, 2]);
    assert_eq!(after(Some(Fallback::GOOD)), [3, 3, 1]);
    assert_eq!(Scaled::new(3, 0, zero).polls(20, &failing), 0);
    // One fails: the others may only scale up.
    assert_eq!(Scaled::new(3, 1, None).polls(20, &[Ok(0.0), Err("503".into())]), 3);
    assert_eq!(Scaled::new(3, 1, None).polls(20, &[Ok(20.0), Err("503".into())]), 4);
    // An empty answer that is read as 0.
    assert_eq!(Scaled::new(3, 0, Some(Fallback::GOOD)).polls(20, &[Ok(0.0)]), 0);
}
