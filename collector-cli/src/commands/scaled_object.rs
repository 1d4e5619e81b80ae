// SPDX-License-Identifier: Apache-2.0
//! `collector scaled-object`: writes a ScaledObject of KEDA for a model, for the PromQL API (`queries`) or for the
//! external scaler.

mod document;
mod queries;

use std::sync::Arc;

use collector_config::Loader;
use collector_core::{EndpointPicker, KnownModel, MetricsCollector, ModelRef, Nearest, Replicas};
use collector_engine::CachingCollector;
use collector_keda::Signal;

use self::document::{Document, Trigger};
use self::queries::{PickerQueue, Server};
use super::settings::{Settings, Verbosity};
use crate::args::{Door, GlobalArgs, ScaledObjectArgs};
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::output::{ErrorDocument, nearest_first, print, quoted};

/// The port of the external scaler in the documentation.
const SCALER_PORT: u16 = 9465;

pub(super) fn run(
    base: &Loader,
    global: &GlobalArgs,
    args: &ScaledObjectArgs,
) -> Result<Exit, Failure> {
    if global.output.is_some() {
        return Err(Failure::usage("--output does not work with this command: it writes YAML"));
    }
    let address = args.address.as_deref().map(|address| checked(address, args.door)).transpose()?;
    if args.max.is_some_and(|max| max < args.min) {
        return Err(Failure::usage(format!("--max must be at least --min ({})", args.min)));
    }
    let settings = Settings::load(base, global, Verbosity::OneShot)?;
    settings.warn();
    let text = super::block_on(async {
        settings.before_a_read(None).await?;
        let collector = settings.collector_at_once()?;
        let model = model(&*collector, args).await?;
        // Errors if no backend knows it, with the nearest names.
        let reading = collector.collect_replica_metrics(&model).await?;
        let triggers = match args.door {
            Door::Promql => promql(&settings, collector, &model, args, address).await?,
            Door::Keda => keda(reading.value(), args, address)?,
        };
        let target = args.target.clone().unwrap_or_else(|| guessed(model.model.as_str()));
        if args.target.is_none() {
            logging::note(&format!(
                "the Deployment is taken to be {target:?}; --target names another one"
            ));
        }
        Ok(Document::new(&model, &target, args.min, args.max, triggers).to_yaml())
    })?;
    print(&text)?;
    Ok(Exit::Success)
}

/// The address of a door, if it has its form.
fn checked(address: &str, door: Door) -> Result<String, Failure> {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_valid = match door {
        Door::Promql => url::Url::parse(address)
            .is_ok_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host()),
        Door::Keda => {
            !address.contains("//")
                && address
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| !host.is_empty() && is_port(port))
        }
    };
    if is_valid {
        return Ok(address.to_owned());
    }
    let form = match door {
        Door::Promql => "a URL, for example http://collector.monitoring:9464",
        Door::Keda => "host and port, for example collector.monitoring:9465",
    };
    Err(Failure::usage(format!("--address {address:?}: this door has {form}")))
}

/// The model, in the namespace that was given or in the only one that has it.
async fn model(
    collector: &dyn MetricsCollector,
    args: &ScaledObjectArgs,
) -> Result<ModelRef, Failure> {
    if let Some(namespace) = &args.namespace {
        return Ok(ModelRef::new(args.model.as_str(), namespace.as_str()));
    }
    let known = collector.list_models().await?;
    let is_it = |known: &&KnownModel| known.model.model.as_str() == args.model;
    let namespaces: Vec<&str> =
        known.iter().filter(is_it).map(|known| known.model.namespace.as_str()).collect();
    match *namespaces {
        [one] => Ok(ModelRef::new(args.model.as_str(), one)),
        [] => {
            let asked = ModelRef::new(args.model.as_str(), "");
            let nearest = Nearest::of(&asked, &known, 3, strsim::damerau_levenshtein);
            let names: Vec<String> = nearest.models.iter().map(ToString::to_string).collect();
            let mut message = format!("no metrics of model {:?}", args.model);
            if !names.is_empty() {
                let names = quoted(names.iter().map(String::as_str));
                message = format!("{message}; did you mean {names}?");
            }
            let document = ErrorDocument::new("MetricsMissing", message).with_suggestions(names);
            Err(Failure::missing(document.with_hint("`collector get models` lists what exists")))
        }
        _ => Err(Failure::usage(format!(
            "the model is in several namespaces, {}: use --namespace",
            quoted(nearest_first("", namespaces.iter().copied()))
        ))),
    }
}

/// The triggers with queries.
async fn promql(
    settings: &Settings,
    collector: Arc<CachingCollector>,
    model: &ModelRef,
    args: &ScaledObjectArgs,
    address: Option<String>,
) -> Result<Vec<Trigger>, Failure> {
    let port = settings.loaded.config.server.listen.port();
    let address = address.unwrap_or_else(|| format!("http://collector.monitoring:{port}"));
    let server = Server::discover(settings, collector, model).await?;
    let picker = server.picker_queue().await?;
    if args.min == 0 && picker.is_none() {
        return Err(Failure::usage(format!(
            "--min 0 needs an endpoint picker with flow control in namespace {:?} on the server: while there are no pods, its \
             queue is the only metric that shows requests",
            model.namespace.as_str()
        ))
        .with_hint("use --min 1"));
    }
    let mut triggers = Vec::new();
    if let Some(PickerQueue { query, pool }) = picker {
        let pool = pool.map_or_else(String::new, |pool| format!(" of pool {pool:?}"));
        logging::note(&format!("the endpoint picker{pool} is taken to route the model's requests"));
        triggers.push(Trigger::query(&address, query, &Signal::Queue, false));
    }
    for signal in args.signals() {
        let query = server.query(&signal, args.min)?;
        triggers.push(Trigger::query(&address, query, &signal, args.min == 0));
    }
    Ok(triggers)
}

/// The triggers on the external scaler.
fn keda(
    reading: &Replicas,
    args: &ScaledObjectArgs,
    address: Option<String>,
) -> Result<Vec<Trigger>, Failure> {
    if args.min == 0 && reading.endpoint_picker == EndpointPicker::None {
        return Err(Failure::usage(
            "--min 0 needs an endpoint picker that a backend reads: while there are no pods, its queue is the only metric that \
             shows requests",
        )
        .with_hint("let the Prometheus scrape it, add it to the targets of [scrape], or use --min 1"));
    }
    let address = address.unwrap_or_else(|| format!("collector.monitoring:{SCALER_PORT}"));
    let signals = args.signals().into_iter();
    Ok(signals.map(|signal| Trigger::external(&address, &reading.model, &signal)).collect())
}

/// The name that a Deployment of a model probably has: the last part of its id, as Kubernetes writes names.
fn guessed(model: &str) -> String {
    let last = model.rsplit('/').next().unwrap_or_default().to_lowercase();
    let name: String = last
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '-' })
        .take(63)
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "model".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_is_named_after_its_model() {
        assert_eq!(guessed("meta-llama/Llama-3.1-8B-Instruct"), "llama-3-1-8b-instruct");
        assert_eq!(guessed("m"), "m");
        assert_eq!(guessed("org/_"), "model");
    }

    #[test]
    fn an_address_has_the_form_of_its_door() {
        assert!(checked("http://collector:9464", Door::Promql).is_ok());
        assert!(checked("collector:9464", Door::Promql).is_err());
        assert!(checked("collector:9465", Door::Keda).is_ok());
        for wrong in ["http://collector:9465", "collector", ":9465", "collector:0"] {
            assert!(checked(wrong, Door::Keda).is_err(), "{wrong}");
        }
    }
}
