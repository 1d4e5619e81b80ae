//! `collector get`: one reading, or the models known.

use std::iter;

use collector_config::Loader;
use collector_core::text::shortened;
use collector_core::{
    Allocation, KnownModel, MetricsCollector as _, ModelRef, Namespace, Reading, Replicas,
    VariantName,
};

use super::settings::{Settings, Verbosity, format};
use crate::args::{AllocationArgs, Format, GetCommand, GlobalArgs, ModelsArgs};
use crate::exit::{Exit, Failure};
use crate::output::{
    ALLOCATION_SERIES, AllocationDocument, ErrorDocument, Exposition, ListDocument, ModelItem,
    REPLICA_SERIES, ReplicasDocument, Series, allocation_samples, allocation_table, model_items,
    models_table, nearest_first, print, quoted, replica_samples, replicas_table, shown,
    variant_to_add,
};

/// The reason of what is not there, in error documents.
const MISSING: &str = "MetricsMissing";

pub(super) fn run(
    base: &Loader,
    global: &GlobalArgs,
    command: &GetCommand,
) -> Result<Exit, Failure> {
    let format = match command {
        GetCommand::Models(_) => format(global, &[Format::Table, Format::Json, Format::Yaml])?,
        GetCommand::Replicas(_) => format(
            global,
            &[Format::Table, Format::Wide, Format::Json, Format::Yaml, Format::Prometheus],
        )?,
        GetCommand::Allocation(_) => {
            format(global, &[Format::Table, Format::Json, Format::Yaml, Format::Prometheus])?
        }
    };
    let settings = Settings::load(base, global, Verbosity::OneShot)?;
    settings.warn();
    print_result(&settings, command, format)
}

/// Reads and prints what `command` asks for.
pub(super) fn print_result(
    settings: &Settings,
    command: &GetCommand,
    format: Format,
) -> Result<Exit, Failure> {
    let text = match command {
        GetCommand::Replicas(args) => {
            let reading = replicas(settings, &args.model())?;
            show_replicas(&reading, format, settings)
        }
        GetCommand::Allocation(args) => {
            let reading = allocation(settings, args)?;
            show_allocation(&reading, format, settings)
        }
        GetCommand::Models(args) => show_models(models(settings, args)?, format),
    };
    print(&text)?;
    Ok(Exit::Success)
}

fn replicas(settings: &Settings, model: &ModelRef) -> Result<Reading<Replicas>, Failure> {
    super::block_on(async {
        let collector = settings.collector_at_once()?;
        settings.before_a_read(Some(&model.namespace)).await?;
        Ok(collector.collect_replica_metrics(model).await?)
    })
}

fn allocation(settings: &Settings, args: &AllocationArgs) -> Result<Reading<Allocation>, Failure> {
    let model = args.model.model();
    let variant = match (&args.which.variant, &args.which.accelerator) {
        (Some(name), _) => VariantName::new(name.as_str()),
        (None, Some(accelerator)) => variant_on(settings, &model, accelerator)?,
        (None, None) => unreachable!("the command line requires one of them"),
    };
    super::block_on(async {
        let collector = settings.collector_at_once()?;
        settings.before_a_read(Some(&model.namespace)).await?;
        Ok(collector.collect_allocation(&model, &variant).await?)
    })
}

/// The one variant of the model on this accelerator, whose name may differ in case.
fn variant_on(
    settings: &Settings,
    model: &ModelRef,
    accelerator: &str,
) -> Result<VariantName, Failure> {
    let of_model: Vec<(&VariantName, &str)> = settings
        .loaded
        .config
        .variants
        .iter()
        .filter(|variant| variant.model == model.model && variant.namespace == model.namespace)
        .filter_map(|variant| Some((&variant.name, variant.accelerator.as_ref()?.as_str())))
        .collect();
    let named = |fits: &dyn Fn(&str) -> bool| -> Vec<&VariantName> {
        of_model.iter().filter(|(_, known)| fits(known)).map(|(name, _)| *name).collect()
    };
    let mut fitting = named(&|known| known == accelerator);
    if fitting.is_empty() {
        fitting = named(&|known| known.eq_ignore_ascii_case(accelerator));
    }
    match *fitting {
        [one] => Ok(one.clone()),
        [] => Err(no_such_accelerator(model, accelerator, &of_model)),
        _ => Err(Failure::usage(format!(
            "--accelerator {accelerator:?}: {} variants of {model} have it: {fitting:?}; use \
             --variant",
            fitting.len()
        ))),
    }
}

