// SPDX-License-Identifier: Apache-2.0
//! Queries for the load of one model, under the names and labels that its server really has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use collector_core::ModelRef;
use collector_engine::CachingCollector;
use collector_engines::{Engine, Engines, Expression, Operator, Quantity, Series};
use collector_keda::Signal;
use collector_prometheus::PrometheusConfig;
use collector_promql::{Guard, InstantQuery, Request};
use serde_json::Value;

use crate::commands::promql::quoted;
use crate::commands::settings::Settings;
use crate::exit::Failure;
use crate::logging;
use crate::output::ErrorDocument;
use crate::server::guard;

/// The timeout of a query: people can wait longer than autoscalers.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The quantities that signals are made of.
const QUANTITIES: [Quantity; 3] = [Quantity::Waiting, Quantity::Running, Quantity::KvCacheUsage];
/// The prefixes of endpoint pickers, the newest first.
const PICKERS: [&str; 3] = ["llm_d_epp", "llm_d_router_epp", "inference_extension"];

/// What a server has of one model.
pub(super) struct Server {
    guard: Guard,
    model: ModelRef,
    engines: Engines,
    /// Matchers of the configuration, which are part of every selector.
    matchers: Vec<String>,
    /// The labels that may name the model or the namespace.
    model_labels: Vec<String>,
    namespace_labels: Vec<String>,
    found: Vec<Found>,
}

/// Series of the model with one name, as far as their labels matter.
struct Found {
    name: String,
    /// The labels that name the model and the namespace.
    of: Labels,
    /// The labels that expressions select by.
    labels: BTreeMap<String, String>,
}

/// The labels that name the model and the namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    model: String,
    namespace: String,
}

/// The queue of an endpoint picker.
pub(super) struct PickerQueue {
    pub(super) query: String,
    /// The pool that it routes requests of, if the server knows it.
    pub(super) pool: Option<String>,
}

impl Server {
    /// Asks the server of `[prometheus]` for the model's series.
    pub(super) async fn discover(
        settings: &Settings,
        collector: Arc<CachingCollector>,
        model: &ModelRef,
    ) -> Result<Self, Failure> {
        let clock = Arc::clone(&settings.clock);
        let guard = guard(&settings.loaded, collector, clock, TIMEOUT, None)?;
        let config = settings.loaded.config.settings_of::<PrometheusConfig>();
        let config = config.cloned().unwrap_or_default();
        let engines = Engines::new(&settings.loaded.config.engines)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let mut model_labels: Vec<String> = config.labels.model;
        if model_labels.is_empty() {
            let labels = engines.iter().flat_map(|engine| &engine.model_labels);
            model_labels.extend(labels.map(ToString::to_string));
            model_labels.sort();
            model_labels.dedup();
        }
        let mut server = Self {
            guard,
            model: model.clone(),
            engines,
            matchers: config.matchers,
            model_labels,
            namespace_labels: config.labels.namespace,
            found: Vec::new(),
        };
        server.find().await?;
        Ok(server)
    }

    async fn find(&mut self) -> Result<(), Failure> {
        let engines = self.all_engines();
        let series: Vec<&Series> = engines
            .iter()
            .flat_map(|engine| QUANTITIES.into_iter().flat_map(|it| engine.alternatives(it)))
            .flat_map(Expression::series)
            .collect();
        let names: BTreeSet<&str> = series.iter().map(|series| &*series.name).collect();
        let names = quoted(&names.into_iter().collect::<Vec<_>>().join("|"));
        let selected: BTreeSet<&str> =
            series.iter().flat_map(|series| &series.matchers).map(|it| &*it.label).collect();
        let by = self.namespace_labels.iter().map(String::as_str).chain(selected.iter().copied());
        let by = by.collect::<Vec<_>>().join(", ");
        for model in self.model_labels.clone() {
            let mut matchers = vec![format!("__name__=~{names}")];
            matchers.push(format!("{model}={}", quoted(self.model.model.as_str())));
            matchers.extend(self.matchers.iter().cloned());
            let query = format!("count by (__name__, {by}) ({{{}}})", matchers.join(","));
            for row in self.rows(&query).await? {
                let metric = &row["metric"];
                let text = |label: &str| metric[label].as_str().unwrap_or_default().to_owned();
                let Some(namespace) = self.namespace_label(metric) else { continue };
                self.found.push(Found {
                    name: text("__name__"),
                    of: Labels { model: model.clone(), namespace },
                    labels: selected
                        .iter()
                        .map(|label| ((*label).to_owned(), text(label)))
                        .collect(),
                });
            }
        }
        Ok(())
    }

