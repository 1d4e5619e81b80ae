// SPDX-License-Identifier: Apache-2.0
//! The fleet as a pure state machine: time is passed in, and it does no I/O.
//!
//! Reading changes nothing: the same fleet shows the same page at the same instant, however often it was read
//! before.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::engine::{Lie, PodView, Template};
use crate::load::Load;
use crate::picker::{PickerView, PoolModel, PoolPod};
use crate::spec::{FleetSpec, MAX_PODS, PickerSpec, SpecError, check_load};
use crate::truth::{Gauges, ModelTruth, PodTruth, Totals, VariantTruth};
use crate::variant::Variant;

/// A fleet in simulated time, which starts at zero.
#[derive(Debug)]
pub struct Fleet {
    now: Duration,
    /// The Unix time of simulated time zero.
    epoch: Duration,
    variants: Vec<Variant>,
    pickers: Vec<Picker>,
}

/// An Endpoint Picker and the indices of the variants in its pool.
#[derive(Debug)]
struct Picker {
    spec: PickerSpec,
    members: Vec<usize>,
}

/// The input of a page. The server renders it after it has released the fleet.
#[derive(Debug)]
pub(crate) enum View {
    Server(Arc<Template<PodView>>, Box<PodView>),
    Picker(Box<PickerView>),
}

impl View {
    /// Renders the page.
    pub(crate) fn render(&self) -> String {
        match self {
            Self::Server(template, view) => template.render(view),
            Self::Picker(view) => view.render(),
        }
    }

    /// Makes the gauges of a model server show false values.
    pub(crate) fn lie(&mut self, lie: Lie) {
        if let Self::Server(_, view) = self {
            view.lie = Some(lie);
        }
    }
}

/// Why an operation on a fleet failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// No pod of this name exists.
    #[error("no pod {pod:?} in namespace {namespace:?}")]
    NoSuchPod {
        /// The requested namespace.
        namespace: String,
        /// The requested pod.
        pod: String,
    },
    /// The pod has fewer data-parallel engines.
    #[error("pod {pod:?} in namespace {namespace:?} has no engine {engine}")]
    NoSuchEngine {
        /// The requested namespace.
        namespace: String,
        /// The requested pod.
        pod: String,
        /// The requested engine.
        engine: usize,
    },
    /// No such variant was described.
    #[error("no variant {variant:?} in namespace {namespace:?}")]
    NoSuchVariant {
        /// The requested namespace.
        namespace: String,
        /// The requested variant.
        variant: String,
    },
    /// A load that cannot be simulated.
    #[error("{0}")]
    BadLoad(String),
    /// The fleet has the greatest number of pods.
    #[error("there are {MAX_PODS} pods already: delete one first")]
    TooManyPods,
}

impl Fleet {
    /// Makes a fleet after its warm-up; the wall clock showed `epoch` when it began.
    ///
    /// # Errors
    /// If the description is invalid.
    #[expect(clippy::needless_pass_by_value, reason = "a fleet is what becomes of its description")]
    pub fn new(spec: FleetSpec, epoch: SystemTime) -> Result<Self, SpecError> {
        spec.check()?;
        let mut seeds = fastrand::Rng::with_seed(spec.seed);
        let pickers: Vec<Picker> = spec
            .pickers
            .iter()
            .map(|picker| Picker { spec: picker.clone(), members: picker.members(&spec.variants) })
            .collect();
        let picker_of = |place| {
            let picker = pickers.iter().find(|picker| picker.members.contains(&place));
            picker.map(|picker| picker.spec.flow_control)
        };
        let variants = spec.variants.iter().enumerate().map(|(place, variant)| {
            let hot = spec.hot_shape(place);
            let mut variant = Variant::new(variant.clone(), hot, picker_of(place), seeds.fork());
            // Done here instead of at the first read, which a client waits for.
            variant.advance_to(spec.warm_up);
            variant
        });
        Ok(Self {
            now: spec.warm_up,
            epoch: epoch.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            variants: variants.collect(),
            pickers,
        })
    }

