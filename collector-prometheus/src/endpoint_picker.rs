// SPDX-License-Identifier: Apache-2.0
//! The endpoint pickers whose series a server has, and what they report about the requested models.
//!
//! Which generations of names there are, and in which namespaces, is asked each minute. A server without endpoint pickers
//! costs nothing else; otherwise each fetch sends one more query, for all of them.

mod text;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::{
    Answer, EndpointPicker, ModelId, ModelRef, ModelSample, Namespace, PodName, Tick,
};
use collector_engines::endpoint_picker::{
    EndpointPickerMetrics, Routes, Row as PickerRow, Rows, Scraped, Series, Silent, of_model,
};

use self::text::{AT, Generation, LOOK_BACK, RowNames};
use crate::client::{Client, Query, RequestBudget};
use crate::failure::Failure;
use crate::plan::{QueryKind, WHAT};
use crate::server_clock::Moment;
use crate::shape::DiscoverySettings;

/// How long it is remembered what there is: until then a new endpoint picker is not seen.
const PRESENCE_LASTS: Duration = Duration::from_secs(60);
/// How long a pool whose endpoint picker is gone is remembered, and how many pools are.
const GONE_LASTS: Duration = LOOK_BACK;
const POOLS_MAX: usize = 10_000;

/// A pool in its namespace; its name, where the endpoint picker has one.
type Pool = (Namespace, Option<Arc<str>>);

/// What is known of the endpoint pickers of a server.
#[derive(Default, Debug)]
pub(crate) struct EndpointPickers {
    known: Mutex<Known>,
}

#[derive(Default, Debug)]
struct Known {
    /// What the server has had lately, and when that was asked. `None` if it was never answered.
    presence: Option<(Presence, Tick)>,
    /// The pools whose endpoint picker was there within [`GONE_LASTS`], with its routes and when it was last there.
    pools: HashMap<Pool, (Routes, Tick)>,
}

/// What a server has had within [`LOOK_BACK`].
#[derive(Clone, Default, Debug)]
struct Presence {
    generations: Vec<Generation>,
    namespaces: HashSet<Namespace>,
}

/// An endpoint picker with its namespace, and when it was sampled; `None` if no series shows that.
type Here = (Namespace, Routes, EndpointPickerMetrics, Option<Tick>);

/// What one fetch found.
#[derive(Default, Debug)]
pub(crate) struct Found {
    /// The endpoint pickers.
    here: Vec<Here>,
    /// The ones that were there before.
    gone: Vec<(Namespace, Routes, Tick)>,
    /// The namespaces that had one within [`LOOK_BACK`].
    namespaces: HashSet<Namespace>,
    /// Why it is unknown what there is, for every model without an endpoint picker above.
    unknown: Option<Arc<str>>,
}

impl EndpointPickers {
    /// Asks the server what the endpoint pickers report. A failed query is part of the result.
    ///
    /// # Cancel safety
    /// What is remembered is changed in one step after each answer.
    pub(crate) async fn ask(
        &self,
        client: &Client,
        budget: RequestBudget<'_>,
        terms: &DiscoverySettings,
        moment: Moment,
    ) -> Found {
        let names = RowNames::new(&terms.labels);
        let asked = async {
            let presence = self.presence(client, budget, (terms, &names), moment).await?;
            if presence.generations.is_empty() {
                return Ok(Found::default());
            }
            self.rows(client, budget, (presence, terms, &names), moment).await
        };
        asked.await.unwrap_or_else(|failure: Failure| Found {
            unknown: Some(format!("its series could not be queried: {}", failure.detail).into()),
            ..Found::default()
        })
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Each change is complete before the lock is released.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what the server has had lately.
    async fn presence(
        &self,
        client: &Client,
        budget: RequestBudget<'_>,
        (terms, names): (&DiscoverySettings, &RowNames),
        moment: Moment,
    ) -> Result<Presence, Failure> {
        let now = budget.clock.now();
        if let Some((known, asked_at)) = &self.lock().presence
            && asked_at.age(now) < PRESENCE_LASTS
        {
            return Ok(known.clone());
        }
        let text = text::presence(names, &terms.matchers);
        let query =
            Query { kind: QueryKind::EndpointPickers, text: &text, time: Some(moment.time) };
        let mut found = Presence::default();
        let mut take = |row: &crate::answer::Row<'_>| {
            let generation = row.labels.get(WHAT).and_then(Generation::numbered);
            let new = generation.filter(|it| !found.generations.contains(it));
            found.generations.extend(new);
            found.namespaces.extend(row.labels.first_of(&names.namespace).map(Namespace::from));
        };
        client.query(query, budget, &mut take).await?;
        self.lock().presence = Some((found.clone(), now));
        Ok(found)
    }