    /// The label that names the namespace of a series, if this is the model's: the first label that it has.
    fn namespace_label(&self, metric: &Value) -> Option<String> {
        let value = |label: &str| metric[label].as_str().unwrap_or_default();
        let first = self.namespace_labels.iter().find(|label| !value(label).is_empty())?;
        (value(first) == self.model.namespace.as_str()).then(|| first.clone())
    }

    /// The engines, also with the names that servers without colons have.
    fn all_engines(&self) -> Vec<Engine> {
        let engines = self.engines.iter();
        engines
            .flat_map(|engine| engine.without_colons().into_iter().chain([engine.clone()]))
            .collect()
    }

    async fn rows(&self, query: &str) -> Result<Vec<Value>, Failure> {
        let parameters = vec![("query".to_owned(), query.to_owned())];
        let failed =
            |message: String| Failure::backend(ErrorDocument::new("PrometheusError", message));
        let passed = self
            .guard
            .pass(Request::new("api/v1/query", parameters))
            .await
            .map_err(|error| failed(error.message))?;
        let document: Value = serde_json::from_slice(&passed.body).unwrap_or_default();
        match document["data"]["result"].as_array() {
            Some(rows) if passed.status == 200 => Ok(rows.clone()),
            _ => {
                let error = document["error"].as_str().unwrap_or("no answer of a PromQL server");
                Err(failed(format!("status {}: {error}", passed.status)))
            }
        }
    }

    /// Returns the query of a signal: the sum over the engines that serve the model.
    pub(super) fn query(&self, signal: &Signal, min: u32) -> Result<String, Failure> {
        let (quantity, is_max) = match signal {
            Signal::Queue => (Quantity::Waiting, false),
            Signal::Running => (Quantity::Running, false),
            Signal::KvSum => (Quantity::KvCacheUsage, false),
            Signal::KvMax => (Quantity::KvCacheUsage, true),
            _ => {
                return Err(Failure::usage(format!(
                    "--signal {}: only the external scaler has it",
                    signal.name()
                ))
                .with_hint("use --door keda"));
            }
        };
        let mut terms: Vec<String> = Vec::new();
        for engine in self.all_engines() {
            for labels in self.labels_of(&engine) {
                let is_present = |series: &Series| self.has(labels, series);
                let alternatives = engine.alternatives(quantity).iter();
                let present: Vec<_> =
                    alternatives.filter(|it| it.is_complete(is_present)).collect();
                let Some(first) = present.first() else { continue };
                // While a fleet is updated, pods have names of two releases. One with both counts once, by the first.
                let names = present.iter().map(|it| Some(self.selector(labels, single(it)?)));
                let found = match names.collect::<Option<Vec<String>>>() {
                    Some(names) if is_max => names,
                    Some(names) => vec![format!("sum({})", names.join(" or "))],
                    None if is_max => {
                        single(first).map(|it| self.selector(labels, it)).into_iter().collect()
                    }
                    None => self.sums(labels, first).unwrap_or_default(),
                };
                let found = found.into_iter();
                terms.extend(found.filter(|term| !terms.contains(term)).collect::<Vec<_>>());
            }
        }
        if terms.is_empty() {
            let message =
                format!("the server has no series for signal {} of {}", signal.name(), self.model);
            let document = ErrorDocument::new("MetricsMissing", message);
            return Err(Failure::missing(
                document.with_hint(
                    "a model without pods has none: start a replica, or use --door keda",
                ),
            ));
        }
        if is_max {
            return Ok(format!("max({})", terms.join(" or ")));
        }
        if min == 0 && terms.len() > 1 {
            // Without pods both sides are empty, and the value of that is not known to be 0.
            return Err(Failure::usage(format!(
                "--min 0: signal {} of {} is a sum of several queries, {}",
                signal.name(),
                self.model,
                terms.join(" + ")
            ))
            .with_hint("use --signal running, --door keda, or --min 1"));
        }
        Ok(terms.join(" + "))
    }

