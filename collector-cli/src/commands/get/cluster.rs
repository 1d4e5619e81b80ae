// SPDX-License-Identifier: Apache-2.0
//! `get variants` and `get pods`: what a cluster lists, with the configured variants and what is measured.

#[cfg(feature = "kubernetes")]
use collector_core::supply::{PodState, Workload};
use collector_core::text::shortened;
#[cfg(feature = "kubernetes")]
use collector_core::{BackendError, CollectError, ErrorKind, ModelRef};
#[cfg(feature = "kubernetes")]
use collector_kubernetes::{Cluster, ListedPod, ListedVariant};
#[cfg(feature = "kubernetes")]
use tokio::time::Instant;

use super::{View, printed};
use crate::args::{Format, ListArgs, PodsArgs, ReadArgs};
#[cfg(feature = "kubernetes")]
use crate::commands::answers::{Answering, PodAnswers, time_for};
use crate::commands::select::MISSING;
use crate::commands::settings::Settings;
use crate::exit::{Exit, Failure};
#[cfg(feature = "kubernetes")]
use crate::logging;
use crate::output::{
    ErrorDocument, Rows, VariantItem, VariantsDocument, nearest_first, quoted, shown,
    variants_table,
};
#[cfg(feature = "kubernetes")]
use crate::output::{PodItem, PodsDocument, pods_table};

/// Prints the variants of the configuration and of the cluster.
pub(super) async fn variants(
    settings: &Settings,
    args: &ListArgs,
    view: &View<'_>,
) -> Result<Exit, Failure> {
    let items = all_variants(settings, &args.read).await?;
    let namespace = args.namespace();
    let wanted = |item: &VariantItem| namespace.as_ref().is_none_or(|name| *name == item.namespace);
    let (items, others): (Vec<VariantItem>, Vec<VariantItem>) = items.into_iter().partition(wanted);
    if items.is_empty() {
        let others = others.iter().map(|item| item.namespace.as_str());
        let hint = "describe some in [[variants]], or by annotations of HPAs and ScaledObjects with kubernetes.enabled";
        return Err(none("variant", namespace.as_deref(), others, hint));
    }
    let document = VariantsDocument::of(&items);
    let text = view.text(Rows::of_variants(&items), |rows| {
        shown(view.form.format, &document, || {
            variants_table(rows.iter().copied(), view.is(Format::Wide), view.rows.no_headers)
        })
    })?;
    printed(&text)
}

/// There is none, although all that could have one was asked.
fn none<'a>(
    what: &str,
    namespace: Option<&str>,
    namespaces: impl Iterator<Item = &'a str>,
    hint: &str,
) -> Failure {
    let Some(namespace) = namespace else {
        let document = ErrorDocument::new(MISSING, format!("no {what} was found"));
        return Failure::missing(document.with_hint(hint));
    };
    let message = format!("no {what} in namespace {:?}", shortened(namespace));
    let near = nearest_first(namespace, namespaces);
    let document = ErrorDocument::new(MISSING, message);
    Failure::missing(if near.is_empty() {
        document.with_hint(hint)
    } else {
        document.with_hint(format!("there are some in {}", quoted(near)))
    })
}

/// All variants, in the order of namespace and name.
#[cfg_attr(
    not(feature = "kubernetes"),
    expect(clippy::unused_async, reason = "as with the feature")
)]
async fn all_variants(
    settings: &Settings,
    #[cfg_attr(not(feature = "kubernetes"), expect(unused_variables, reason = "nothing is asked"))]
    read: &ReadArgs,
) -> Result<Vec<VariantItem>, Failure> {
    let configured = settings.loaded.config.variants.iter().map(|spec| VariantItem {
        namespace: spec.namespace.to_string(),
        name: spec.name.to_string(),
        model: spec.model.to_string(),
        accelerator: spec.accelerator.as_ref().map(ToString::to_string),
        cost: spec.cost,
        source: "configuration".to_owned(),
        ..VariantItem::default()
    });
    let mut items: Vec<VariantItem> = configured.collect();
    #[cfg(feature = "kubernetes")]
    if let Some(cluster) = settings.cluster()? {
        list(&cluster, read).await?;
        for listed in cluster.listed_variants() {
            add(&mut items, &listed);
        }
    }
    items.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(items)
}

/// Lists all objects of the cluster, by default in the time that every backend has.
#[cfg(feature = "kubernetes")]
async fn list(cluster: &Cluster, read: &ReadArgs) -> Result<(), Failure> {
    let time = read.timeout.unwrap_or_else(|| time_for(cluster));
    let listed = cluster.refresh(time).await;
    listed.map_err(|error: BackendError| {
        let error = if error.kind() == ErrorKind::Timeout {
            let remedy = format!("{} --timeout gives it more time", error.remedy());
            error.with_remedy(remedy)
        } else {
            error
        };
        CollectError::from(std::sync::Arc::new(error)).into()
    })
}

/// Adds a variant of the cluster. Of two of one name the configured one counts, with the pods that the cluster has.
#[cfg(feature = "kubernetes")]
fn add(items: &mut Vec<VariantItem>, listed: &ListedVariant) {
    let variant = &listed.variant;
    let model = &variant.model;
    let same = |item: &&mut VariantItem| {
        item.namespace == model.namespace.as_str() && item.name == variant.name.as_str()
    };
    if let Some(configured) = items.iter_mut().find(same) {
        // Perhaps it is one of another model.
        if configured.model == model.model.as_str() {
            count(configured, listed);
        }
        return;
    }
    let mut item = VariantItem {
        namespace: model.namespace.to_string(),
        name: variant.name.to_string(),
        model: model.model.to_string(),
        accelerator: variant.accelerator.as_ref().map(ToString::to_string),
        cost: variant.cost,
        source: listed.described_by.to_owned(),
        ..VariantItem::default()
    };
    count(&mut item, listed);
    items.push(item);
}