    /// Returns the simulated time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Advances the time; it never goes back.
    ///
    /// This itself costs nothing: each variant is updated when it is read.
    pub fn advance_to(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// Returns the pods of the variants as (namespace, name), including dead ones.
    pub fn pods(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variants.iter().flat_map(|variant| {
            variant.pods.iter().map(|pod| (variant.spec.namespace.as_str(), pod.name.as_str()))
        })
    }

    /// Returns the pods of the Endpoint Pickers as (namespace, name).
    pub fn pickers(&self) -> impl Iterator<Item = (&str, String)> {
        self.pickers.iter().map(|picker| (picker.spec.namespace.as_str(), picker.spec.pod()))
    }

    /// Returns whether a pod of a variant or a picker is alive.
    pub fn is_alive(&self, namespace: &str, pod: &str) -> bool {
        let of_variant = self.variants.iter().any(|variant| {
            variant.spec.namespace == namespace
                && variant.index_of(pod).is_some_and(|index| variant.pods[index].is_alive())
        });
        of_variant || self.pickers().any(|picker| (picker.0, picker.1.as_str()) == (namespace, pod))
    }

    /// Returns the current page of a pod of a variant or a picker; `None` if no such pod is alive.
    pub fn page(&mut self, namespace: &str, pod: &str) -> Option<String> {
        Some(self.look(namespace, pod)?.render())
    }

    /// Returns the input of a pod's page.
    pub(crate) fn look(&mut self, namespace: &str, pod: &str) -> Option<View> {
        let epoch = self.epoch;
        if let Ok((variant, index)) = self.find_pod(namespace, pod) {
            let (template, view) = variant.page(index, epoch)?;
            return Some(View::Server(template, Box::new(view)));
        }
        let picker = self
            .pickers
            .iter()
            .find(|picker| picker.spec.namespace == namespace && picker.spec.pod() == pod)?;
        let mut models: Vec<PoolModel> = Vec::new();
        let mut pods: Vec<PoolPod> = Vec::new();
        for member in &picker.members {
            let variant = &mut self.variants[*member];
            variant.advance_to(self.now);
            let (model, mut its_pods) = variant.pool();
            pods.append(&mut its_pods);
            match models.iter_mut().find(|known| known.model == model.model) {
                Some(known) => known.add(&model),
                None => models.push(model),
            }
        }
        Some(View::Picker(Box::new(PickerView {
            pool: picker.spec.pool.clone(),
            namespace: picker.spec.namespace.clone(),
            names: picker.spec.names,
            started: epoch.as_secs_f64(),
            pods,
            models,
        })))
    }

    /// Returns the true state of a pod; `None` if no such pod is alive. Pinned gauges are true.
    pub fn truth(&mut self, namespace: &str, pod: &str) -> Option<PodTruth> {
        let (variant, index) = self.find_pod(namespace, pod).ok()?;
        variant.truth(index)
    }

    /// Returns the true state of a model over all variants that serve it in the namespace; `None` if there is
    /// none.
    pub fn model_truth(&mut self, namespace: &str, model: &str) -> Option<ModelTruth> {
        let now = self.now;
        let serves = |variant: &&mut Variant| {
            variant.spec.namespace == namespace && variant.spec.model == model
        };
        let mut found = None;
        for variant in self.variants.iter_mut().filter(serves) {
            variant.advance_to(now);
            let truth = found.get_or_insert(ModelTruth {
                pods: 0,
                requests_per_minute: 0.0,
                held: 0,
                refused: 0,
                totals: Totals::default(),
            });
            truth.pods += u32::try_from(variant.alive()).unwrap_or(u32::MAX);
            truth.requests_per_minute += variant.requests_per_minute();
            truth.held += variant.held();
            truth.refused += variant.refused;
            truth.totals += variant.totals();
        }
        found
    }

    /// Returns the true state of every variant.
    pub fn variants(&mut self) -> Vec<VariantTruth> {
        let now = self.now;
        let truth = |variant: &mut Variant| {
            variant.advance_to(now);
            variant.full_truth()
        };
        self.variants.iter_mut().map(truth).collect()
    }

    /// Changes the request rate of a variant; its shape starts again.
    ///
    /// # Errors
    /// If there is no such variant, or the rate cannot be simulated.
    pub fn set_requests_per_minute(
        &mut self,
        namespace: &str,
        variant: &str,
        requests_per_minute: f64,
    ) -> Result<(), FleetError> {
        let load = self.load(namespace, variant)?;
        self.set_load(namespace, variant, Load { requests_per_minute, ..load })
    }

    /// Returns the described load of a variant.
    ///
    /// # Errors
    /// If there is no such variant.
    pub fn load(&mut self, namespace: &str, variant: &str) -> Result<Load, FleetError> {
        Ok(self.find_variant(namespace, variant)?.spec.load.clone())
    }

    /// Changes the load of a variant; its shape starts now.
    ///
    /// # Errors
    /// If there is no such variant, or its pods cannot be under such a load.
    pub fn set_load(
        &mut self,
        namespace: &str,
        variant: &str,
        load: Load,
    ) -> Result<(), FleetError> {
        let variant = self.find_variant(namespace, variant)?;
        check_load(&variant.spec.engine, &load)
            .and_then(|()| variant.check_hot(&load))
            .map_err(FleetError::BadLoad)?;
        variant.set_load(load);
        Ok(())
    }

    /// Adds a pod to a variant and returns its name. It takes its share of the load at once.
    ///
    /// # Errors
    /// If there is no such variant, or there are too many pods.
    pub fn add_pod(&mut self, namespace: &str, variant: &str) -> Result<String, FleetError> {
        if self.pods().count() >= usize::try_from(MAX_PODS).unwrap_or(usize::MAX) {
            return Err(FleetError::TooManyPods);
        }
        Ok(self.find_variant(namespace, variant)?.add_pod())
    }

    /// Kills a pod's process and loses its requests. The others take over its load.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn kill_pod(&mut self, namespace: &str, pod: &str) -> Result<(), FleetError> {
        let (variant, index) = self.find_pod(namespace, pod)?;
        variant.kill_pod(index);
        Ok(())
    }

