// SPDX-License-Identifier: Apache-2.0
//! `collector record`: what the backends answer, written to a file until a signal.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use collector_config::Loader;
use collector_core::text::{counted, printable};
use collector_core::{MetricsCollector as _, ModelRef, duration};
use collector_engine::CachingCollector;
use collector_record::{Recorder, RecordingError, Tail, Writer};
use tokio::time::{Instant, interval, sleep_until, timeout};

use super::settings::{Settings, Verbosity};
use crate::args::{GlobalArgs, RecordArgs};
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::signals::StopSignals;

/// How often what was answered is written: what a kill may cost.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the one model is read, so that it stays tracked.
const READ_INTERVAL: Duration = Duration::from_secs(60);

/// How long the end of the requests under way is waited for.
const STOP_LIMIT: Duration = Duration::from_secs(1);

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &RecordArgs) -> Result<Exit, Failure> {
    if global.output.is_some() {
        return Err(Failure::usage(
            "--output does not work with this command: it prints no result",
        ));
    }
    let mut settings = Settings::load(base, global, Verbosity::Lines)?;
    settings.warn();
    // The daemon's own file.
    settings.loaded.config.cache.snapshot_path = None;
    super::block_on_many_threads(record(&settings, args))
}

async fn record(settings: &Settings, args: &RecordArgs) -> Result<Exit, Failure> {
    let mut signals = StopSignals::catch()?;
    let backends = settings.backends()?;
    let cache = &settings.loaded.config.cache;
    let pushes = backends.iter().any(|backend| backend.live().is_some());
    if !cache.enabled || (cache.fetch_interval.is_zero() && !pushes) {
        return Err(Failure::usage(
            "cache.fetch_interval or cache.enabled: nothing is asked in the background, so nothing would be recorded",
        ));
    }
    let model = args.model.optional_model()?;
    let writer = open(args, settings)?;
    match &model {
        Some(model) => logging::note(&format!("Recording {}", printable(&model.to_string()))),
        None => logging::note("Recording all models that the backends list"),
    }
    let clock = Arc::clone(&settings.clock);
    let version = env!("CARGO_PKG_VERSION");
    let (recorder, backends) = Recorder::wrap(backends, clock, version, args.anonymize);
    let mut discovery = settings.loaded.config.tracking.discovery();
    discovery.track = model.is_none();
    let collector = settings.built(backends, |builder| builder.discover(discovery))?;
    collector.start_background_worker().await.map_err(Failure::other)?;

    let written = {
        let reads = read_again(&collector, model.as_ref());
        let end = args.duration.map(|duration| Instant::now() + duration);
        let stopped = async {
            match end {
                Some(end) => tokio::select! {
                    _ = signals.received() => {}
                    () = sleep_until(end) => {}
                },
                None => {
                    signals.received().await;
                }
            }
        };
        tokio::select! {
            written = write(&recorder, writer, stopped, &args.file) => written,
            () = reads => unreachable!("it reads for ever"),
        }
    };
    // Answers that arrive from now on are not recorded.
    let _ = timeout(STOP_LIMIT, collector.stop_background_worker()).await;
    written?;
    Ok(Exit::Success)
}

/// Opens the file, and says what becomes of it.
fn open(args: &RecordArgs, settings: &Settings) -> Result<Writer, Failure> {
    let (path, file) = (&args.file, args.file.display());
    if args.anonymize && std::fs::metadata(path).is_ok_and(|known| known.len() > 0) {
        return Err(Failure::usage(format!(
            "{file}: a file that exists cannot be continued with --anonymize: record to another one"
        )));
    }
    let opened = Writer::open(path, args.max_size << 20, &*settings.clock);
    let (writer, tail) = opened.map_err(|error| match error {
        RecordingError::Refused { .. } => Failure::usage(error),
        error => Failure::other(error),
    })?;
    if let Tail::Cut { .. } = tail {
        tracing::warn!("{file}: {tail}; the recording is continued behind the entry before it");
    }
    if writer.continues() {
        logging::note(&format!("{file}: continues a recording"));
    }
    Ok(writer)
}

/// Reads the one model from time to time.
async fn read_again(collector: &CachingCollector, model: Option<&ModelRef>) {
    let mut failing = false;
    let mut ticks = interval(READ_INTERVAL);
    loop {
        ticks.tick().await;
        let Some(model) = model else { continue };
        match collector.collect_replica_metrics(model).await {
            Ok(_) => failing = false,
            Err(error) => {
                if !failing {
                    tracing::warn!("{error}; that is recorded");
                }
                failing = true;
            }
        }
    }
}

/// Writes what is recorded each second, until it is stopped.
async fn write(
    recorder: &Arc<Recorder>,
    mut writer: Writer,
    stopped: impl Future<Output = ()>,
    file: &Path,
) -> Result<(), Failure> {
    let began = Instant::now();
    let mut progress = Progress { shown: io::stderr().is_terminal() };
    let mut ticks = interval(WRITE_INTERVAL);
    tokio::pin!(stopped);
    loop {
        let ends = tokio::select! {
            () = &mut stopped => true,
            _ = ticks.tick() => false,
        };
        if ends {
            recorder.end();
        }
        let entries = recorder.take().map_err(|error| {
            progress.end();
            Failure::other(format!("{}: {error}; what was recorded before is kept", file.display()))
        })?;
        let writing = tokio::task::spawn_blocking(move || {
            let written = writer.write(&entries);
            let written = if ends { written.and_then(|()| writer.sync()) } else { written };
            (writer, written)
        });
        let written;
        (writer, written) =
            writing.await.map_err(|_panic| Failure::other("writing the recording panicked"))?;
        if let Err(error) = written {
            progress.end();
            return Err(Failure::other(format!("{error}; what was recorded before is kept")));
        }
        let length = duration::format_seconds(began.elapsed());
        let answers = counted(recorder.answers(), "answer", "answers");
        let state = format!("{answers} in {length}, {} KiB", writer.bytes().div_ceil(1024));
        progress.show(&state);
        if ends {
            progress.end();
            logging::note(&format!("{}: {state}", file.display()));
            return Ok(());
        }
    }
}

/// A line on a terminal that is written again and again.
struct Progress {
    shown: bool,
}

impl Progress {
    fn show(&mut self, state: &str) {
        if self.shown {
            // The recording goes on without a terminal.
            let _ = write!(io::stderr(), "\r\x1b[KRecording: {state}");
        }
    }

    fn end(&mut self) {
        if self.shown {
            let _ = writeln!(io::stderr());
        }
    }
}