#[cfg(feature = "kubernetes")]
fn count(item: &mut VariantItem, listed: &ListedVariant) {
    let Workload { wanted, pods, .. } = &listed.workload;
    let count = |state| u32::try_from(pods.iter().filter(|pod| pod.state == state).count()).ok();
    item.role = listed.role.as_deref().map(str::to_owned);
    item.target_kind = Some(listed.target_kind.to_string());
    item.target_name = Some(listed.target_name.to_string());
    item.wanted = *wanted;
    item.ready = count(PodState::Ready);
    item.starting = count(PodState::Starting);
    item.not_ready = count(PodState::NotReady);
    item.terminating = count(PodState::Terminating);
}

/// Prints the pods that serve models.
#[cfg(feature = "kubernetes")]
pub(super) async fn pods(
    settings: &Settings,
    args: &PodsArgs,
    view: &View<'_>,
) -> Result<Exit, Failure> {
    let Some(cluster) = settings.cluster()? else {
        return Err(Failure::usage("a cluster knows the pods: set kubernetes.enabled = true"));
    };
    let began = Instant::now();
    list(&cluster, &args.read).await?;
    let (namespace, model) = (args.namespace(), args.model());
    let all = cluster.listed_pods();
    let wanted = |pod: &&ListedPod| {
        namespace.as_ref().is_none_or(|name| *name == pod.model.namespace.as_str())
            && model.as_ref().is_none_or(|model| *model == pod.model.model.as_str())
    };
    let pods: Vec<&ListedPod> = all.iter().filter(wanted).collect();
    if pods.is_empty() {
        return Err(no_pod(&cluster, &all, model.as_deref(), namespace.as_deref()));
    }
    let mut models: Vec<ModelRef> = pods.iter().map(|pod| pod.model.clone()).collect();
    models.dedup();
    let backends = settings.backends_that_measure()?;
    let times = backends.iter().map(|backend| time_for(&**backend));
    let deadline = match args.read.timeout {
        Some(timeout) => began + timeout,
        None => Instant::now() + times.max().unwrap_or_default(),
    };
    let answers = PodAnswers::of(&backends, &models, &*settings.clock, deadline).await;
    let items: Vec<PodItem> = pods.iter().map(|pod| pod_item(pod, &answers, settings)).collect();
    if let Some(problem) = answers.problem() {
        logging::note(&format!("whether some pods answer is not known: {problem}"));
    }
    let document = PodsDocument::of(&items);
    let text = view.text(Rows::of_pods(&items), |rows| {
        shown(view.form.format, &document, || {
            pods_table(rows.iter().copied(), view.is(Format::Wide), view.rows.no_headers)
        })
    })?;
    printed(&text)
}

/// The same in a build that reads no cluster.
#[cfg(not(feature = "kubernetes"))]
#[expect(clippy::unused_async, reason = "as with the feature")]
pub(super) async fn pods(_: &Settings, _: &PodsArgs, _: &View<'_>) -> Result<Exit, Failure> {
    Err(Failure::usage(
        "a cluster knows the pods, and this build reads none: build it with the cargo feature kubernetes",
    ))
}

#[cfg(feature = "kubernetes")]
fn no_pod(
    cluster: &Cluster,
    all: &[ListedPod],
    model: Option<&str>,
    namespace: Option<&str>,
) -> Failure {
    let hint = "`collector get variants` shows what objects of the cluster describe, and `collector check` what is wrong with them";
    let Some(model) = model else {
        return none(
            "pod of a model",
            namespace,
            all.iter().map(|pod| pod.model.namespace.as_str()),
            hint,
        );
    };
    let variants = cluster.listed_variants();
    let known = variants.iter().any(|listed| {
        listed.variant.model.model.as_str() == model
            && namespace.is_none_or(|name| listed.variant.model.namespace.as_str() == name)
    });
    let place =
        namespace.map(|name| format!(" in namespace {:?}", shortened(name))).unwrap_or_default();
    let model_shown = shortened(model);
    let message = if known {
        format!("model {model_shown:?}{place} has no pod")
    } else {
        format!("no object of the cluster describes model {model_shown:?}{place}")
    };
    let document = ErrorDocument::new(MISSING, message).with_hint(hint);
    let names = variants.iter().map(|listed| listed.variant.model.model.as_str());
    let near = nearest_first(model, names).into_iter().filter(|near| *near != model);
    Failure::missing(if known {
        document
    } else {
        document.with_suggestions(near.map(str::to_owned).collect())
    })
}

#[cfg(feature = "kubernetes")]
fn pod_item(pod: &ListedPod, answers: &PodAnswers, settings: &Settings) -> PodItem {
    let age = |at: collector_core::Tick| Some(at.age(settings.clock.now()).as_secs_f64());
    let (answers, answer_age_seconds) = match answers.about(&pod.model, &pod.name) {
        Answering::Yes(seen) if seen.is_asleep => (Some("asleep"), age(seen.at)),
        Answering::Yes(seen) => (Some("yes"), age(seen.at)),
        Answering::No => (Some("no"), None),
        Answering::Unknown => (None, None),
    };
    let since = pod.changed.and_then(|changed| jiff::Timestamp::try_from(changed).ok());
    PodItem {
        namespace: pod.model.namespace.to_string(),
        pod_name: pod.name.to_string(),
        model: pod.model.model.to_string(),
        variant_name: pod.variant.as_ref().map(ToString::to_string),
        state: pod.state.as_str(),
        since: since.map(|since| since.to_string()),
        answers,
        answer_age_seconds,
    }
}
