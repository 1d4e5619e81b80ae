// SPDX-License-Identifier: Apache-2.0
//! `collector explain`: where each value of a reading came from.

mod running;
mod tracer;

use std::sync::Arc;

use collector_config::{CollectorConfig, ConfigErrors, Loader};
use collector_core::{Backend, CollectError, MetricsCollector, ModelRef, Reading, Replicas};
use collector_engine::CachingCollector;

use self::tracer::Tracer;
use super::settings::{Settings, Verbosity, format};
use crate::args::{Format, GlobalArgs, ModelArgs};
use crate::exit::{Exit, Failure};
use crate::output::{
    ExplainDocument, ExplainedPace, PaceDocument, TracedFetch, explain_table, print, shown,
};

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &ModelArgs) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Wide, Format::Json, Format::Yaml])?;
    let settings = Settings::load(base, global, Verbosity::OneShot)?;
    settings.warn();
    super::block_on(explain(&settings, args, format))
}

/// Returns how often the model is refreshed. This process fetches once, so only a running collector knows how
/// much the model changes.
async fn pace(
    config: &CollectorConfig,
    model: &ModelRef,
    collector: &CachingCollector,
) -> ExplainedPace {
    let own = |unknown| {
        let pace = PaceDocument::new(model, collector.pace(model));
        ExplainedPace { pace, collector: None, unknown }
    };
    if !(config.cache.enabled && config.cache.adaptive.enabled) {
        return own(None);
    }
    match running::pace(&config.server, model).await {
        Ok((pace, address)) => {
            ExplainedPace { pace, collector: Some(address.to_string()), unknown: None }
        }
        Err(why) => own(Some(why)),
    }
}

/// A reading, and the fetches that it is made of.
pub(super) struct Traced {
    reading: Result<Reading<Replicas>, CollectError>,
    /// The last fetch from each backend, in order of preference.
    pub(super) fetches: Vec<TracedFetch>,
    collector: CachingCollector,
}

/// Reads a model once, by a collector of its own whose fetches are traced.
pub(super) async fn traced(
    settings: &Settings,
    backends: Vec<Arc<dyn Backend>>,
    model: &ModelRef,
) -> Result<Traced, Failure> {
    let tracers: Vec<Arc<Tracer>> =
        backends.into_iter().map(|backend| Arc::new(Tracer::new(backend))).collect();
    let traced = tracers.iter().map(|tracer| Arc::clone(tracer) as Arc<dyn Backend>).collect();
    let config = &settings.loaded.config;
    let builder = config.builder_over(traced, Arc::clone(&settings.clock))?.at_once();
    let collector = builder.build().map_err(ConfigErrors::from)?;
    let reading = collector.collect_replica_metrics(model).await;
    let fetches = tracers.iter().map(|tracer| tracer.last_fetch(model)).collect();
    Ok(Traced { reading, fetches, collector })
}

async fn explain(settings: &Settings, args: &ModelArgs, format: Format) -> Result<Exit, Failure> {
    let model = args.model()?;
    let backends = settings.backends()?;
    settings.before_a_read(Some(&model.namespace)).await?;
    let Traced { reading, fetches, collector } = traced(settings, backends, &model).await?;
    let states = collector.state().backends;
    let (now, wall) = (settings.clock.now(), settings.clock.wall());
    let pace = pace(&settings.loaded.config, &model, &collector).await;
    let document = ExplainDocument::of(&model, &reading, &fetches, &states, pace, now, wall);
    print(&shown(format, &document, || explain_table(&document, format == Format::Wide)))?;
    match reading {
        Ok(_) => Ok(Exit::Success),
        Err(error) => Err(Failure::from(error).shown_on_stdout()),
    }
}