    async fn rows(
        &self,
        client: &Client,
        budget: RequestBudget<'_>,
        (presence, terms, names): (Presence, &DiscoverySettings, &RowNames),
        moment: Moment,
    ) -> Result<Found, Failure> {
        let all = Series::all();
        let Presence { generations, namespaces } = presence;
        let text = text::rows(&all, &generations, names, &terms.matchers);
        let query =
            Query { kind: QueryKind::EndpointPickers, text: &text, time: Some(moment.time) };
        let mut pickers: HashMap<(Namespace, String), (Rows, Option<f64>)> = HashMap::new();
        let mut unnamed = false;
        let mut take = |row: &crate::answer::Row<'_>| {
            let Some(namespace) = row.labels.first_of(&names.namespace) else {
                unnamed = true;
                return;
            };
            let server = row.labels.first_of(&names.server).unwrap_or_default();
            let key = (Namespace::from(namespace), server.to_owned());
            let (rows, at) = pickers.entry(key).or_default();
            match row.labels.get(WHAT) {
                Some(AT) => *at = Some(at.map_or(row.value, |at: f64| at.min(row.value))),
                what => {
                    let index = what.and_then(|what| what.parse::<usize>().ok());
                    let Some((index, series)) = index.and_then(|i| Some((i, all.get(i)?))) else {
                        return;
                    };
                    let labels: PickerRow =
                        series.labels.map(|label| row.labels.get(label).map(Arc::from));
                    let value = series.owner.counted(row.value, row.labels.get("outcome"));
                    rows.add(index, series.owner, labels, value);
                }
            }
        };
        let answered = client.query(query, budget, &mut take).await?;
        if let Some(warning) = answered.incomplete {
            let reason = format!("its series may be incomplete: {warning}");
            return Ok(Found { unknown: Some(reason.into()), ..Found::default() });
        }
        let arrived_at = answered.arrived_at;
        let here = pickers.into_iter().map(|((namespace, _), (rows, at))| {
            let sampled_at = at.and_then(|at| moment.sampled_at(at, arrived_at));
            // A number that is no number is not known.
            let metrics = rows.metrics(&all, |_| false);
            (namespace, Routes::of(&metrics), metrics, sampled_at)
        });
        let here: Vec<_> = here.collect();
        let gone = self.lock().remember(&here, budget.clock.now());
        let unknown = unnamed.then(|| {
            "the series of an endpoint picker have no label that names a namespace: set \
             prometheus.labels.namespace"
                .into()
        });
        Ok(Found { here, gone, namespaces, unknown })
    }
}

impl Known {
    /// Remembers the pools whose endpoint pickers are there. Returns those of which none is.
    fn remember(&mut self, here: &[Here], now: Tick) -> Vec<(Namespace, Routes, Tick)> {
        let mut current: HashSet<Pool> = HashSet::new();
        for (namespace, routes, _, sampled_at) in here {
            let pool: Pool = (namespace.clone(), routes.pool().cloned());
            current.insert(pool.clone());
            let Some(sampled_at) = sampled_at else { continue };
            if self.pools.len() < POOLS_MAX || self.pools.contains_key(&pool) {
                self.pools.insert(pool, (routes.clone(), *sampled_at));
            }
        }
        self.pools.retain(|_, (_, last)| last.age(now) < GONE_LASTS);
        // Where a page names no pool, it may be any of the namespace.
        let is_here = |(namespace, name): &Pool| {
            let here = current.iter().filter(|(of, _)| of == namespace);
            here.clone().any(|(_, here)| here == name || here.is_none() || name.is_none())
        };
        let gone = self.pools.iter().filter(|(pool, _)| !is_here(pool));
        gone.map(|((namespace, _), (routes, last))| (namespace.clone(), routes.clone(), *last))
            .collect()
    }
}

impl Found {
    /// Adds the endpoint pickers to the answers. A model that only an endpoint picker knows has no pod and is found.
    pub(crate) fn add_to(&self, answers: &mut [(ModelRef, Answer)]) {
        for (model, answer) in answers {
            match answer {
                Answer::Found(sample) => self.add_to_sample(model, sample),
                Answer::Missing { as_of, .. } if self.names(model) => {
                    let mut sample = ModelSample::new(*as_of, Vec::new());
                    self.add_to_sample(model, &mut sample);
                    *answer = Answer::Found(sample);
                }
                _ => {}
            }
        }
    }

