// SPDX-License-Identifier: Apache-2.0
//! What the scaler remembers: the last value of each subject, and which unknown keys it has named. Both are bounded.

use std::collections::{HashMap, HashSet};

use crate::metadata::Subject;
use crate::signal::Measured;

/// Subjects whose last value is remembered.
const VALUES_MAX: usize = 10_000;
/// Unknown keys that are named; further ones are not.
const NAMED_MAX: usize = 1_000;

/// The last complete value of each subject.
#[derive(Default, Debug)]
pub(crate) struct Values(HashMap<Subject, Measured>);

impl Values {
    pub(crate) fn get(&self, subject: &Subject) -> Option<Measured> {
        self.0.get(subject).copied()
    }

    /// Remembers a value. If there are too many, any other is forgotten: one that is still asked for is soon back.
    pub(crate) fn put(&mut self, subject: &Subject, measured: Measured) {
        if let Some(known) = self.0.get_mut(subject) {
            // Calls overlap, and the one that ends last may have begun with an older reading.
            if known.sampled_at <= measured.sampled_at {
                *known = measured;
            }
            return;
        }
        if self.0.len() >= VALUES_MAX
            && let Some(any) = self.0.keys().next().cloned()
        {
            self.0.remove(&any);
        }
        self.0.insert(subject.clone(), measured);
    }
}

/// The unknown keys that were named, each with the ScaledObject that has it.
#[derive(Default, Debug)]
pub(crate) struct Named(HashSet<(String, String)>);

impl Named {
    /// Whether the key has to be named: once for each object.
    pub(crate) fn is_new(&mut self, object: &str, key: &str) -> bool {
        let entry = (object.to_owned(), key.to_owned());
        !self.0.contains(&entry) && self.0.len() < NAMED_MAX && self.0.insert(entry)
    }
}

#[cfg(test)]
mod tests {
    use collector_core::{ModelRef, Tick};

    use super::*;
    use crate::signal::Signal;

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_is_there() {
        let mut values = Values::default();
        for index in 0..VALUES_MAX + 100 {
            let model = ModelRef::new(format!("m{index}"), "prod");
            let subject = Subject { model, variant: None, signal: Signal::Queue };
            let measured = Measured { value: index as f64, sampled_at: Tick::MIN, pods: 1 };
            values.put(&subject, measured);
            assert_eq!(values.get(&subject), Some(measured));
        }
        assert_eq!(values.0.len(), VALUES_MAX);
        let mut named = Named::default();
        for index in 0..NAMED_MAX + 100 {
            assert_eq!(named.is_new("o", &index.to_string()), index < NAMED_MAX);
            assert!(!named.is_new("o", &index.to_string()));
        }
        assert_eq!(named.0.len(), NAMED_MAX);
    }
}
