// SPDX-License-Identifier: Apache-2.0
//! `collector demo`: a simulated fleet, collected live as a real one would be.

mod configuration;
mod history;
mod layout;
mod line;
#[cfg(test)]
mod picture;
mod prometheus;
mod readers;
mod report;
mod shown;
mod table;

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use collector_config::{Loaded, Loader};
use collector_core::text::counted;
use collector_core::{Clock, MetricsCollector, ModelRef, SystemClock, duration};
use collector_engine::CachingCollector;
use collector_sim::{FleetServer, FleetSpec, VariantSpec};
use tokio::signal::unix::SignalKind;
use tokio::time::{Instant, interval, interval_at, sleep};

use self::configuration::configuration;
use self::history::History;
use self::layout::{Frame, Size};
use self::prometheus::Prometheus;
use self::readers::{Latencies, read};
use self::report::report;
use self::shown::Shown;
use super::get::read_all;
use super::settings::{Verbosity, format, log_flags, start_log};
use crate::args::{DemoArgs, Format, GlobalArgs};
use crate::exit::{Exit, Failure};
use crate::output::{
    ListDocument, colours, print, print_on, printed_json, replicas_item, replicas_table, signs,
};
use crate::screen::{Keys, Screen};
use crate::server::Recorder;
use crate::signals::{StopSignals, caught};

/// How often a frame is drawn on a terminal.
const FRAME: Duration = Duration::from_millis(500);

/// How often a line about each model is printed where there is no terminal, and when first: there are
/// readings by then.
const LINES: Duration = Duration::from_secs(3);
const FIRST_LINES: Duration = Duration::from_secs(2);

/// How long a first reading of every model may take to come.
const FIRST_READINGS: Duration = Duration::from_secs(20);

/// Where the demo collects from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Prometheus,
}

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &DemoArgs) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Wide, Format::Json])?;
    if format == Format::Json && !args.once {
        return Err(Failure::usage("--output json prints one document: add --once"));
    }
    let way = way(base, global.backend.as_deref())?;
    let loaded = log_flags(base.clone(), global).read()?;
    start_log(&loaded, Verbosity::Lines)?;
    super::block_on_many_threads(demo(args, format, way))
}

/// Direct scraping, unless Prometheus is requested or is the only backend of this build.
fn way(base: &Loader, backend: Option<&str>) -> Result<Way, Failure> {
    let mut possible = vec![("scrape", Way::Direct), ("prometheus", Way::Prometheus)];
    possible.retain(|(name, _)| base.backends().any(|registered| registered == *name));
    let is_chosen = |name: &str| match backend {
        Some("epp") => name == "scrape",
        backend => backend.is_none_or(|backend| backend == name),
    };
    let chosen = possible.iter().find(|(name, _)| is_chosen(name));
    match (chosen, backend) {
        (Some((_, way)), _) => Ok(*way),
        (None, Some(backend)) if !possible.is_empty() => {
            let names: Vec<&str> = possible.iter().map(|(name, _)| *name).collect();
            Err(Failure::usage(format!(
                "--backend {backend:?}: the demo collects from one of {}",
                names.join(", ")
            )))
        }
        _ => Err(Failure::usage(
            "this build has no backend that the demo can use: build it with `--features epp`",
        )),
    }
}

async fn demo(args: &DemoArgs, format: Format, way: Way) -> Result<Exit, Failure> {
    let mut signals = StopSignals::catch()?;
    let recorder = Recorder::install()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let spec = FleetSpec::demo();
    let fleet = FleetServer::start(spec.clone()).await.map_err(Failure::other)?;
    let server = match way {
        Way::Direct => None,
        Way::Prometheus => Some(Prometheus::start(&fleet).await?),
    };
    let url = server.as_ref().map(Prometheus::url);
    let settings = load(&configuration(&spec, &fleet.targets(), url))?;
    let collector: Arc<CachingCollector> = Arc::new(settings.config.build(Arc::clone(&clock))?);
    let models: Vec<ModelRef> = spec.variants.iter().map(model_of).collect();

    let run = async {
        if server.is_some() {
            wait_for_readings(&collector, &spec.variants).await?;
        }
        if args.once {
            return once(&collector, &*clock, &models, format).await;
        }
        live(args, &collector, &models, &recorder, &title(&spec, way)).await
    };
    tokio::select! {
        ended = run => ended,
        // Before there is anything to report on, a signal just ends it.
        _ = signals.received(), if args.once || server.is_some() => Ok(Exit::Success),
    }
}

