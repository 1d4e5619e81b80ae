// SPDX-License-Identifier: Apache-2.0
//! Which of the models that a backend lists a command reads.

use collector_core::text::shortened;
use collector_core::{KnownModel, MetricsCollector, ModelRef, Namespace};

use super::settings::Settings;
use crate::args::Selection;
use crate::exit::{Exit, Failure};
use crate::output::{ErrorDocument, nearest_first, quoted};

/// The reason of what is not there, in error documents.
pub(super) const MISSING: &str = "MetricsMissing";

/// The models that are selected, in order. No model is an error: a result without rows could mean anything.
pub(super) async fn listed(
    settings: &Settings,
    collector: &dyn MetricsCollector,
    selection: &Selection,
) -> Result<Vec<ModelRef>, Failure> {
    let (model, namespace) = match selection {
        Selection::One(model) => return Ok(vec![model.clone()]),
        Selection::Listed { model, namespace } => (model.as_deref(), namespace.as_deref()),
    };
    settings.before_a_read(namespace.map(Namespace::from).as_ref()).await?;
    let known = collector.list_models().await?;
    let is_selected = |known: &&KnownModel| {
        namespace.is_none_or(|namespace| known.model.namespace.as_str() == namespace)
            && model.is_none_or(|model| known.model.model.as_str() == model)
    };
    let mut selected: Vec<ModelRef> =
        known.iter().filter(is_selected).map(|known| known.model.clone()).collect();
    selected.sort_unstable();
    if selected.is_empty() {
        return Err(none_of(settings, &known, model, namespace));
    }
    Ok(selected)
}

fn none_of(
    settings: &Settings,
    known: &[KnownModel],
    model: Option<&str>,
    namespace: Option<&str>,
) -> Failure {
    let document = match (model, namespace) {
        _ if known.is_empty() => {
            let hint = settings.loaded.limited();
            let hint = hint.unwrap_or_else(|| "is it scraping the model servers?".to_owned());
            ErrorDocument::new(MISSING, "the backend knows no model").with_hint(hint)
        }
        (Some(model), _) => {
            let names = nearest_first(model, known.iter().map(|known| known.model.model.as_str()));
            let message = format!(
                "no namespace has model {:?}; there are {}",
                shortened(model),
                quoted(names.iter().copied())
            );
            let names = names.into_iter().map(str::to_owned).collect();
            ErrorDocument::new(MISSING, message)
                .with_suggestions(names)
                .with_hint("`collector get models -A` lists what exists")
        }
        (None, namespace) => {
            let namespace = namespace.unwrap_or_default();
            let message = format!("no model in namespace {:?}", shortened(namespace));
            ErrorDocument::new(MISSING, message).with_hint(namespaces(known, namespace))
        }
    };
    Failure::missing(document)
}

/// The namespaces that have models, from the nearest to `name` on.
pub(super) fn namespaces(known: &[KnownModel], name: &str) -> String {
    let names = nearest_first(name, known.iter().map(|known| known.model.namespace.as_str()));
    let has = if names.len() == 1 { "namespace with models" } else { "namespaces with models" };
    format!("{has}: {}", quoted(names))
}

/// After how many rounds models are listed again, for new ones.
const ROUNDS_PER_LIST: u32 = 30;

/// The models of a selection over time. A model that is no longer listed stays, so that its absence is shown.
#[derive(Default)]
pub(super) struct Followed {
    known: Vec<ModelRef>,
    rounds: u32,
    /// The last reason returned for not having a list.
    problem: Option<String>,
}

impl Followed {
    /// The models so far.
    pub(super) fn models(&self) -> &[ModelRef] {
        &self.known
    }

    /// Lists the models again if it is time. If the server returns no list, returns the reason once and tries again later,
    /// because the server may only be restarting. A mistake in the configuration is an error.
    pub(super) async fn update(
        &mut self,
        settings: &Settings,
        collector: &dyn MetricsCollector,
        selection: &Selection,
    ) -> Result<Option<Failure>, Failure> {
        let is_due = self.rounds.is_multiple_of(ROUNDS_PER_LIST) || self.problem.is_some();
        self.rounds = self.rounds.wrapping_add(1);
        if !is_due {
            return Ok(None);
        }
        if let Selection::One(model) = selection {
            if self.known.is_empty() {
                settings.before_a_read(Some(&model.namespace)).await?;
                self.known.push(model.clone());
            }
            return Ok(None);
        }
        match listed(settings, collector, selection).await {
            Ok(listed) => {
                let new = listed.into_iter().filter(|model| !self.known.contains(model));
                let new: Vec<ModelRef> = new.collect();
                self.known.extend(new);
                self.problem = None;
                Ok(None)
            }
            Err(failure) if failure.exit() == Exit::Usage => Err(failure),
            Err(failure) => {
                let problem = failure.problems().join("\n");
                let is_new = self.problem.as_ref() != Some(&problem);
                self.problem = Some(problem);
                Ok(is_new.then_some(failure))
            }
        }
    }
}