fn no_such_accelerator(
    model: &ModelRef,
    accelerator: &str,
    of_model: &[(&VariantName, &str)],
) -> Failure {
    let shown = shortened(accelerator);
    let message = format!("{model} has no variant on accelerator {shown:?}");
    let known = nearest_first(accelerator, of_model.iter().map(|(_, known)| *known));
    if known.is_empty() {
        let message = format!("{message}: none of its variants is configured with an accelerator");
        let hint = variant_to_add(model, "NAME", Some(accelerator));
        return Failure::missing(ErrorDocument::new(MISSING, message).with_hint(hint));
    }
    let message = format!("{message}; its variants have {}", quoted(known.iter().copied()));
    let known = known.into_iter().map(str::to_owned).collect();
    Failure::missing(ErrorDocument::new(MISSING, message).with_suggestions(known))
}

fn models(settings: &Settings, args: &ModelsArgs) -> Result<Vec<ModelItem>, Failure> {
    let namespace = args.namespace.as_deref().map(Namespace::from);
    let mut known = super::block_on(async {
        let collector = settings.collector_at_once()?;
        settings.before_a_read(namespace.as_ref()).await?;
        Ok(collector.list_models().await?)
    })?;
    if known.is_empty() {
        match settings.loaded.limited() {
            Some(limited) => tracing::warn!("The backend knows no model: {limited}"),
            None => {
                tracing::warn!("The backend knows no model: is it scraping the model servers?");
            }
        }
    } else if let Some(namespace) = namespace {
        let elsewhere = namespaces(&known, namespace.as_str());
        known.retain(|known| known.model.namespace == namespace);
        if known.is_empty() {
            tracing::warn!(
                "No model in namespace {:?}; {elsewhere}",
                shortened(namespace.as_str())
            );
        }
    }
    // A command that exits at once tracks nothing.
    Ok(model_items(known, |_| false).collect())
}

/// The namespaces that have models, from the nearest to `name` on.
fn namespaces(known: &[KnownModel], name: &str) -> String {
    let names = nearest_first(name, known.iter().map(|known| known.model.namespace.as_str()));
    let has = if names.len() == 1 { "namespace with models" } else { "namespaces with models" };
    format!("{has}: {}", quoted(names))
}

fn show_replicas(reading: &Reading<Replicas>, format: Format, settings: &Settings) -> String {
    let document = ReplicasDocument::new(reading, settings.clock.wall());
    shown(format, &document, || match format {
        Format::Prometheus => page_of(REPLICA_SERIES, |series, page| {
            series.describe(page, replica_samples(series, iter::once(reading)));
        }),
        _ => replicas_table(reading, format == Format::Wide),
    })
}

fn show_allocation(reading: &Reading<Allocation>, format: Format, settings: &Settings) -> String {
    let document = AllocationDocument::new(reading, settings.clock.wall());
    shown(format, &document, || match format {
        Format::Prometheus => page_of(ALLOCATION_SERIES, |series, page| {
            series.describe(page, allocation_samples(series, iter::once(reading)));
        }),
        _ => allocation_table(reading),
    })
}

/// The families of some series, in the Prometheus text format.
fn page_of<F>(all: &[Series<F>], describe: impl Fn(&Series<F>, &mut Exposition)) -> String {
    let mut page = Exposition::default();
    for series in all {
        describe(series, &mut page);
    }
    page.into_text()
}

fn show_models(models: Vec<ModelItem>, format: Format) -> String {
    let table = if format == Format::Table { models_table(&models) } else { String::new() };
    shown(format, &models.into_iter().collect::<ListDocument<_>>(), || table)
}
