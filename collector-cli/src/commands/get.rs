// SPDX-License-Identifier: Apache-2.0
//! `collector get`: one reading or several, the models known, or what a cluster has.

mod cluster;
mod variants;

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use collector_config::Loader;
use collector_core::text::shortened;
use collector_core::{
    Allocation, BackendError, CollectError, ErrorKind, MetricsCollector as _, ModelRef, Namespace,
    Operation, Reading, Replicas, TrackedModel, VariantName, duration,
};
use collector_engine::CachingCollector;
use tokio::time::timeout;

use self::variants::{variant_on, variants_of, without_variants};
use super::select::{MISSING, listed, namespaces};
use super::settings::{Settings, Verbosity, format, url_of};
use super::watch;
use crate::args::{
    AllocationArgs, Form, Format, GetCommand, GlobalArgs, ListArgs, ReplicasArgs, RowArgs,
    Selection,
};
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::output::{
    ALLOCATION_SERIES, AllocationDocument, ListDocument, ModelItem, REPLICA_SERIES,
    ReplicasDocument, Rows, SUPPLY_SERIES, allocation_items, allocation_samples, allocation_table,
    allocations_table, list_table, model_items, models_table, print, printable, replica_samples,
    replicas_item, replicas_table, shown, supply_samples,
};

/// Forms that all of these commands have.
const DOCUMENTS: [Format; 3] = [Format::Table, Format::Json, Format::Yaml];
const ROWS: [Format; 3] = [Format::Name, Format::Csv, Format::CustomColumns];

pub(super) fn run(
    base: &Loader,
    global: &GlobalArgs,
    command: &GetCommand,
) -> Result<Exit, Failure> {
    if let GetCommand::Replicas(ReplicasArgs { watch: true, select, read, .. }) = command {
        return watch::run(base, global, select, read.window, read.timeout);
    }
    let (rows, read, more): (_, _, &[Format]) = match command {
        GetCommand::Replicas(args) => (&args.rows, &args.read, &[Format::Wide, Format::Prometheus]),
        GetCommand::Allocation(args) => (&args.rows, &args.read, &[Format::Prometheus]),
        GetCommand::Models(args) => (&args.rows, &args.read, &[]),
        GetCommand::Variants(args) => (&args.rows, &args.read, &[Format::Wide]),
        GetCommand::Pods(args) => (&args.rows, &args.read, &[Format::Wide]),
    };
    let view = View::new(global, rows, more)?;
    let settings = Settings::load_with_window(base, global, Verbosity::OneShot, read.window)?;
    settings.warn();
    // What a cluster lists has its own end.
    let is_of_cluster = matches!(command, GetCommand::Variants(_) | GetCommand::Pods(_));
    let limit = read.timeout.filter(|_| !is_of_cluster).unwrap_or(Duration::MAX);
    let work = async {
        match command {
            GetCommand::Replicas(args) => replicas(&settings, args, &view).await,
            GetCommand::Allocation(args) => allocations(&settings, args, &view).await,
            GetCommand::Models(args) => models(&settings, args, &view).await,
            GetCommand::Variants(args) => cluster::variants(&settings, args, &view).await,
            GetCommand::Pods(args) => cluster::pods(&settings, args, &view).await,
        }
    };
    super::block_on(async {
        timeout(limit, work).await.unwrap_or_else(|_| Err(late(&settings, limit)))
    })
}

/// Nothing was printed within `--timeout`.
fn late(settings: &Settings, limit: Duration) -> Failure {
    let backends = &settings.loaded.config.backend;
    let urls = backends.iter().filter_map(|backend| url_of(&settings.loaded, backend));
    let mut place = urls.collect::<Vec<_>>().join(", ");
    if place.is_empty() {
        "the server".clone_into(&mut place);
    }
    let error = BackendError::new(
        ErrorKind::Timeout,
        backends.join(", ").as_str().into(),
        Operation::Fetch,
        place,
    )
    .with_detail(format!("no answer within {}", duration::format(limit)))
    .with_remedy("--timeout gives it more time");
    CollectError::from(Arc::new(error)).into()
}

/// How a result is printed.
struct View<'a> {
    form: Form,
    rows: &'a RowArgs,
}

impl<'a> View<'a> {
    /// `more` are forms besides those that all of these commands have.
    fn new(global: &GlobalArgs, rows: &'a RowArgs, more: &[Format]) -> Result<Self, Failure> {
        let format = format(global, &[&DOCUMENTS[..], more, &ROWS].concat())?;
        let is_document = [Format::Json, Format::Yaml, Format::Prometheus].contains(&format);
        if is_document && rows.sort_by.is_some() {
            return Err(Failure::usage(
                "--sort-by orders rows, and this form of --output has its own order: use table, wide, name, csv \
                 or custom-columns",
            ));
        }
        let columns = global.output.as_ref().map(|form| form.columns.clone());
        Ok(Self { form: Form { format, columns: columns.unwrap_or_default() }, rows })
    }

