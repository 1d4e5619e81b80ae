// SPDX-License-Identifier: Apache-2.0
//! Replaces names and texts, so that a recording can be shared. Numbers stay.

use std::collections::HashMap;
use std::sync::Arc;

use collector_core::raw::wire::{Marks, SampleRecord};
use collector_core::{
    BackendName, EngineName, ModelId, ModelRef, Namespace, PodName, Role, VariantName,
};
use collector_engines::Engines;

use crate::entry::{AnswerRecord, ErrorRecord, ModelsRecord, removed};
use crate::texts::change_texts;

/// Roles and backends whose names say nothing about anyone.
const KNOWN_ROLES: &[&str] = &["prefill", "decode", "both"];
const KNOWN_SOURCES: &[&str] = &["prometheus", "scrape", "epp"];

/// The names that were replaced, each by the same one throughout a recording.
#[derive(Debug)]
pub(crate) struct Anonymizer {
    /// Engines that everyone knows.
    engines: Vec<EngineName>,
    replaced: HashMap<(&'static str, Box<str>), Arc<str>>,
    numbers: HashMap<&'static str, usize>,
}

impl Anonymizer {
    pub(crate) fn new() -> Self {
        // That the built-in engines are valid is a test of theirs.
        let engines = Engines::new(&[]).map(|engines| engines.names()).unwrap_or_default();
        Self { engines, replaced: HashMap::new(), numbers: HashMap::new() }
    }

    /// The name that stands for this one of its kind: `pod-1`, `pod-2` and so on.
    fn name(&mut self, kind: &'static str, name: &str) -> Arc<str> {
        if let Some(known) = self.replaced.get(&(kind, name.into())) {
            return Arc::clone(known);
        }
        let number = self.numbers.entry(kind).or_default();
        *number += 1;
        let replacement: Arc<str> = format!("{kind}-{number}").into();
        self.replaced.insert((kind, name.into()), Arc::clone(&replacement));
        replacement
    }

    /// The same unless the name is one of those that everyone uses.
    fn name_unless(&mut self, known: &[&str], kind: &'static str, name: &str) -> Arc<str> {
        if known.contains(&name) { name.into() } else { self.name(kind, name) }
    }

    pub(crate) fn source(&mut self, name: &str) -> Arc<str> {
        self.name_unless(KNOWN_SOURCES, "source", name)
    }

    pub(crate) fn model(&mut self, model: &ModelRef) -> ModelRef {
        let namespace = self.name("namespace", model.namespace.as_str());
        let model = self.name("model", model.model.as_str());
        ModelRef::new(ModelId::new(model), Namespace::new(namespace))
    }

    pub(crate) fn answer(&mut self, answer: &mut AnswerRecord) {
        match answer {
            AnswerRecord::Found(sample) => self.sample(sample),
            AnswerRecord::Failed { error, .. } => hide(error),
            AnswerRecord::Missing { .. } | AnswerRecord::Unrecorded { .. } => {}
        }
    }

    pub(crate) fn models(&mut self, models: &mut ModelsRecord) {
        match models {
            ModelsRecord::Listed(models) => {
                for (model, _) in models {
                    *model = self.model(model);
                }
            }
            ModelsRecord::Failed(error) => hide(error),
        }
    }

    fn sample(&mut self, sample: &mut SampleRecord) {
        change_texts(sample, |text| *text = removed());
        if let Some(warning) = &mut sample.absent_warning {
            // One and the same warning must stay one: the engine compares them.
            *warning = self.name("warning", warning);
        }
        for pod in &mut sample.unreached {
            *pod = PodName::new(self.name("pod", pod.as_str()));
        }
        for row in &mut sample.replicas {
            row.pod = PodName::new(self.name("pod", row.pod.as_str()));
            if let Some(engine) = &mut row.engine
                && !self.engines.contains(engine)
            {
                let name = self.name("engine", engine.as_str());
                *engine = EngineName::new(name);
            }
            if let Some(role) = &mut row.role {
                let name = self.name_unless(KNOWN_ROLES, "role", role.as_str());
                *role = Role::new(name);
            }
            if let Some(lora) = &mut row.lora {
                for adapters in [&mut lora.running, &mut lora.waiting] {
                    for name in adapters.iter_mut() {
                        *name = (*self.name("adapter", name)).into();
                    }
                    adapters.sort_unstable();
                }
            }
            self.marks(&mut row.marks);
        }
        if let Some(supply) = &mut sample.supply {
            for workload in &mut supply.workloads {
                if let Some(variant) = &mut workload.variant {
                    *variant = VariantName::new(self.name("variant", variant.as_str()));
                }
                for (pod, ..) in &mut workload.pods {
                    *pod = PodName::new(self.name("pod", pod.as_str()));
                }
            }
            for (pod, _) in &mut supply.deleted {
                *pod = PodName::new(self.name("pod", pod.as_str()));
            }
        }
        for row in &mut sample.load {
            if let Some(pod) = &mut row.pod {
                *pod = PodName::new(self.name("pod", pod.as_str()));
            }
        }
    }

    fn marks(&mut self, marks: &mut Marks) {
        for (_, backend, _) in marks {
            *backend = BackendName::new(self.source(backend.as_str()));
        }
    }
}

/// The kind of an error stays; its words may hold names and addresses.
fn hide(error: &mut ErrorRecord) {
    error.subject = removed().to_string();
    error.detail.clear();
    error.remedy.clear();
}
