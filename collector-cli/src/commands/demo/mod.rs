//! `collector demo`: a simulated fleet, collected live through the real engine.

mod simulator;

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::Duration;

use collector_config::Loader;
use collector_core::{Clock, MetricsCollector, SystemClock, TrackedModel};
use collector_engine::{CacheConfig, CachingCollector, StaticDirectory, VariantSpec};
use collector_sim::{FleetServer, FleetSpec};
use tokio::time::{interval, sleep};

use super::settings::{Verbosity, format, log_flags, start_log};
use crate::args::{DemoArgs, Format, GlobalArgs};
use crate::exit::{Exit, Failure};
use crate::output::{ErrorDocument, ListDocument, print, replicas_item, replicas_table, to_json};
use crate::signals::StopSignals;
use simulator::Simulator;

/// How often the table is shown anew.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// What the simulator is given; it answers from memory.
const TIMEOUT: Duration = Duration::from_millis(300);

pub(super) fn run(global: &GlobalArgs, args: &DemoArgs) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Wide, Format::Json])?;
    if format == Format::Json && !args.once {
        return Err(Failure::usage("--output json prints one document: add --once"));
    }
    if global.backend.is_some() {
        return Err(Failure::usage(
            "--backend does not work with this command: the demo has a backend of its own",
        ));
    }
    let loaded = log_flags(Loader::new(), global).read().map_err(Failure::usage)?;
    start_log(&loaded, Verbosity::OneShot)?;
    super::block_on_many_threads(demo(args, format))
}

async fn demo(args: &DemoArgs, format: Format) -> Result<Exit, Failure> {
    let mut signals = StopSignals::catch()
        .map_err(|error| Failure::other(format!("cannot catch signals: {error}")))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let spec = FleetSpec::demo();
    let directory = StaticDirectory::new(spec.variants.iter().map(described).collect())
        .map_err(Failure::other)?;
    let fleet = FleetServer::start(spec.clone()).await.map_err(Failure::other)?;
    let simulator = Simulator::new(spec, fleet, Arc::clone(&clock));
    let collector = CachingCollector::builder(Arc::new(simulator))
        .config(fast())
        .timeout(TIMEOUT)
        .directory(Arc::new(directory))
        .clock(Arc::clone(&clock))
        .build()
        .map_err(Failure::other)?;

    if args.once {
        let tracked = read_all(&collector).await?;
        let text = if format == Format::Json {
            let items = tracked.iter().map(|tracked| replicas_item(tracked, clock.wall()));
            to_json(&items.collect::<ListDocument<_>>()) + "\n"
        } else {
            tables(&tracked, format)
        };
        print(&text)?;
        return Ok(Exit::Success);
    }

    collector.start_background_worker();
    tokio::select! {
        shown = show(&collector, format) => shown?,
        () = sleep(args.duration.unwrap_or(Duration::MAX)) => {}
        _ = signals.received() => {}
    }
    collector.stop_background_worker().await;
    Ok(Exit::Success)
}

/// The variant as a configuration would have it.
fn described(variant: &collector_sim::VariantSpec) -> VariantSpec {
    VariantSpec {
        name: variant.name.as_str().into(),
        namespace: variant.namespace.as_str().into(),
        model: variant.model.as_str().into(),
        accelerator: Some("H100".into()),
        cost: collector_core::DEFAULT_COST,
        pods: format!("{}-*", variant.name),
        max_batch: Some(variant.engine.max_num_seqs),
    }
}

/// Timings at which a watching person sees something happen.
fn fast() -> CacheConfig {
    CacheConfig {
        ttl: Duration::from_secs(2),
        fetch_interval: Duration::from_secs(1),
        ..CacheConfig::default()
    }
}

/// One reading of every model.
async fn read_all(collector: &dyn MetricsCollector) -> Result<Vec<TrackedModel>, Failure> {
    let mut readings = Vec::new();
    for known in collector.list_models().await? {
        readings.push(TrackedModel {
            replicas: collector.collect_replica_metrics(&known.model).await,
            model: known.model,
            allocations: Vec::new(),
        });
    }
    Ok(readings)
}

/// Prints the readings again and again.
async fn show(collector: &dyn MetricsCollector, format: Format) -> Result<(), Failure> {
    // On a terminal each table takes the place of the one before.
    let clear = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    let mut ticks = interval(SHOW_INTERVAL);
    loop {
        ticks.tick().await;
        let tracked = read_all(collector).await?;
        let text = tables(&tracked, format);
        print(&format!("{clear}{text}\n"))?;
    }
}

fn tables(tracked: &[TrackedModel], format: Format) -> String {
    let mut text = String::new();
    for (index, tracked) in tracked.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        match &tracked.replicas {
            Ok(reading) => text.push_str(&replicas_table(reading, format == Format::Wide)),
            Err(error) => {
                let _ = writeln!(text, "{}", ErrorDocument::of(error).message());
            }
        }
    }
    text
}
