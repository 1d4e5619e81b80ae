// SPDX-License-Identifier: Apache-2.0
//! `collector check`: what works and what does not, each with cause and remedy.

#[cfg(feature = "promql")]
mod autoscalers;
#[cfg(feature = "kubernetes")]
mod cluster;
#[cfg(feature = "promql")]
mod fix;
mod groups;
#[cfg(feature = "promql")]
mod hpa;
#[cfg(feature = "promql")]
mod objects;
#[cfg(feature = "promql")]
mod present;
mod report;
#[cfg(feature = "promql")]
mod scaled_object;
#[cfg(feature = "promql")]
mod yaml;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use collector_config::Loader;
use collector_core::{Backend, Check, CheckStatus, ModelRef};
use collector_engine::CachingCollector;
use tokio::time::sleep;

use self::report::{Report, group};
use super::settings::{Settings, Verbosity, format};
use crate::args::{CheckArgs, Format, GlobalArgs};
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::progress::waiting;
use crate::signals::StopSignals;

/// The pause between two rounds of `--wait`.
const PAUSE: Duration = Duration::from_secs(2);

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &CheckArgs) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Json])?;
    let settings = Settings::load(base, global, Verbosity::OneShot)?;
    super::block_on(check(&settings, global.config.as_deref(), args, format))
}

async fn check(
    settings: &Settings,
    file: Option<&Path>,
    args: &CheckArgs,
    format: Format,
) -> Result<Exit, Failure> {
    let model = args.model()?;
    let mut signals = StopSignals::catch()?;
    let backends = settings.backends_that_measure()?;
    settings.before_a_read(None).await?;
    #[cfg(feature = "promql")]
    let mut files = autoscalers::Autoscalers::read(args, settings)?;
    // Of several rounds the last one is the result.
    let prints_at_once = format == Format::Table && args.wait.is_none();
    // stdout is for corrected objects.
    #[cfg(feature = "promql")]
    let to_stderr = args.fix;
    #[cfg(not(feature = "promql"))]
    let to_stderr = false;
    let started = settings.clock.now();
    let mut attempt = 1;
    loop {
        // A new collector each round: the last one's breaker may be open.
        let collector = settings.collector_at_once()?;
        let mut report = Report::new(prints_at_once, to_stderr);
        let work = async {
            #[cfg(feature = "promql")]
            if let Some(files) = &mut files {
                report.add(groups::configuration(settings, file))?;
                return files.check(settings, collector, &mut report).await;
            }
            round(settings, file, &backends, &collector, model.clone(), &mut report).await
        };
        let stopped = tokio::select! {
            biased;
            signal = signals.received() => Some(signal),
            ended = work => {
                ended?;
                None
            }
        };
        let passed = started.age(settings.clock.now());
        let left = args.wait.and_then(|wait| wait.checked_sub(passed + PAUSE));
        let stopped = match (stopped, left) {
            (None, Some(left)) if report.failed() > 0 => {
                logging::note(&report.attempt(attempt, left));
                attempt += 1;
                tokio::select! {
                    signal = signals.received() => Some(signal),
                    () = sleep(PAUSE) => continue,
                }
            }
            (stopped, _) => stopped,
        };
        let failed = report.failed() > 0;
        report.finish(format, stopped)?;
        #[cfg(feature = "promql")]
        if to_stderr && stopped.is_none() {
            files.iter().try_for_each(autoscalers::Autoscalers::print)?;
        }
        return match stopped {
            Some(signal) => {
                Err(Failure::other(format!("stopped by {signal} before every check has ended")))
            }
            None if failed => Ok(Exit::Failure),
            None => Ok(Exit::Success),
        };
    }
}

async fn round(
    settings: &Settings,
    file: Option<&Path>,
    backends: &[Arc<dyn Backend>],
    collector: &Arc<CachingCollector>,
    model: Option<ModelRef>,
    report: &mut Report,
) -> Result<(), Failure> {
    let clock = &*settings.clock;
    #[cfg_attr(not(feature = "kubernetes"), expect(unused_mut, reason = "a cluster changes it"))]
    let mut collector = Arc::clone(collector);
    report.add(groups::configuration(settings, file))?;
    for backend in backends {
        let place = settings.place_of(backend.name());
        let what = format!("{place}: the connection and the metrics");
        let probed = waiting(clock, &what, groups::probe(&**backend));
        report.add(probed.await.into_iter().map(|mut check| {
            if backends.len() > 1 {
                check.detail = format!("{}: {}", backend.name(), check.detail);
            }
            check
        }))?;
    }
    #[cfg(feature = "kubernetes")]
    if let Some(cluster) = settings.cluster()? {
        let (cluster, model) = (&cluster, model.as_ref());
        let asked = cluster::Asked { settings, cluster, backends, collector: &collector, model };
        // A large future, which would make all those around it as large.
        let checks = waiting(clock, "the cluster", Box::pin(cluster::checks(&asked))).await;
        if cluster::is_unknown(&checks) {
            // The model is read without it: what is wrong is reported, and another try would wait as long again.
            collector = settings.collector_at_once_over(backends.to_vec())?;
        }
        report.add(checks)?;
    } else if let Some(cluster) = settings.cluster_of_external_metrics()? {
        let (cluster, model) = (&cluster, model.as_ref());
        let asked = cluster::Asked { settings, cluster, backends, collector: &collector, model };
        let checks = cluster::checks_of_external_metrics(&asked);
        report.add(waiting(clock, "the cluster", Box::pin(checks)).await)?;
    }
    let unreachable = report
        .checks()
        .iter()
        .any(|check| check.status == CheckStatus::Fail && group(check) == "connection");
    let left_out =
        model.as_ref().and_then(|model| settings.loaded.left_out(model.namespace.as_str()));
    let names: Vec<String> =
        backends.iter().map(|backend| settings.place_of(backend.name())).collect();
    let of_model = match (left_out, model) {
        // The probe has already reported what is wrong.
        _ if unreachable => vec![Check::new(
            "model.available",
            CheckStatus::Skip,
            "not asked, because the connection does not work",
        )],
        (Some(left_out), _) => {
            let check = Check::new("model.available", CheckStatus::Fail, left_out.message);
            vec![check.with_remedy(left_out.remedy)]
        }
        (None, model) => {
            let what = if model.is_some() { "the model" } else { "the models" };
            let checks = async {
                match &model {
                    Some(model) => groups::of_model(&*collector, model).await,
                    None => vec![groups::known_models(settings, &*collector).await],
                }
            };
            waiting(clock, &format!("{}: {what}", names.join(", ")), checks).await
        }
    };
    report.add(of_model)?;
    report.add(groups::timings(settings))
}