    /// The text of some rows: in the forms of all rows, else what `other` makes of them in their order.
    fn text<T>(
        &self,
        mut rows: Rows<T>,
        other: impl FnOnce(&Rows<T>) -> String,
    ) -> Result<String, Failure> {
        if let Some(field) = &self.rows.sort_by {
            rows.sort_by(field)?;
        }
        match self.form.format {
            Format::Name | Format::Csv | Format::CustomColumns => {
                rows.shown(&self.form, self.rows.no_headers)
            }
            _ => Ok(other(&rows)),
        }
    }

    fn is(&self, format: Format) -> bool {
        self.form.format == format
    }
}

async fn replicas(
    settings: &Settings,
    args: &ReplicasArgs,
    view: &View<'_>,
) -> Result<Exit, Failure> {
    let selection = args.select.selection()?;
    let collector = settings.collector_at_once()?;
    if let Selection::One(model) = selection {
        return one(settings, &collector, &model, view).await;
    }
    let wall = || settings.clock.wall();
    let no_headers = view.rows.no_headers;
    let models = listed(settings, &*collector, &selection).await?;
    let readings = read_all(&collector, models).await;
    let good = || readings.iter().filter_map(|tracked| tracked.replicas.as_ref().ok());
    let document: ListDocument<_> =
        readings.iter().map(|tracked| replicas_item(tracked, wall())).collect();
    let text = view.text(Rows::of_replicas(good(), wall()), |rows| {
        shown(view.form.format, &document, || match view.form.format {
            Format::Prometheus => replica_page(&good()),
            _ => list_table(rows.iter().copied(), view.is(Format::Wide), no_headers),
        })
    })?;
    print(&text)?;
    // Rows of no replica are none, and silence about a model could mean anything.
    if ![Format::Json, Format::Yaml].contains(&view.form.format) {
        for reading in good().filter(|reading| reading.value().replicas.is_empty()) {
            logging::note(&format!(
                "{}: no live replicas",
                printable(&reading.value().model.to_string())
            ));
        }
    }
    Ok(report(readings.iter().map(|tracked| tracked.replicas.as_ref().err())))
}

async fn one(
    settings: &Settings,
    collector: &CachingCollector,
    model: &ModelRef,
    view: &View<'_>,
) -> Result<Exit, Failure> {
    let (wall, no_headers) = (settings.clock.wall(), view.rows.no_headers);
    settings.before_a_read(Some(&model.namespace)).await?;
    let reading = &collector.collect_replica_metrics(model).await?;
    let rows = Rows::of_replicas(iter::once(reading), wall);
    let document = ReplicasDocument::new(reading, wall);
    let text = view.text(rows, |rows| {
        shown(view.form.format, &document, || {
            if view.is(Format::Prometheus) {
                return replica_page(&iter::once(reading));
            }
            let replicas: Vec<_> = rows.iter().map(|(_, replica)| *replica).collect();
            replicas_table(reading, replicas.into_iter(), view.is(Format::Wide), no_headers)
        })
    })?;
    printed(&text)
}

/// Prints the replicas of one model, as these layers configure it.
#[cfg(feature = "record")]
pub(super) fn replicas_of(
    layers: Loader,
    global: &GlobalArgs,
    model: &ModelRef,
) -> Result<Exit, Failure> {
    let rows = RowArgs::default();
    let view = View::new(global, &rows, &[Format::Wide, Format::Prometheus])?;
    let settings = Settings::of(layers, Verbosity::OneShot)?;
    settings.warn();
    super::block_on(async {
        let collector = settings.collector_at_once()?;
        one(&settings, &collector, model, &view).await
    })
}

/// The replicas of all these models.
pub(super) async fn read_all(
    collector: &CachingCollector,
    models: Vec<ModelRef>,
) -> Vec<TrackedModel> {
    let replicas = collector.collect_many(&models).await;
    let read = models.into_iter().zip(replicas);
    read.map(|(model, replicas)| TrackedModel { model, replicas, allocations: Vec::new() })
        .collect()
}

/// Reports every error, and returns the exit code of the first.
fn report<'a>(errors: impl Iterator<Item = Option<&'a CollectError>>) -> Exit {
    let mut exit = Exit::Success;
    for error in errors.flatten() {
        let failure = Failure::from(error.clone());
        for problem in failure.problems() {
            logging::report_error(&problem, &failure.advice());
        }
        if exit == Exit::Success {
            exit = failure.exit();
        }
    }
    exit
}

