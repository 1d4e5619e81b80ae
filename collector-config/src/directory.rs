// SPDX-License-Identifier: Apache-2.0
//! The variants of the configuration, and those that backends find.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use collector_core::{ModelRef, PodName, Variant, VariantDirectory, VariantRef};
use collector_engine::StaticDirectory;

/// Both together. Of two variants of one name in one namespace the configured one counts, with the pods that it is found to
/// have; its glob decides about pods of which no backend knows the owner.
pub(crate) struct JoinedDirectory {
    configured: StaticDirectory,
    by_name: HashMap<VariantRef, Arc<Variant>>,
    found: Vec<Arc<dyn VariantDirectory>>,
    /// Found variants that were reported as replaced.
    reported: Mutex<HashSet<VariantRef>>,
}

impl JoinedDirectory {
    pub(crate) fn new(configured: StaticDirectory, found: Vec<Arc<dyn VariantDirectory>>) -> Self {
        let variants = configured.variants().into_iter();
        let by_name = variants.map(|variant| (variant.reference(), variant)).collect();
        Self { configured, by_name, found, reported: Mutex::default() }
    }

    /// The variants that are found, but not those that a configured one replaces.
    fn only_found(&self, variants: Vec<Arc<Variant>>) -> impl Iterator<Item = Arc<Variant>> {
        variants.into_iter().filter(|variant| !self.by_name.contains_key(&variant.reference()))
    }

    fn report(&self, variant: &Variant) {
        let name = variant.reference();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if self.by_name.contains_key(&name) && reported.insert(name.clone()) {
            tracing::info!(
                "{name}: [[variants]] describes it, so what the cluster says of it does not count"
            );
        }
    }
}

impl VariantDirectory for JoinedDirectory {
    fn variants(&self) -> Vec<Arc<Variant>> {
        let found: Vec<_> = self.found.iter().flat_map(|found| found.variants()).collect();
        for variant in &found {
            self.report(variant);
        }
        let mut variants = self.configured.variants();
        variants.extend(self.only_found(found));
        variants
    }

    fn variants_of(&self, model: &ModelRef) -> Vec<Arc<Variant>> {
        let found = self.found.iter().flat_map(|found| found.variants_of(model)).collect();
        let mut variants = self.configured.variants_of(model);
        variants.extend(self.only_found(found));
        variants
    }

    fn variant_of(&self, model: &ModelRef, pod: &PodName) -> Option<Arc<Variant>> {
        match self.found.iter().find_map(|found| found.variant_of(model, pod)) {
            None => self.configured.variant_of(model, pod),
            Some(found) => match self.by_name.get(&found.reference()) {
                None => Some(found),
                // Perhaps it is one of another model.
                Some(configured) => Some(configured).filter(|it| it.model == *model).cloned(),
            },
        }
    }

    fn generation(&self) -> u64 {
        // What is configured never changes.
        self.found.iter().fold(0, |sum, found| sum.wrapping_add(found.generation()))
    }
}

#[cfg(test)]
mod tests {
    use collector_engine::VariantSpec;

    use super::*;

    fn spec(name: &str, pods: &str) -> VariantSpec {
        let model = ModelRef::new("m", "n");
        VariantSpec { cost: 3.0, pods: pods.into(), ..VariantSpec::new(name, &model) }
    }

    /// The configured variants by the first letters of their pods, and those that are found.
    fn joined(configured: &[(&str, &str)], found: &[(&str, &str)]) -> JoinedDirectory {
        let directory = |variants: &[(&str, &str)], cost| {
            let specs =
                variants.iter().map(|(name, pods)| VariantSpec { cost, ..spec(name, pods) });
            StaticDirectory::new(specs.collect()).unwrap()
        };
        JoinedDirectory::new(directory(configured, 3.0), vec![Arc::new(directory(found, 7.0))])
    }

    fn of(directory: &JoinedDirectory, pod: &str) -> Option<String> {
        let variant = directory.variant_of(&ModelRef::new("m", "n"), &pod.into())?;
        Some(format!("{} {}", variant.name, variant.cost))
    }

    #[test]
    fn a_pod_with_a_known_owner_belongs_to_it_and_others_go_by_their_names() {
        let directory = joined(&[("configured", "*")], &[("found", "f-*")]);
        assert_eq!(of(&directory, "f-0").as_deref(), Some("found 7"));
        assert_eq!(of(&directory, "x-0").as_deref(), Some("configured 3"));
        assert_eq!(directory.variants().len(), 2);
        assert_eq!(directory.variants_of(&ModelRef::new("m", "n")).len(), 2);
    }

    #[test]
    fn of_two_variants_of_one_name_the_configured_one_counts() {
        let directory = joined(&[("v", "c-*")], &[("v", "f-*")]);
        assert_eq!(of(&directory, "f-0").as_deref(), Some("v 3"));
        let costs: Vec<f64> = directory.variants().iter().map(|variant| variant.cost).collect();
        assert_eq!(costs, [3.0]);
        let elsewhere = VariantSpec { model: "other".into(), ..spec("v", "*") };
        let configured = StaticDirectory::new(vec![elsewhere]).unwrap();
        let found = Arc::new(StaticDirectory::new(vec![spec("v", "f-*")]).unwrap());
        assert_eq!(of(&JoinedDirectory::new(configured, vec![found]), "f-0"), None);
    }
}