/// Loads the configuration as it would be loaded from a user's file.
fn load(toml: &str) -> Result<Loaded, Failure> {
    let folder = tempfile::tempdir()
        .map_err(|error| Failure::other(format!("cannot make a temporary folder: {error}")))?;
    let file = folder.path().join("demo.toml");
    fs::write(&file, toml)
        .map_err(|error| Failure::other(format!("cannot write {}: {error}", file.display())))?;
    Loader::new().file(file).load().map_err(Failure::other)
}

/// A Prometheus that has just started knows nothing yet, and then some of the pods.
async fn wait_for_readings(
    collector: &CachingCollector,
    variants: &[VariantSpec],
) -> Result<(), Failure> {
    let started = Instant::now();
    for variant in variants {
        let model = model_of(variant);
        loop {
            let read = collector.collect_replica_metrics(&model).await;
            let pods = read.as_ref().map_or(0, |reading| reading.value().replicas.len());
            if pods >= variant.pods as usize {
                break;
            }
            if started.elapsed() > FIRST_READINGS {
                read?;
                break;
            }
            collector.invalidate_cache(&model);
            sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

fn model_of(variant: &VariantSpec) -> ModelRef {
    ModelRef::new(variant.model.as_str(), variant.namespace.as_str())
}

/// One reading of every model.
async fn once(
    collector: &CachingCollector,
    clock: &dyn Clock,
    models: &[ModelRef],
    format: Format,
) -> Result<Exit, Failure> {
    let tracked = read_all(collector, models.to_vec()).await;
    let mut text = String::new();
    if format == Format::Json {
        let items = tracked.iter().map(|tracked| replicas_item(tracked, clock.wall()));
        text = printed_json(&items.collect::<ListDocument<_>>());
    } else {
        for tracked in &tracked {
            let reading = tracked.replicas.as_ref().map_err(Clone::clone)?;
            let replicas = reading.value().replicas.iter();
            text.push_str(&replicas_table(reading, replicas, format == Format::Wide, false));
            text.push('\n');
        }
    }
    print(&text)?;
    Ok(Exit::Success)
}

/// What runs, in one line.
fn title(spec: &FleetSpec, way: Way) -> String {
    let pods = spec.variants.iter().map(|variant| variant.pods).sum::<u32>();
    format!(
        "collector demo: {} on {}, {}",
        counted(spec.variants.len() as u64, "model", "models"),
        counted(pods, "simulated pod", "simulated pods"),
        match way {
            Way::Direct => "scraped directly every 500ms",
            Way::Prometheus => "read from a Prometheus every second",
        }
    )
}

/// Shows what a collector tracks until a key is pressed or a signal comes.
#[cfg(feature = "record")]
pub(super) async fn watch(collector: &Arc<CachingCollector>, title: &str) -> Result<Exit, Failure> {
    let mut signals = StopSignals::catch()?;
    let recorder = Recorder::install()?;
    collector.start_background_worker().await.map_err(Failure::other)?;
    let shown = tokio::select! {
        shown = show(collector, &recorder, title, "the replay") => shown?,
        _ = signals.received() => Exit::Success,
    };
    collector.stop_background_worker().await;
    Ok(shown)
}

/// Shows the fleet until the time is over, a key is pressed or a signal comes, then what was measured.
async fn live(
    args: &DemoArgs,
    collector: &Arc<CachingCollector>,
    models: &[ModelRef],
    recorder: &Recorder,
    title: &str,
) -> Result<Exit, Failure> {
    let mut signals = StopSignals::catch()?;
    let began = Instant::now();
    let latencies = Latencies::new();
    collector.start_background_worker().await.unwrap();
    let shown = tokio::select! {
        shown = show(collector, recorder, title, "the demo") => shown?,
        () = read(&**collector, models, &latencies) => Exit::Success,
        () = sleep(args.duration.unwrap_or(Duration::MAX)) => Exit::Success,
        _ = signals.received() => Exit::Success,
    };
    let state = collector.state();
    let ran = began.elapsed();
    collector.stop_background_worker().await;
    print(&report(&state, &latencies, &collected(recorder, state.backends[0].requests), ran))?;
    Ok(shown)
}

/// Frames on a terminal, otherwise lines.
async fn show(
    collector: &CachingCollector,
    recorder: &Recorder,
    title: &str,
    what: &str,
) -> Result<Exit, Failure> {
    match Screen::enter()? {
        Some((screen, keys)) => frames(collector, recorder, title, what, &screen, keys).await,
        None => lines(collector, recorder, title, what).await,
    }
}

/// Draws what is tracked, again and again, until `q` is pressed. Does not count as reading.
async fn frames(
    collector: &CachingCollector,
    recorder: &Recorder,
    title: &str,
    what: &str,
    screen: &Screen,
    mut keys: Keys,
) -> Result<Exit, Failure> {
    let mut resized = caught(SignalKind::window_change())?;
    let keys_of_end = if keys.are_read() { "q or Ctrl-C" } else { "Ctrl-C" };
    let ending = format!("{keys_of_end} ends {what}");
    let styles = colours(&io::stdout());
    let mut ticks = interval(FRAME);
    let mut models = Vec::new();
    let mut history = History::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                recorder.upkeep();
                models = tracked(collector);
                for shown in &models {
                    if let Ok(reading) = &shown.replicas {
                        history.add(&shown.model, &reading.value().replicas);
                    }
                }
            }
            // The same values in the new size.
            _ = resized.recv() => {}
            () = keys.quit() => return Ok(Exit::Success),
        }
        let frame =
            Frame { title, ending: &ending, models: &models, history: &history, signs: signs() };
        let (rows, columns) = Screen::size().unwrap_or((24, 80));
        let lines = frame.lines(Size { rows, columns });
        let lines: Vec<String> = lines.iter().map(|line| line.on_terminal(styles)).collect();
        if !screen.draw(&lines)? {
            // A panic elsewhere, which has been reported.
            return Ok(Exit::Failure);
        }
    }
}

