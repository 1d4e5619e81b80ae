// SPDX-License-Identifier: Apache-2.0
//! `check --scaled-object` and `check --hpa`: objects of Kubernetes that scale by metrics, in files.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{Check, CheckStatus};
use collector_engine::CachingCollector;

use super::fix::{self, Fixed};
use super::hpa::Hpa;
use super::objects::{self, File, Finding, Kind, Object, target_of};
use super::report::Report;
#[cfg(feature = "keda")]
use super::scaled_object::Readings;
use super::scaled_object::{Context, ScaledObject};
use crate::args::CheckArgs;
use crate::commands::settings::Settings;
use crate::exit::Failure;
use crate::output::print;
use crate::progress::waiting;
use crate::server::{guard, limits, server};

/// The timeout of a query: people can wait longer than autoscalers.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// The files of a command line.
pub(super) struct Autoscalers {
    files: Vec<File>,
    context: Context,
    /// What `--fix` changed.
    fixed: Vec<Check>,
}

impl Autoscalers {
    /// Reads the files, and corrects them with `--fix`. `None` without files.
    pub(super) fn read(args: &CheckArgs, settings: &Settings) -> Result<Option<Self>, Failure> {
        let files = objects::read(&args.scaled_object, &args.hpa)?;
        if files.is_empty() {
            return Ok(None);
        }
        let config = &settings.loaded.config;
        let context = Context { port: config.server.listen.port(), limits: limits(&config.promql) };
        let mut read = Self { files, context, fixed: Vec::new() };
        if args.fix {
            for file in std::mem::take(&mut read.files) {
                let Fixed { file, checks } = fix::fix(file, |object| read.rules(object, &[]))?;
                read.files.push(file);
                read.fixed.extend(checks);
            }
        }
        Ok(Some(read))
    }

    /// Adds the checks of all objects.
    pub(super) async fn check(
        &mut self,
        settings: &Settings,
        collector: Arc<CachingCollector>,
        report: &mut Report,
    ) -> Result<(), Failure> {
        report.add(std::mem::take(&mut self.fixed))?;
        let objects: Vec<Object> = self.files.iter().flat_map(File::objects).collect();
        let of = |kind| objects.iter().filter(move |object| object.kind == kind);
        let scaled: Vec<ScaledObject> =
            of(Kind::ScaledObject).map(|object| ScaledObject::of(&object.value)).collect();
        let hpas: Vec<Hpa> = of(Kind::Hpa).map(|object| Hpa::of(&object.value)).collect();
        let has_server = server(&settings.loaded).is_some();
        let asks_server = scaled.iter().any(|object| object.asks_server(has_server))
            || hpas.iter().any(Hpa::has_queries);
        let guard = asks_server.then(|| {
            let clock = Arc::clone(&settings.clock);
            guard(&settings.loaded, Arc::clone(&collector), clock, QUERY_TIMEOUT, None)
        });
        let guard = guard.transpose()?;
        #[cfg(feature = "keda")]
        let readings = Readings::new(settings, collector)?;
        let names: Vec<String> = scaled.iter().map(|object| object.name.clone()).collect();
        let (place, clock) = (settings.place_of("prometheus"), &*settings.clock);
        for object in &scaled {
            report.add(object.rules(&self.context).into_iter().map(|finding| finding.check))?;
            let values = object.values(guard.as_ref(), &self.context.limits);
            report.add(waiting(clock, &format!("{place}: the triggers' values"), values).await)?;
            #[cfg(feature = "keda")]
            let models = format!("{}: the models", readings.backends);
            #[cfg(feature = "keda")]
            report.add(waiting(clock, &models, object.signals(&readings)).await)?;
        }
        for hpa in &hpas {
            report.add(hpa.rules(&names).into_iter().map(|finding| finding.check))?;
            if let Some(guard) = &guard {
                let values = hpa.values(guard);
                report
                    .add(waiting(clock, &format!("{place}: the metrics' values"), values).await)?;
            }
        }
        report.add(together(&objects, &hpas))
    }