    /// The labels that the model's series of an engine have.
    fn labels_of(&self, engine: &Engine) -> BTreeSet<&Labels> {
        let knows = |engine: &Engine, label: &str| {
            engine.model_labels.iter().any(|known| **known == *label)
        };
        // A label of the configuration is any engine's.
        let is_own = |label: &str| {
            knows(engine, label) || !self.engines.iter().any(|other| knows(other, label))
        };
        let found = self.found.iter().map(|found| &found.of);
        found.filter(|labels| is_own(&labels.model)).collect()
    }

    fn has(&self, labels: &Labels, series: &Series) -> bool {
        self.found.iter().any(|found| {
            let value = |label: &str| found.labels.get(label).map_or("", String::as_str);
            found.of == *labels
                && *found.name == *series.name
                && series.matchers.iter().all(|matcher| matcher.accepts(value(&matcher.label)))
        })
    }

    /// The sums of the series that an expression adds; `None` if it does more than adding.
    fn sums(&self, labels: &Labels, expression: &Expression) -> Option<Vec<String>> {
        let series = added(expression)?.into_iter().filter(|series| self.has(labels, series));
        Some(series.map(|series| format!("sum({})", self.selector(labels, series))).collect())
    }

    fn selector(&self, labels: &Labels, series: &Series) -> String {
        let mut matchers = vec![
            format!("{}={}", labels.namespace, quoted(self.model.namespace.as_str())),
            format!("{}={}", labels.model, quoted(self.model.model.as_str())),
        ];
        matchers.extend(series.matchers.iter().map(|matcher| {
            format!("{}{}{}", matcher.label, matcher.operator.as_str(), quoted(&matcher.value))
        }));
        matchers.extend(self.matchers.iter().cloned());
        format!("{}{{{}}}", series.name, matchers.join(","))
    }

    /// Returns the queue of the endpoint picker in the model's namespace: with flow control, and the only one.
    pub(super) async fn picker_queue(&self) -> Result<Option<PickerQueue>, Failure> {
        for prefix in PICKERS {
            // It exists exactly if flow control is on.
            let mut selector = format!("{prefix}_flow_control_pool_saturation");
            if !self.matchers.is_empty() {
                let _ = write!(selector, "{{{}}}", self.matchers.join(","));
            }
            let by = self.namespace_labels.join(", ");
            let rows = self.rows(&format!("count by ({by}, inference_pool) ({selector})")).await?;
            let of_namespace = rows.iter().filter_map(|row| {
                Some((self.namespace_label(&row["metric"])?, &row["metric"]["inference_pool"]))
            });
            let mut of_namespace: Vec<(String, &Value)> = of_namespace.collect();
            if of_namespace.len() > 1 {
                logging::note(&format!(
                    "namespace {:?} has {} pools with endpoint pickers, and which one has the model is unknown; no trigger on \
                     their queues is written",
                    self.model.namespace.as_str(),
                    of_namespace.len()
                ));
                return Ok(None);
            }
            let Some((namespace, pool)) = of_namespace.pop() else { continue };
            let labels = Labels { model: "model_name".to_owned(), namespace };
            let name = format!("{prefix}_flow_control_queue_size");
            let query = format!("sum({})", self.selector(&labels, &Series::named(name)));
            let question = InstantQuery {
                parameters: vec![("query".to_owned(), query.clone())],
                query: query.clone(),
                ..InstantQuery::default()
            };
            // The guard answers an idle queue with 0 only if there is one picker.
            if self.guard.query(question).await.status == 200 {
                return Ok(Some(PickerQueue { query, pool: pool.as_str().map(str::to_owned) }));
            }
        }
        Ok(None)
    }
}

/// The series of an expression that adds series.
fn added(expression: &Expression) -> Option<Vec<&Series>> {
    match expression {
        Expression::Series { series, .. } if series.number_in.is_none() => Some(vec![series]),
        Expression::Combined(left, Operator::Plus, right) => {
            Some([added(left)?, added(right)?].concat())
        }
        _ => None,
    }
}

/// The series of an expression that is one series.
fn single(expression: &Expression) -> Option<&Series> {
    match expression {
        Expression::Series { series, .. } if series.number_in.is_none() => Some(series),
        _ => None,
    }
}
