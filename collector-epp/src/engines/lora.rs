// SPDX-License-Identifier: Apache-2.0
//! The LoRA adapters of a server, from the labels of a series whose value is a time.

use super::exposition::LoraAdapters;
use crate::scan::{Labels, NameId, Sample};

/// Greatest number of API servers whose times a process group may have added up.
const API_SERVERS_MAX: u32 = 64;
/// Seconds by which a time may be later than the request for its page: pages take a while, and the clocks of pods are ahead.
/// A sum is at least a sixty-fourth of the time since 1970 later.
const CLOCKS_DIFFER_MAX: f64 = 86_400.0;

/// The newest series of each name so far. A server keeps a series for each combination of adapters that it ever had.
#[derive(Default, Debug)]
pub(super) struct LoraSeen {
    newest: Vec<(NameId, f64, LoraAdapters)>,
}

impl LoraSeen {
    /// Takes a series. `now` is in seconds since 1970: several API servers add up their times, so a time in the future
    /// is such a sum.
    pub(super) fn take(&mut self, sample: &Sample<'_>, now: Option<f64>) {
        let Some(time) = single_time(sample.value, now) else { return };
        let place = self.newest.iter().position(|(name, ..)| *name == sample.name);
        match place.map(|place| &mut self.newest[place]) {
            Some((_, newest, adapters_of_newest)) => {
                if time > *newest {
                    *newest = time;
                    *adapters_of_newest = adapters(&sample.labels);
                }
            }
            None => self.newest.push((sample.name, time, adapters(&sample.labels))),
        }
    }

    /// Returns the adapters of the newest series of this name.
    pub(super) fn into_adapters(self, name: NameId) -> Option<LoraAdapters> {
        self.newest.into_iter().find(|(of, ..)| *of == name).map(|(.., adapters)| adapters)
    }
}

/// Returns the time of a value, which may be a sum of times; `None` if it is no time.
fn single_time(value: f64, now: Option<f64>) -> Option<f64> {
    let latest = now.map_or(f64::INFINITY, |now| now + CLOCKS_DIFFER_MAX);
    let shares = (1..=API_SERVERS_MAX).map(|servers| value / f64::from(servers));
    // NaN is not less than anything.
    shares.into_iter().find(|time| *time <= latest)
}

fn adapters(labels: &Labels<'_>) -> LoraAdapters {
    let names = |label: &str| {
        let joined = labels.get(label).unwrap_or_default();
        joined.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Into::into).collect()
    };
    LoraAdapters {
        running: names("running_lora_adapters"),
        waiting: names("waiting_lora_adapters"),
        max: labels.get("max_lora").and_then(|max| max.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_far_beyond_the_present_is_a_sum_of_times() {
        const NOW: f64 = 1.755e9;
        let now = Some(NOW);
        assert_eq!(single_time(NOW - 100.0, now), Some(NOW - 100.0));
        assert_eq!(single_time(2.0 * NOW - 1800.0, now), Some(NOW - 900.0));
        assert_eq!(single_time(3.0 * NOW - 3.0, now), Some(NOW - 1.0));
        assert_eq!(single_time(64.0 * NOW - 64.0, now), Some(NOW - 1.0));
        assert_eq!(single_time(1e12, now), None, "no group has so many servers");
        assert_eq!(single_time(f64::NAN, now), None);
        assert_eq!(single_time(1e9, None), Some(1e9));
        // The page was written after it was asked for, and the pod's clock may be ahead.
        for ahead in [0.01, 3.0, 3600.0] {
            assert_eq!(single_time(NOW + ahead, now), Some(NOW + ahead));
        }
    }
}