    /// Whether an endpoint picker has received requests for the model.
    fn names(&self, model: &ModelRef) -> bool {
        let here = self.here.iter().map(|(namespace, routes, ..)| (namespace, routes));
        let gone = self.gone.iter().map(|(namespace, routes, _)| (namespace, routes));
        here.chain(gone)
            .any(|(namespace, routes)| *namespace == model.namespace && routes.names(&model.model))
    }

    fn add_to_sample(&self, model: &ModelRef, sample: &mut ModelSample) {
        let pods: Vec<PodName> = sample.replicas.iter().map(|row| row.pod_name.clone()).collect();
        sample.endpoint_picker = self.of(&model.namespace, &model.model, &pods);
        if let EndpointPicker::Silent { reason, .. } = &sample.endpoint_picker {
            let warning =
                format!("the requests that the endpoint picker holds are unknown: {reason}");
            sample.warnings.push(warning.into());
        }
    }

    fn of(&self, namespace: &Namespace, model: &ModelId, pods: &[PodName]) -> EndpointPicker {
        let here = self.here.iter().filter(|(of, ..)| of == namespace);
        let silent = |since, reason: &str| Silent { since, reason: reason.into(), is_new: false };
        let here = here.map(|(_, routes, metrics, at)| Scraped {
            routes,
            page: at
                .map(|at| (metrics, at))
                .ok_or_else(|| silent(None, "none of its series shows when it was sampled")),
        });
        let gone = self.gone.iter().filter(|(of, ..)| of == namespace);
        let gone = gone.map(|(_, routes, since)| Scraped {
            routes,
            page: Err(silent(Some(*since), "its series are gone from the server")),
        });
        let scraped: Vec<Scraped<'_>> = here.chain(gone).collect();
        // After a restart nothing is known of one that is gone but that it was there.
        let was_here = scraped.is_empty() && self.namespaces.contains(namespace);
        let gone = || "an endpoint picker was there within the hour, and is gone".into();
        let unknown = self.unknown.clone().or_else(|| was_here.then(gone));
        match (of_model(model, pods, &scraped), unknown) {
            (EndpointPicker::None, Some(reason)) => EndpointPicker::silent(None, reason),
            (picker, _) => picker,
        }
    }
}

#[cfg(test)]
mod tests {
    use collector_core::{Clock as _, ManualClock};
    use collector_engines::endpoint_picker::Owner;

    use super::*;

    /// An endpoint picker of this pool that has received requests for `m`.
    fn picker(pool: &str, at: Tick) -> Here {
        let all = Series::all();
        let index = |key| all.iter().position(|series| series.key == key).unwrap();
        let mut rows = Rows::default();
        rows.add(index("running"), Owner::Model, [Some("m".into()), Some("m".into())], 1.0);
        rows.add(index("saturation_effective"), Owner::Pool, [Some(pool.into()), None], 0.5);
        let metrics = rows.metrics(&all, |_| false);
        ("prod".into(), Routes::of(&metrics), metrics, Some(at))
    }

    #[test]
    fn a_pool_without_its_endpoint_picker_is_remembered_for_an_hour() {
        let clock = ManualClock::new();
        let mut known = Known::default();
        let start = clock.now();
        assert_eq!(known.remember(&[picker("a", start), picker("b", start)], start).len(), 0);
        // Another pod of the same pool took over.
        let later = start + Duration::from_secs(60);
        let gone = known.remember(&[picker("a", later)], later);
        let [(_, routes, last)] = gone.as_slice() else { panic!("{gone:?}") };
        assert_eq!((routes.pool().map(|pool| &**pool), *last), (Some("b"), start));
        let found = Found { gone, ..Found::default() };
        let of = |model: &str| found.of(&"prod".into(), &model.into(), &[]);
        assert!(matches!(of("m"), EndpointPicker::Silent { since: Some(at), .. } if at == start));
        assert!(found.names(&ModelRef::new("m", "prod")));
        assert!(!found.names(&ModelRef::new("m", "test")));
        // A page that names no pool may be of this one.
        let mut unnamed = picker("b", later);
        unnamed.1 = Routes::default();
        assert_eq!(known.remember(&[picker("a", later), unnamed], later).len(), 0);
        let much_later = start + GONE_LASTS;
        assert_eq!(known.remember(&[picker("a", much_later)], much_later).len(), 0);
    }
}