/// Prints a line about each model, again and again, for as long as somebody reads them. Does not count as
/// reading.
async fn lines(
    collector: &CachingCollector,
    recorder: &Recorder,
    title: &str,
    what: &str,
) -> Result<Exit, Failure> {
    let every = duration::format(LINES);
    print(&format!("{title}; a line a model every {every}; Ctrl-C ends {what}\n"))?;
    let began = Instant::now();
    let mut ticks = interval_at(began + FIRST_LINES, LINES);
    loop {
        ticks.tick().await;
        recorder.upkeep();
        for shown in tracked(collector) {
            if !print_on(&(shown.line(began.elapsed()) + "\n"))? {
                return Ok(Exit::Success);
            }
        }
    }
}

/// The models in the order of their namespaces and names.
fn tracked(collector: &CachingCollector) -> Vec<Shown> {
    collector.tracked().into_iter().map(Shown::of).collect()
}

/// What the backend did, by its own counters.
fn collected(recorder: &Recorder, requests: u64) -> String {
    let count = |family| recorder.counter(family);
    match count("collector_epp_scrapes_total") {
        Some(scrapes) => format!(
            "{} of pods, {} MB of pages read",
            counted(scrapes, "scrape", "scrapes"),
            count("collector_epp_scrape_bytes_total").unwrap_or(0) / 1_000_000,
        ),
        None => counted(requests, "request to Prometheus", "requests to Prometheus"),
    }
}
