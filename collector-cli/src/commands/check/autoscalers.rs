// SPDX-License-Identifier: Apache-2.0
//! `check --scaled-object` and `check --hpa`: objects of Kubernetes that scale by metrics, in files.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{Check, CheckStatus};
use collector_engine::CachingCollector;
use collector_promql::Guard;

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
        let mut read = Self { files, context: context(settings), fixed: Vec::new() };
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
        let lint = Lint::new(settings, &collector, context(settings), &objects)?;
        let (place, clock) = (lint.place(settings), &*settings.clock);
        for kind in [Kind::ScaledObject, Kind::Hpa] {
            for object in objects.iter().filter(|object| object.kind == kind) {
                let what = format!("{place}: the values of {}", objects::name_of(&object.value));
                report.add(waiting(clock, &what, lint.object(object)).await)?;
            }
        }
        report.add(together(&objects))
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

/// What the rules depend on.
pub(super) fn context(settings: &Settings) -> Context {
    let config = &settings.loaded.config;
    Context { port: config.server.listen.port(), limits: limits(&config.promql) }
}

/// Returns whether an object has queries for the server of `[prometheus]`.
pub(super) fn asks_server(object: &Object, settings: &Settings) -> bool {
    match object.kind {
        Kind::ScaledObject => {
            ScaledObject::of(&object.value).asks_server(server(&settings.loaded).is_some())
        }
        Kind::Hpa => Hpa::of(&object.value).has_queries(),
    }
}

/// What objects are checked with: the rules, the server of their queries, and readings.
pub(super) struct Lint {
    context: Context,
    /// The server of `[prometheus]`, if one of the objects needs it.
    guard: Option<Guard>,
    #[cfg(feature = "keda")]
    readings: Readings,
    /// The names of the ScaledObjects.
    scaled_objects: Vec<String>,
}

impl Lint {
    pub(super) fn new(
        settings: &Settings,
        collector: &Arc<CachingCollector>,
        context: Context,
        objects: &[Object],
    ) -> Result<Self, Failure> {
        let asks_server = objects.iter().any(|object| asks_server(object, settings));
        let guard = asks_server.then(|| {
            let clock = Arc::clone(&settings.clock);
            guard(&settings.loaded, Arc::clone(collector), clock, QUERY_TIMEOUT, None)
        });
        let scaled = objects.iter().filter(|object| object.kind == Kind::ScaledObject);
        Ok(Self {
            context,
            guard: guard.transpose()?,
            #[cfg(feature = "keda")]
            readings: Readings::new(settings, Arc::<CachingCollector>::clone(collector))?,
            scaled_objects: scaled.map(|object| objects::name_of(&object.value)).collect(),
        })
    }

    /// The servers that values come from.
    fn place(&self, settings: &Settings) -> String {
        let server = self.guard.as_ref().map(|_| settings.place_of("prometheus"));
        #[cfg(feature = "keda")]
        let server = server.or_else(|| Some(self.readings.backends.clone()));
        server.unwrap_or_else(|| "the rules".to_owned())
    }

    /// Returns the checks of one object: by the rules, and by present values.
    pub(super) async fn object(&self, object: &Object) -> Vec<Check> {
        let (findings, values) = match object.kind {
            Kind::ScaledObject => {
                let object = ScaledObject::of(&object.value);
                let values = object.values(self.guard.as_ref(), &self.context.limits).await;
                #[cfg(feature = "keda")]
                let values = [values, object.signals(&self.readings).await].concat();
                (object.rules(&self.context), values)
            }
            Kind::Hpa => {
                let object = Hpa::of(&object.value);
                let values = match &self.guard {
                    Some(guard) => object.values(guard).await,
                    None => Vec::new(),
                };
                (object.rules(&self.scaled_objects), values)
            }
        };
        findings.into_iter().map(|finding| finding.check).chain(values).collect()
    }
}

/// What is wrong with objects that are each right: two autoscalers of one workload, two servers of one API.
pub(super) fn together(objects: &[Object]) -> Vec<Check> {
    let mut checks = Vec::new();
    let hpas: Vec<Hpa> = objects
        .iter()
        .filter(|object| object.kind == Kind::Hpa)
        .map(|object| Hpa::of(&object.value))
        .collect();
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
        together(&objects).into_iter().map(|check| check.id).collect()
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
