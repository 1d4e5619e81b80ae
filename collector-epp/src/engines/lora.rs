//! Which LoRA adapters a server has: in the labels of a series whose value is a time.

use super::page::LoraAdapters;
use crate::scan::{Labels, Sample};

/// The newest series seen so far. A server leaves one behind for each combination that it ever had.
#[derive(Default, Debug)]
pub(super) struct LoraSeen {
    newest: Option<(f64, LoraAdapters)>,
}

impl LoraSeen {
    pub(super) fn take(&mut self, sample: &Sample<'_>) {
        let newest = self.newest.as_ref().map_or(f64::NEG_INFINITY, |(time, _)| *time);
        if sample.value > newest {
            self.newest = Some((sample.value, adapters(&sample.labels)));
        }
    }

    pub(super) fn into_adapters(self) -> Option<LoraAdapters> {
        self.newest.map(|(_, adapters)| adapters)
    }
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
