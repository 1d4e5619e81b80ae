//! `collector get`: one reading, or the models known.

use std::collections::HashSet;

use collector_core::{
    AcceleratorName, Allocation, CollectError, ModelRef, Namespace, Reading, Replicas, VariantName,
};
use serde::Serialize;

use super::settings::{Settings, Verbosity, format};
use crate::args::{AllocationArgs, Format, GetCommand, GlobalArgs, ModelsArgs};
use crate::exit::{Exit, Failure};
use crate::output::{
    ALLOCATION_FAMILIES, AllocationDocument, Exposition, ListDocument, ModelItem, REPLICA_FAMILIES,
    ReplicasDocument, allocation_table, model_items, models_table, print, replicas_table, to_json,
    to_yaml,
};

pub(super) fn run(global: &GlobalArgs, command: &GetCommand) -> Result<Exit, Failure> {
    let format = match command {
        GetCommand::Models(_) => format(global, &[Format::Table, Format::Json, Format::Yaml])?,
        GetCommand::Replicas(_) | GetCommand::Allocation(_) => format(
            global,
            &[Format::Table, Format::Wide, Format::Json, Format::Yaml, Format::Prometheus],
        )?,
    };
    let settings = Settings::load(global, Verbosity::OneShot)?;
    settings.warn();
    let text = match command {
        GetCommand::Replicas(args) => {
            let reading = replicas(&settings, &args.model())?;
            show_replicas(&reading, format, &settings)
        }
        GetCommand::Allocation(args) => {
            let reading = allocation(&settings, args)?;
            show_allocation(&reading, format, &settings)
        }
        GetCommand::Models(args) => show_models(models(&settings, args)?, format),
    };
    print(&text)?;
    Ok(Exit::Success)
}

fn replicas(settings: &Settings, model: &ModelRef) -> Result<Reading<Replicas>, Failure> {
    super::block_on(async {
        let collector = settings.collector()?;
        Ok(collector.collect_replica_metrics(model).await?)
    })
}

fn allocation(settings: &Settings, args: &AllocationArgs) -> Result<Reading<Allocation>, Failure> {
    let model = args.model.model();
    let variant = match (&args.which.variant, &args.which.accelerator) {
        (Some(name), _) => VariantName::new(name.as_str()),
        (None, Some(accelerator)) => {
            variant_on(settings, &model, &AcceleratorName::new(accelerator.as_str()))?
        }
        (None, None) => unreachable!("the command line requires one of them"),
    };
    super::block_on(async {
        let collector = settings.collector()?;
        Ok(collector.collect_allocation(&model, &variant).await?)
    })
}

/// The one variant of the model on this accelerator.
fn variant_on(
    settings: &Settings,
    model: &ModelRef,
    accelerator: &AcceleratorName,
) -> Result<VariantName, Failure> {
    let of_model = settings
        .loaded
        .config
        .variants
        .iter()
        .filter(|variant| variant.model == model.model && variant.namespace == model.namespace);
    let fitting: Vec<&VariantName> = of_model
        .clone()
        .filter(|variant| variant.accelerator.as_ref() == Some(accelerator))
        .map(|variant| &variant.name)
        .collect();
    match *fitting {
        [one] => Ok(one.clone()),
        [] => Err(CollectError::UnknownVariant {
            model: model.clone(),
            variant: VariantName::new(accelerator.as_str()),
            known: of_model.map(|variant| variant.name.clone()).collect(),
        }
        .into()),
        _ => Err(Failure::usage(format!(
            "--accelerator {accelerator:?}: {} variants of {model} have it: {fitting:?}; use \
             --variant",
            fitting.len()
        ))),
    }
}

fn models(settings: &Settings, args: &ModelsArgs) -> Result<Vec<ModelItem>, Failure> {
    let mut known = super::block_on(async {
        let collector = settings.collector()?;
        Ok(collector.list_models().await?)
    })?;
    if let Some(namespace) = args.namespace.as_deref().map(Namespace::from) {
        known.retain(|known| known.model.namespace == namespace);
    }
    if known.is_empty() {
        tracing::warn!("The backend knows no model here: is it scraping the model servers?");
    }
    // Nothing is tracked by a command that leaves at once.
    Ok(model_items(known, &HashSet::new()).collect())
}

fn show_replicas(reading: &Reading<Replicas>, format: Format, settings: &Settings) -> String {
    match format {
        Format::Table => replicas_table(reading, false),
        Format::Wide => replicas_table(reading, true),
        Format::Prometheus => {
            let mut page = Exposition::default();
            for family in REPLICA_FAMILIES {
                family.describe(&mut page, std::iter::once(reading));
            }
            page.into_text()
        }
        Format::Json | Format::Yaml => {
            document(&ReplicasDocument::new(reading, settings.clock.wall()), format)
        }
    }
}

fn show_allocation(reading: &Reading<Allocation>, format: Format, settings: &Settings) -> String {
    match format {
        Format::Table | Format::Wide => allocation_table(reading),
        Format::Prometheus => {
            let mut page = Exposition::default();
            for family in ALLOCATION_FAMILIES {
                family.describe(&mut page, std::iter::once(reading));
            }
            page.into_text()
        }
        Format::Json | Format::Yaml => {
            document(&AllocationDocument::new(reading, settings.clock.wall()), format)
        }
    }
}

fn show_models(models: Vec<ModelItem>, format: Format) -> String {
    if format == Format::Table {
        models_table(&models)
    } else {
        document(&models.into_iter().collect::<ListDocument<_>>(), format)
    }
}

fn document(document: &impl Serialize, format: Format) -> String {
    if format == Format::Yaml { to_yaml(document) } else { to_json(document) + "\n" }
}
