// SPDX-License-Identifier: Apache-2.0
//! Lists the models of a server.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use collector_core::{ErrorKind, KnownModel, ModelRef, sanitize};

use super::PrometheusBackend;
use crate::answer::shortened;
use crate::client::{Query, RequestBudget};
use crate::discovery::ServerInfo;
use crate::failure::Failure;
use crate::labels::Level;
use crate::plan::QueryKind;
use crate::promql::Matcher;
use crate::shape::Served;

impl PrometheusBackend {
    /// Returns the models of every engine present, each once.
    pub(super) async fn models(
        &self,
        budget: RequestBudget<'_>,
    ) -> Result<Vec<KnownModel>, Failure> {
        let info = self.discovery.discover(&self.client, budget, None).await?;
        let (mut models, mut of_frontends) = (Vec::new(), Vec::new());
        let mut unlabelled = None;
        let mut incomplete = None;
        for served in &info.shape.served {
            let engine = &served.engine;
            let all = if engine.is_frontend { &mut of_frontends } else { &mut models };
            let (all_named, own) = self.list(served, &info, budget, all).await?;
            if !all_named || served.lacks().is_some() {
                unlabelled.get_or_insert_with(|| {
                    let example = served.example.clone();
                    example.unwrap_or_else(|| served.plan.liveness.name.to_string())
                });
            }
            incomplete = incomplete.or(own);
        }
        // A frontend's models are those of the servers behind it, in whatever case it writes them.
        let is_same = |one: &ModelRef, other: &ModelRef| {
            one.namespace == other.namespace
                && one.model.as_str().eq_ignore_ascii_case(other.model.as_str())
        };
        of_frontends.retain(|it| !models.iter().any(|known| is_same(&known.model, &it.model)));
        models.extend(of_frontends);
        // An empty list is returned only if it is certain.
        if models.is_empty()
            && let Some(example) = unlabelled
        {
            return Err(Failure::bad_answer(format!(
                "there are series of model servers, and none of them names both its namespace and \
                 its model: {example}"
            ))
            .with_remedy(
                "check the relabelling of the scrape job, or name the labels in prometheus.labels",
            ));
        }
        if models.is_empty() && incomplete.is_some() {
            return Err(Failure::new(
                ErrorKind::ServerError,
                "the answer was incomplete and has no model, although there may be some",
            )
            .with_remedy("are all stores of the server up?"));
        }
        self.log_incomplete(incomplete);
        models.sort_unstable();
        // A model of two rows or two engines is one model.
        models.dedup_by(|a, b| {
            let same = a.model == b.model;
            if same {
                b.replicas = b.replicas.max(a.replicas);
            }
            same
        });
        Ok(models)
    }

    /// Adds the models of one engine. Returns whether every series names one, and why some may be absent.
    async fn list(
        &self,
        served: &Served,
        info: &ServerInfo,
        budget: RequestBudget<'_>,
        models: &mut Vec<KnownModel>,
    ) -> Result<(bool, Option<String>), Failure> {
        let labels = &served.labels;
        let namespaces = self.config.namespaces.iter().map(String::as_str);
        let namespaces = match labels.namespace.as_slice() {
            [label] if namespaces.len() > 0 => Some(Matcher::any_of(label.to_string(), namespaces)),
            _ => None,
        };
        let filter = self.discovery.terms().matchers.and(namespaces);
        // If a model may have several rows, its pods are counted here.
        let level = if labels.are_mixed() { Level::Pod } else { Level::Model };
        let text = served.plan.query(QueryKind::Models, labels, &filter, level, false);
        let mut pods: HashMap<ModelRef, HashSet<String>> = HashMap::new();
        let query = Query {
            kind: QueryKind::Models,
            text: &text,
            time: Some(info.clock.moment(self.clock.now()).time),
        };
        let mut all_named = true;
        let answered = self
            .client
            .query(query, budget, &mut |row| {
                let namespace = row.labels.first_of(&labels.namespace);
                let fixed = served.engine.model.as_ref().map(AsRef::as_ref);
                let model = fixed.or_else(|| row.labels.first_of(&labels.model));
                let model = model.filter(|model| served.engine.names_model(model));
                if let (Some(namespace), Some(model)) = (namespace, model) {
                    let model = ModelRef::new(&*shortened(model), &*shortened(namespace));
                    if level == Level::Pod {
                        let pods = pods.entry(model).or_default();
                        pods.extend(labels.replica_of(&row.labels).map(Cow::into_owned));
                        return;
                    }
                    let replicas = sanitize::count(row.value).ok();
                    let replicas = replicas.and_then(|count| u32::try_from(count).ok());
                    models.push(KnownModel::new(model, replicas));
                } else {
                    all_named = false;
                }
            })
            .await?;
        models.extend(
            pods.into_iter()
                .map(|(model, pods)| KnownModel::new(model, u32::try_from(pods.len()).ok())),
        );
        models.retain(|known| self.lets_through(&known.model));
        Ok((all_named, answered.incomplete))
    }
}