    /// Replaces a pod's process, alive or dead, by a new one whose counters start at zero.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn restart_pod(&mut self, namespace: &str, pod: &str) -> Result<(), FleetError> {
        let (variant, index) = self.find_pod(namespace, pod)?;
        variant.restart_pod(index);
        Ok(())
    }

    /// Removes a pod and its name.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn delete_pod(&mut self, namespace: &str, pod: &str) -> Result<(), FleetError> {
        let (variant, index) = self.find_pod(namespace, pod)?;
        variant.delete_pod(index);
        Ok(())
    }

    /// Makes one engine of a pod show these gauges, whatever its state, until [`unpin`](Self::unpin).
    ///
    /// # Errors
    /// If there is no such pod or engine.
    pub fn pin(
        &mut self,
        namespace: &str,
        pod: &str,
        engine: usize,
        gauges: Gauges,
    ) -> Result<(), FleetError> {
        let (variant, index) = self.find_pod(namespace, pod)?;
        if variant.pin(index, engine, gauges) {
            Ok(())
        } else {
            Err(FleetError::NoSuchEngine { namespace: namespace.into(), pod: pod.into(), engine })
        }
    }

    /// Makes a pod show its own gauges again.
    ///
    /// # Errors
    /// If there is no such pod.
    pub fn unpin(&mut self, namespace: &str, pod: &str) -> Result<(), FleetError> {
        let (variant, index) = self.find_pod(namespace, pod)?;
        variant.unpin(index);
        Ok(())
    }

    /// Returns a pod as its updated variant and its index there.
    fn find_pod(
        &mut self,
        namespace: &str,
        pod: &str,
    ) -> Result<(&mut Variant, usize), FleetError> {
        let now = self.now;
        self.variants
            .iter_mut()
            .filter(|variant| variant.spec.namespace == namespace)
            .find_map(|variant| variant.index_of(pod).map(|index| (variant, index)))
            .map(|(variant, index)| {
                variant.advance_to(now);
                (variant, index)
            })
            .ok_or_else(|| FleetError::NoSuchPod { namespace: namespace.into(), pod: pod.into() })
    }

    /// Returns an updated variant.
    fn find_variant(&mut self, namespace: &str, name: &str) -> Result<&mut Variant, FleetError> {
        let now = self.now;
        let variant = self
            .variants
            .iter_mut()
            .find(|variant| variant.spec.namespace == namespace && variant.spec.name == name)
            .ok_or_else(|| FleetError::NoSuchVariant {
                namespace: namespace.into(),
                variant: name.into(),
            })?;
        variant.advance_to(now);
        Ok(variant)
    }
}
