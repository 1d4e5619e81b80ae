// SPDX-License-Identifier: Apache-2.0
//! A guard over the configured Prometheus and everything that it needs from this program.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use collector_config::{AnchorStrength, Loaded, PartialAnswers, PromqlConfig};
use collector_core::{Clock, ErrorKind, KnownModel, MetricsCollector as _, ModelRef, Nearest};
use collector_engine::CachingCollector;
use collector_prometheus::{PassedRequest, PrometheusBackend, PrometheusConfig};
use collector_promql::{
    Anchors, Found, Guard, HeldSeries, Limits, Models, Partial, Passed, Request, Settings,
    Strength, Unanswered, Upstream,
};

use super::fleet::Fleet;
use crate::exit::Failure;

/// Names that are suggested instead of an unknown model.
const SUGGESTIONS: usize = 3;

/// Creates a guard in front of the server of `[prometheus]`, with this time for callers.
///
/// Queries over `held` need no server. Without both there is nothing to ask.
pub(crate) fn guard(
    loaded: &Loaded,
    collector: Arc<CachingCollector>,
    clock: Arc<dyn Clock>,
    answer_within: Duration,
    held: Option<Arc<dyn HeldSeries>>,
) -> Result<Guard, Failure> {
    let config = &loaded.config.promql;
    let server = server(loaded);
    if server.is_none() && held.is_none() {
        return Err(Failure::usage(
            "neither promql.upstream nor prometheus.url is set: PromQL queries are sent to this server",
        ));
    }
    let timeout = server.as_ref().map_or(Settings::default().timeout, |server| server.timeout);
    let upstream = match server {
        Some(server) => {
            let backend = PrometheusBackend::new(server, Arc::clone(&clock))
                .map_err(|error| Failure::usage(error.to_string()))?;
            let max_answer_bytes = config.max_answer_bytes;
            Some(Arc::new(Server { backend, max_answer_bytes }) as Arc<dyn Upstream>)
        }
        None => None,
    };
    let settings = Settings {
        ttl: config.ttl,
        answer_within,
        max_age: config.max_age,
        max_stale: config.max_stale,
        partial: match config.partial {
            PartialAnswers::Error => Partial::Error,
            PartialAnswers::Warn => Partial::Warn,
        },
        vanished_after: config.vanished_after,
        timeout,
        limits: limits(config),
        max_entries: config.max_entries,
        max_bytes: config.max_bytes,
        max_answer_bytes: config.max_answer_bytes,
    };
    let configured = loaded.config.variants.iter().map(|variant| variant.model.to_string());
    let fleet = Fleet::new(loaded, Arc::clone(&collector))?;
    let models = KnownModels { collector, configured: configured.collect(), fleet };
    let anchors = anchors(config)?;
    Ok(Guard::new(upstream, held, Arc::new(models), clock, anchors, settings))
}

/// Returns the server of queries, if one is set: `promql.upstream`, or that of `[prometheus]`. None for a recording: what
/// a server measures now does not belong to it.
pub(crate) fn server(loaded: &Loaded) -> Option<PrometheusConfig> {
    if loaded.config.is_recorded() {
        return None;
    }
    let config = &loaded.config.promql;
    let mut server = loaded.config.settings_of::<PrometheusConfig>()?.clone();
    if let Some(upstream) = &config.upstream {
        server.url.clone_from(upstream);
        server.url_origin = Some("promql.upstream".to_owned());
    }
    server.max_response_bytes = config.max_answer_bytes;
    Some(server).filter(|server| !server.url.is_empty())
}

/// Returns the configured limits of a query.
pub(crate) fn limits(config: &PromqlConfig) -> Limits {
    Limits {
        bytes: config.max_query_bytes,
        depth: config.max_depth,
        operators: config.max_operators,
    }
}

/// Returns the configured anchors, followed by the built-in ones.
fn anchors(config: &PromqlConfig) -> Result<Anchors, Failure> {
    let mut anchors = Anchors::built_in();
    for (index, spec) in config.anchors.iter().enumerate().rev() {
        let strength = match spec.strength {
            AnchorStrength::Strong => Strength::Strong,
            AnchorStrength::Alive => Strength::Alive,
        };
        anchors.prepend(&spec.name, &spec.anchor, strength).map_err(|error| {
            Failure::usage(format!("promql.anchors: entry {}, name: {error}", index + 1))
        })?;
    }
    Ok(anchors)
}

/// The server of queries.
struct Server {
    backend: PrometheusBackend,
    max_answer_bytes: usize,
}

#[async_trait]
impl Upstream for Server {
    async fn ask(&self, request: Request, within: Duration) -> Result<Passed, Unanswered> {
        let passed = PassedRequest {
            path: &request.path,
            parameters: &request.parameters,
            headers: &request.headers,
        };
        match self.backend.pass(passed, within).await {
            Ok(answer) => Ok(Passed::new(answer.status, answer.content_type, answer.body)),
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                let limit = self.max_answer_bytes;
                Err(Unanswered::too_large(format!(
                    "the server's answer has more than {limit} bytes (promql.max_answer_bytes)"
                )))
            }
            Err(error) => Err(Unanswered::new(error.to_string())),
        }
    }
}

/// The models of the backends and of the configuration.
struct KnownModels {
    collector: Arc<CachingCollector>,
    configured: Vec<String>,
    fleet: Fleet,
}

#[async_trait]
impl Models for KnownModels {
    async fn find(&self, model: &str) -> Found {
        if self.configured.iter().any(|known| known == model) {
            return Found::Known;
        }
        let Ok(known) = self.collector.list_models().await else { return Found::CannotTell };
        if known.iter().any(|known| known.model.model.as_str() == model) {
            return Found::Known;
        }
        Found::Unknown(nearest(model, &known))
    }

    fn is_of_model_servers(&self, metric: &str) -> bool {
        self.fleet.is_of_model_servers(metric)
    }

    async fn has_no_pods(&self, model: &ModelRef) -> bool {
        self.fleet.has_no_pods(model).await
    }

    fn with_pods(&self, metric: &str, within: Duration) -> Vec<ModelRef> {
        self.fleet.with_pods(metric, within)
    }
}

fn nearest(model: &str, known: &[KnownModel]) -> Vec<String> {
    let asked = ModelRef::new(model, "");
    let nearest = Nearest::of(&asked, known, SUGGESTIONS, strsim::damerau_levenshtein);
    nearest.models.iter().map(ToString::to_string).collect()
}