    fn rules(&self, object: &Object, scaled_objects: &[String]) -> Vec<Finding> {
        match object.kind {
            Kind::ScaledObject => ScaledObject::of(&object.value).rules(&self.context),
            Kind::Hpa => Hpa::of(&object.value).rules(scaled_objects),
        }
    }

    /// Prints the corrected files.
    pub(super) fn print(&self) -> Result<(), Failure> {
        print(&fix::joined(&self.files))
    }
}

/// What is wrong with objects that are each right: two autoscalers of one workload, two servers of one API.
fn together(objects: &[Object], hpas: &[Hpa]) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut targets: Vec<(String, String)> = Vec::new();
    for object in objects {
        // KEDA makes an HPA of each ScaledObject.
        if object.kind == Kind::Hpa && Hpa::of(&object.value).is_of_keda() {
            continue;
        }
        let Some(target) = target_of(&object.value) else { continue };
        let (group, kind) = match object.kind {
            Kind::ScaledObject => ("scaled-object", "ScaledObject"),
            Kind::Hpa => ("hpa", "HPA"),
        };
        let name = format!("{kind} {}", objects::name_of(&object.value));
        match targets.iter().find(|(known, _)| *known == target) {
            // The same object from another file.
            Some((_, other)) if *other == name => {}
            Some((_, other)) => {
                let detail = format!("{name} and {other} both scale {target}, against each other");
                let check = Check::new(format!("{group}.target"), CheckStatus::Fail, detail);
                checks.push(
                    check.with_remedy("delete one; a ScaledObject can have several triggers"),
                );
            }
            None => targets.push((target, name)),
        }
    }
    let has_keda = objects.iter().any(|object| object.kind == Kind::ScaledObject)
        || hpas.iter().any(Hpa::is_of_keda);
    if let Some(hpa) = hpas.iter().find(|hpa| has_keda && hpa.needs_other_adapter()) {
        let detail = format!(
            "{} has an external metric that is not KEDA's, but a cluster has one server of external.metrics.k8s.io, and \
             KEDA is one",
            hpa.name
        );
        checks.push(
            Check::new("hpa.api", CheckStatus::Warn, detail)
                .with_remedy("move the HPA's metric to a ScaledObject, or serve it as a metric of type Object or Pods"),
        );
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let kinds = vec![Kind::ScaledObject, Kind::Hpa];
        let file = File::parse("a.yaml".to_owned(), text.to_owned(), kinds).unwrap();
        let objects = file.objects();
        let of = objects.iter().filter(|object| object.kind == Kind::Hpa);
        let hpas: Vec<Hpa> = of.map(|object| Hpa::of(&object.value)).collect();
        together(&objects, &hpas).into_iter().map(|check| check.id).collect()
    }

    #[test]
    fn two_autoscalers_of_one_workload_and_two_adapters_are_found() {
        let scaled =
            "kind: ScaledObject\nmetadata: {name: a}\nspec: {scaleTargetRef: {name: a}}\n---\n";
        let hpa = |target: &str, label: &str| {
            format!(
                "kind: HorizontalPodAutoscaler\nspec: {{scaleTargetRef: {{kind: Deployment, name: {target}}}, metrics: \
                 [{{type: External, external: {{metric: {{name: x, selector: {{matchLabels: {{{label}: a}}}}}}}}}}]}}\n"
            )
        };
        let keda = "scaledobject.keda.sh/name";
        assert_eq!(found(&(scaled.to_owned() + &hpa("a", keda))), [""; 0]);
        assert_eq!(found(&(scaled.to_owned() + &hpa("b", "model_name"))), ["hpa.api"]);
        assert_eq!(
            found(&(scaled.to_owned() + &hpa("a", "model_name"))),
            ["hpa.target", "hpa.api"]
        );
        assert_eq!(found(&hpa("b", "model_name")), [""; 0]);
        let other = scaled.replace("metadata: {name: a}", "metadata: {name: b}");
        assert_eq!(found(&(scaled.to_owned() + &other)), ["scaled-object.target"]);
        assert_eq!(found(&(scaled.to_owned() + scaled)), [""; 0], "it is the same object");
    }
}
