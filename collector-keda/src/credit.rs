// SPDX-License-Identifier: Apache-2.0
//! Pending credit: pods that start count against demand, so that a scale-up that is under way is not repeated.
//!
//! The credit only dampens a scale-up. With the rules of the HPA, a value with credit never wants fewer replicas than the
//! value without, or than there are with those that start, whichever are fewer.

use collector_core::{PodCounts, Reading, Replicas, Tick, duration};

use crate::metadata::Trigger;
use crate::scaler::Settings;

/// The pods that the credit is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credit {
    /// Pods that are Ready.
    pub ready: u32,
    /// Pods that start.
    pub starting: u32,
}

impl Trigger {
    /// Returns the pods that count against demand; `None` if the metadata do not ask for that.
    ///
    /// # Errors
    /// Why they are not known. Then the value counts without credit, which errs on the side of more replicas.
    pub fn credit(
        &self,
        reading: &Reading<Replicas>,
        settings: &Settings,
        now: Tick,
    ) -> Option<Result<Credit, String>> {
        self.pending_credit.then(|| {
            let supplied = reading.value().supplied(self.subject.variant.as_ref());
            let Some(supplied) = supplied else {
                let unwatched = (settings.unwatched)(self.subject.model.namespace.as_str());
                let no_cluster = || "no cluster lists its pods: enable [kubernetes]".to_owned();
                return Err(unwatched.unwrap_or_else(no_cluster));
            };
            let (age, (limit, _)) = (supplied.as_of().age(now), self.age_limit(settings));
            if age > limit {
                let age = duration::format_seconds(age);
                return Err(format!("the cluster has not confirmed its pods for {age}"));
            }
            let PodCounts { ready, starting, .. } = supplied.counts();
            Ok(Credit { ready, starting })
        })
    }

    /// Returns a value of the signal, less what the pods that start will take.
    pub fn credited(&self, value: f64, credit: Credit) -> f64 {
        let target = self.target.get();
        let (ready, starting) = (f64::from(credit.ready), f64::from(credit.starting));
        let all = ready + starting;
        if starting == 0.0 {
            value
        } else if self.subject.signal.metric_type() == "AverageValue" {
            // The HPA divides the value by the target: each pod takes a target of it.
            if value <= target * all {
                value
            } else {
                (target * all).max(value - target * starting)
            }
        } else if value > target && ready * value / target <= all {
            // The HPA multiplies the ready pods by value / target, which leaves out those that start: it would remove
            // some of them. On target it keeps all.
            target
        } else {
            value
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::ScaledObjectRef;

    fn trigger(signal: &str, target: f64) -> Trigger {
        let metadata = [
            ("model", "m".to_owned()),
            ("signal", signal.to_owned()),
            ("target", target.to_string()),
            ("pendingCredit", "true".to_owned()),
        ];
        let object = ScaledObjectRef {
            name: "o".to_owned(),
            namespace: "prod".to_owned(),
            scaler_metadata: metadata
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        };
        Trigger::of(&object).unwrap()
    }

    #[track_caller]
    fn check(signal: &str, value: f64, (ready, starting): (u32, u32), expected: f64) {
        // The target is 5.
        let credited = trigger(signal, 5.0).credited(value, Credit { ready, starting });
        assert!((credited - expected).abs() < 1e-9, "{credited}");
    }

    #[test]
    fn what_starts_takes_a_target_of_a_sum() {
        check("queue", 100.0, (4, 0), 100.0);
        // Six pods take 30.
        check("queue", 30.0, (2, 4), 30.0);
        check("queue", 12.0, (2, 4), 12.0);
        // Of 45 that wait the four that start take 20, and 30 keep six pods.
        check("queue", 45.0, (2, 4), 30.0);
        check("queue", 80.0, (2, 4), 60.0);
    }

    #[test]
    fn a_ratio_is_on_target_while_those_that_start_are_enough() {
        check("kv-max", 4.0, (2, 2), 4.0);
        check("kv-max", 10.0, (2, 2), 5.0);
        // Two ready pods at three times the target need six.
        check("kv-max", 15.0, (2, 2), 15.0);
        check("kv-max", 15.0, (2, 0), 15.0);
        check("kv-max", 50.0, (0, 2), 5.0);
    }

    /// The replicas that an HPA wants: its rules without the pace of scaling.
    fn desired(signal: &str, value: f64, target: f64, credit: Credit) -> u32 {
        let (ready, current) = (f64::from(credit.ready), f64::from(credit.ready + credit.starting));
        let wanted = if trigger(signal, target).subject.signal.metric_type() == "AverageValue" {
            let is_near = (1.0 - value / (target * current)).abs() <= 0.1;
            if is_near { current } else { (value / target).ceil() }
        } else {
            let is_near = (1.0 - value / target).abs() <= 0.1;
            if is_near { current } else { (ready * value / target).ceil() }
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small count"
        )]
        let wanted = wanted as u32;
        wanted
    }

    proptest! {
        #[test]
        fn a_credit_never_removes_a_replica(
            signal in prop::sample::select(vec!["queue", "running", "kv-sum", "kv-max", "saturation"]),
            target in 0.001_f64..100.0,
            share in 0.0_f64..20.0,
            ready in 0_u32..20,
            starting in 0_u32..20,
        ) {
            prop_assume!(ready + starting > 0);
            let credit = Credit { ready, starting };
            // Sums grow with the replicas.
            let is_sum = trigger(signal, target).subject.signal.metric_type() == "AverageValue";
            let value = target * share * if is_sum { f64::from(ready + starting) } else { 1.0 };
            let credited = trigger(signal, target).credited(value, credit);
            prop_assert!(credited <= value, "it only dampens");
            let without = desired(signal, value, target, credit);
            let with = desired(signal, credited, target, credit);
            prop_assert!(with >= without.min(ready + starting), "{} of {}", with, without);
            if is_sum {
                prop_assert!(with <= without);
            } else {
                // An HPA that counts all pods, ready or not.
                let desired = |value: f64| (f64::from(ready + starting) * value / target).ceil();
                prop_assert!(desired(credited) >= desired(value).min(f64::from(ready + starting)));
                prop_assert!(desired(credited) <= desired(value));
            }
            if starting == 0 {
                prop_assert!((credited - value).abs() < 1e-12);
            }
        }
    }
}