fn printed(text: &str) -> Result<Exit, Failure> {
    print(text)?;
    Ok(Exit::Success)
}

async fn allocations(
    settings: &Settings,
    args: &AllocationArgs,
    view: &View<'_>,
) -> Result<Exit, Failure> {
    let selection = args.select.selection()?;
    let collector = settings.collector_at_once()?;
    let models = match &selection {
        Selection::One(model) => {
            let variant = match (&args.which.variant, &args.which.accelerator) {
                (Some(name), _) => Some(VariantName::new(name.as_str())),
                (None, Some(accelerator)) => Some(variant_on(settings, model, accelerator)?),
                (None, None) => None,
            };
            settings.before_a_read(Some(&model.namespace)).await?;
            if let Some(variant) = variant {
                let reading = collector.collect_allocation(model, &variant).await?;
                return show_allocation(&reading, settings, view);
            }
            if variants_of(settings, model).is_empty() {
                // Whether the model exists at all comes first.
                collector.collect_replica_metrics(model).await?;
                return Err(without_variants(model));
            }
            vec![model.clone()]
        }
        Selection::Listed { .. }
            if args.which.variant.is_some() || args.which.accelerator.is_some() =>
        {
            return Err(Failure::usage("--variant and --accelerator are of one model: name it"));
        }
        Selection::Listed { .. } => listed(settings, &*collector, &selection).await?,
    };
    let mut readings = read_all(&collector, models).await;
    for tracked in &mut readings {
        for variant in variants_of(settings, &tracked.model) {
            let reading = collector.collect_allocation(&tracked.model, &variant).await;
            tracked.allocations.push((variant, reading));
        }
        if tracked.allocations.is_empty() {
            logging::note(&format!(
                "{}: no configured variant",
                printable(&tracked.model.to_string())
            ));
        }
    }
    let all =
        || readings.iter().flat_map(|tracked| &tracked.allocations).map(|(_, reading)| reading);
    let good = || all().filter_map(|reading| reading.as_ref().ok());
    let wall = settings.clock.wall();
    let document: ListDocument<_> =
        readings.iter().flat_map(|tracked| allocation_items(tracked, wall)).collect();
    let text = view.text(Rows::of_allocations(good(), wall), |rows| {
        shown(view.form.format, &document, || match view.form.format {
            Format::Prometheus => allocation_page(&good()),
            _ => allocations_table(rows.iter().copied(), view.rows.no_headers),
        })
    })?;
    print(&text)?;
    Ok(report(all().map(|reading| reading.as_ref().err())))
}

fn show_allocation(
    reading: &Reading<Allocation>,
    settings: &Settings,
    view: &View<'_>,
) -> Result<Exit, Failure> {
    let wall = settings.clock.wall();
    let document = AllocationDocument::new(reading, wall);
    let rows = Rows::of_allocations(iter::once(reading), wall);
    printed(&view.text(rows, |_| {
        shown(view.form.format, &document, || match view.form.format {
            Format::Prometheus => allocation_page(&iter::once(reading)),
            _ => allocation_table(reading),
        })
    })?)
}

async fn models(settings: &Settings, args: &ListArgs, view: &View<'_>) -> Result<Exit, Failure> {
    let namespace = args.namespace().as_deref().map(Namespace::from);
    let collector = settings.collector_at_once()?;
    settings.before_a_read(namespace.as_ref()).await?;
    let mut known = collector.list_models().await?;
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
    let models: Vec<ModelItem> = model_items(known, |_| false).collect();
    let document: ListDocument<_> = models.iter().collect();
    printed(&view.text(Rows::of_models(&models), |rows| {
        shown(view.form.format, &document, || {
            models_table(rows.iter().copied(), view.rows.no_headers)
        })
    })?)
}

/// The families of replicas, in the Prometheus text format, and where a cluster is read those of its pods.
fn replica_page<'a>(readings: &(impl Iterator<Item = &'a Reading<Replicas>> + Clone)) -> String {
    let mut page: String = REPLICA_SERIES
        .iter()
        .map(|series| series.text(replica_samples(series, readings.clone())))
        .collect();
    if readings.clone().any(|reading| reading.value().supply.is_some()) {
        page.extend(
            SUPPLY_SERIES
                .iter()
                .map(|series| series.text(supply_samples(series, readings.clone()))),
        );
    }
    page
}

fn allocation_page<'a>(
    readings: &(impl Iterator<Item = &'a Reading<Allocation>> + Clone),
) -> String {
    let families = ALLOCATION_SERIES.iter();
    families.map(|series| series.text(allocation_samples(series, readings.clone()))).collect()
}
