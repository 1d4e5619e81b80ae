// SPDX-License-Identifier: Apache-2.0
//! What the endpoint pickers of a namespace report about one of its models.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use collector_core::{EndpointPicker, EndpointPickerLoad, ModelId, PodName, Tick, sanitize};

use super::{EndpointPickerEndpoint, EndpointPickerMetrics, EndpointPickerModel};

/// One endpoint picker, or one replica of it.
pub struct Scraped<'a> {
    /// Where it routed requests when it last responded.
    pub routes: &'a Routes,
    /// Its metrics page, and when that was sampled.
    pub page: Result<(&'a EndpointPickerMetrics, Tick), Silent>,
}

/// An endpoint picker that does not respond.
#[derive(Clone, Debug)]
pub struct Silent {
    /// When it last responded.
    pub since: Option<Tick>,
    /// Why it does not.
    pub reason: Arc<str>,
    /// It was found just now, and nobody has asked it yet.
    pub is_new: bool,
}

/// Where an endpoint picker routes requests.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Routes {
    /// Its InferencePool.
    pool: Option<Arc<str>>,
    /// The models of the requests that it has received.
    models: HashSet<ModelId>,
    /// The pods of its pool.
    pods: HashSet<PodName>,
}

impl Routes {
    /// Returns the routes that a page shows.
    pub fn of(page: &EndpointPickerMetrics) -> Self {
        let named = page.models.iter().flat_map(|row| row.model.iter().chain(&row.target));
        let pods = page.pools.iter().flat_map(|pool| &pool.per_pod_queue);
        Self {
            pool: page.pools.iter().find_map(|pool| pool.name.clone()),
            models: named.cloned().collect(),
            pods: pods.map(|(endpoint, _)| pod_of(endpoint.as_str()).into()).collect(),
        }
    }

    /// Sets its InferencePool, if that is known otherwise than by its page.
    #[must_use]
    pub fn in_pool(self, pool: Option<Arc<str>>) -> Self {
        Self { pool: pool.or(self.pool), ..self }
    }

    /// Whether nothing is known of the requests that it routes: it never responded, or had none.
    pub fn are_unknown(&self) -> bool {
        self.models.is_empty() && self.pods.is_empty()
    }

    /// Returns its InferencePool.
    pub fn pool(&self) -> Option<&Arc<str>> {
        self.pool.as_ref()
    }

    /// Whether it has received requests for the model.
    pub fn names(&self, model: &ModelId) -> bool {
        self.models.contains(model)
    }

    /// Whether it routes requests to a model with these live pods; `None` if that cannot be told.
    fn lead_to(&self, model: &ModelId, pods: &HashSet<&str>) -> Option<bool> {
        if self.names(model) || self.pods.iter().any(|pod| pods.contains(pod.as_str())) {
            Some(true)
        } else if self.pods.is_empty() || pods.is_empty() {
            None
        } else {
            Some(false)
        }
    }
}

/// What all endpoint pickers of a namespace together report about a model with these live pods.
///
/// An endpoint picker belongs to the model if it has received requests for it or routes to one of its pods. One of which
/// neither can be told, because it has just started or the model has no pod, belongs to it if it is the only one.
pub fn of_model(model: &ModelId, pods: &[PodName], pickers: &[Scraped<'_>]) -> EndpointPicker {
    let pods: HashSet<&str> = pods.iter().map(|pod| pod_of(pod.as_str())).collect();
    let leads = |picker: &Scraped<'_>| picker.routes.lead_to(model, &pods);
    let own: Vec<_> = pickers.iter().filter(|picker| leads(picker) == Some(true)).collect();
    // One that is new has nothing to tell for a moment: as if it had not been found yet.
    let counts = |picker: &&Scraped<'_>| own.is_empty() || !picker.is_new();
    let pickers: Vec<_> = pickers.iter().filter(counts).collect();
    let pools: HashSet<&Option<Arc<str>>> =
        pickers.iter().map(|picker| &picker.routes.pool).collect();
    let is_only = pickers.len() == 1 || (pools.len() == 1 && !pools.contains(&None));
    let belongs = |picker: &&Scraped<'_>| leads(picker).unwrap_or(is_only);
    let known: Vec<_> = pickers.iter().copied().filter(belongs).collect();
    // Without another one that is known to be the model's, any may be it; otherwise a replica of that one, and one that never
    // responded and may be of any pool.
    let is_replica = |picker: &Scraped<'_>| {
        let pool = &picker.routes.pool;
        pool.is_some() && known.iter().any(|known| known.routes.pool == *pool)
    };
    let may_belong = |picker: &&Scraped<'_>| {
        let may_be = known.is_empty() || is_replica(picker) || picker.may_be_any();
        leads(picker).is_none() && may_be
    };
    let others = pickers.iter().copied().filter(may_belong);
    let mut suspects = known.iter().copied().chain(others);
    if let Some(silent) = suspects.find_map(|picker| picker.page.as_ref().err()) {
        return EndpointPicker::silent(silent.since, Arc::clone(&silent.reason));
    }
    let pages: Vec<_> = known.iter().filter_map(|picker| picker.page.as_ref().ok()).collect();
    match pages.iter().map(|(_, sampled_at)| *sampled_at).min() {
        Some(oldest) => {
            let pages: Vec<_> = pages.iter().map(|(page, _)| *page).collect();
            EndpointPicker::Responding(Arc::new(load(model, &pods, &pages, oldest)))
        }
        None => EndpointPicker::None,
    }
}

impl Scraped<'_> {
    fn is_new(&self) -> bool {
        self.page.as_ref().is_err_and(|silent| silent.is_new)
    }

    /// Whether it may be the endpoint picker of any pool: nothing was ever heard of it.
    fn may_be_any(&self) -> bool {
        self.routes.pool.is_none() && self.page.as_ref().is_err_and(|silent| silent.since.is_none())
    }
}

fn load(
    model: &ModelId,
    pods: &HashSet<&str>,
    pages: &[&EndpointPickerMetrics],
    sampled_at: Tick,
) -> EndpointPickerLoad {
    let mut load = EndpointPickerLoad::new(sampled_at);
    load.flow_control = pages.iter().any(|page| page.has_flow_control());
    if load.flow_control {
        load.queued_requests = of_requests(model, pods, pages, "flow_control_queue_size");
        load.queued_bytes = of_requests(model, pods, pages, "flow_control_queue_bytes");
    }
    load.running_requests = of_requests(model, pods, pages, "running");
    load.in_flight_requests = in_flight(pods, pages, "in_flight_requests");
    load.in_flight_tokens = in_flight(pods, pages, "in_flight_tokens");
    let pool = |key: &'static str| {
        let pools = pages.iter().flat_map(|page| &page.pools);
        pools.filter_map(move |pool| pool.numbers.get(key).copied())
    };
    // An empty pool or one without recent metrics is full, so the greatest of several replicas is the newest at worst.
    load.saturation.effective = pool("saturation_effective").reduce(f64::max);
    load.saturation.prefill = pool("saturation_prefill").reduce(f64::max);
    load.saturation.decode = pool("saturation_decode").reduce(f64::max);
    load.stale_endpoints = pool("stale_endpoints").reduce(f64::max).and_then(count);
    load.rejected_requests = pool("rejected").reduce(|one, other| one + other).and_then(count);
    load
}

/// Sums a number of the model's requests over the pages. A series that an endpoint picker lacks is 0: it creates one with
/// the first request, and deletes one that is idle.
fn of_requests(
    model: &ModelId,
    pods: &HashSet<&str>,
    pages: &[&EndpointPickerMetrics],
    key: &'static str,
) -> Option<u64> {
    let (mut sum, mut others) = (0.0, 0.0);
    for page in pages {
        if page.unknown.contains(key) {
            return None;
        }
        // Where all pods of the pool are the model's, so are all requests: for its adapters and its other names.
        let mut endpoints = page.pools.iter().flat_map(|pool| &pool.per_pod_queue).peekable();
        let all = endpoints.peek().is_some()
            && endpoints.all(|(endpoint, _)| pods.contains(pod_of(endpoint.as_str())));
        let of = |is_own: bool| {
            let rows = page.models.iter().filter(move |row| (all || row.is_for(model)) == is_own);
            rows.filter_map(|row| row.numbers.get(key)).sum::<f64>()
        };
        sum += of(true);
        others += of(false);
    }
    // Where the pool has no pod, requests for other names may be for an adapter of the model.
    let mut pools = pages.iter().flat_map(|page| &page.pools);
    let is_empty = pods.is_empty() && pools.all(|pool| pool.per_pod_queue.is_empty());
    if sum == 0.0 && others > 0.0 && is_empty {
        return None;
    }
    count(sum)
}

/// Sums a number over the live pods. Each producer counts the same requests, so the greatest sum of one counts.
fn in_flight(
    pods: &HashSet<&str>,
    pages: &[&EndpointPickerMetrics],
    key: &'static str,
) -> Option<u64> {
    let mut total = None;
    for page in pages {
        if page.unknown.contains(key) {
            return None;
        }
        // Names of pods that are not those of the endpoints, such as addresses, show nothing.
        let is_live = |endpoint: &EndpointPickerEndpoint| pods.contains(pod_of(&endpoint.name));
        if !page.endpoints.is_empty() && !page.endpoints.iter().any(is_live) {
            return None;
        }
        let mut producers: HashMap<&Option<Arc<str>>, f64> = HashMap::new();
        for endpoint in &page.endpoints {
            let Some(value) = endpoint.numbers.get(key) else { continue };
            let sum = producers.entry(&endpoint.producer).or_default();
            if pods.contains(pod_of(&endpoint.name)) {
                *sum += value;
            }
        }
        if let Some(greatest) = producers.into_values().reduce(f64::max) {
            *total.get_or_insert(0.0) += greatest;
        }
    }
    total.and_then(count)
}

impl EndpointPickerMetrics {
    /// Whether flow control is on. Only then is there a saturation or a queue.
    fn has_flow_control(&self) -> bool {
        let keys = ["saturation_effective", "flow_control_queue_size"];
        self.matched.iter().any(|(key, _)| keys.contains(key))
    }
}

impl EndpointPickerModel {
    /// Whether these requests were sent to the model, or asked for it where they were sent nowhere yet.
    fn is_for(&self, model: &ModelId) -> bool {
        self.target.as_ref().or(self.model.as_ref()) == Some(model)
    }
}

/// Returns the pod of an endpoint: `m-0` of `m-0-rank-1`.
fn pod_of(endpoint: &str) -> &str {
    match endpoint.rsplit_once("-rank-") {
        Some((pod, rank)) if !rank.is_empty() && rank.bytes().all(|b| b.is_ascii_digit()) => pod,
        _ => endpoint,
    }
}

fn count(value: f64) -> Option<u64> {
    sanitize::count(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint_picker::{Owner, Rows, Series};

    /// The page of a picker of this pool that holds so many requests for the model `m`; 0: it had none.
    fn page(pool: &str, held: f64) -> EndpointPickerMetrics {
        let all = Series::all();
        let index = |key| all.iter().position(|series| series.key == key).unwrap();
        let mut rows = Rows::default();
        rows.add(index("saturation_effective"), Owner::Pool, [Some(pool.into()), None], 0.5);
        if held > 0.0 {
            let row = [Some("m".into()), Some("m".into())];
            rows.add(index("flow_control_queue_size"), Owner::Model, row, held);
        }
        rows.metrics(&all, |_| false)
    }

    fn silent(is_new: bool) -> Silent {
        Silent { since: None, reason: "refused".into(), is_new }
    }

    /// The requests that are held for `m`; `None`: that is not known.
    fn held(pages: &[EndpointPickerMetrics], others: &[(Option<&str>, Silent)]) -> Option<u64> {
        let routes: Vec<Routes> = pages.iter().map(Routes::of).collect();
        let in_pool = |pool: Option<&str>| Routes::default().in_pool(pool.map(Into::into));
        let of_others: Vec<Routes> = others.iter().map(|(pool, _)| in_pool(*pool)).collect();
        let here = pages.iter().zip(&routes);
        let here = here.map(|(page, routes)| Scraped { routes, page: Ok((page, Tick::MIN)) });
        let others = others.iter().zip(&of_others);
        let others = others.map(|((_, why), routes)| Scraped { routes, page: Err(why.clone()) });
        of_model(&"m".into(), &[], &here.chain(others).collect::<Vec<_>>()).queued_requests()
    }

    #[test]
    fn a_replica_that_never_responded_makes_the_sum_unknown() {
        let own = [page("p", 3.0)];
        assert_eq!(held(&own, &[]), Some(3));
        assert_eq!(held(&own, &[(Some("p"), silent(false))]), None);
        assert_eq!(held(&own, &[(None, silent(false))]), None, "of any pool");
        assert_eq!(held(&own, &[(Some("q"), silent(false))]), Some(3), "of another pool");
    }

    #[test]
    fn a_replica_that_was_just_found_counts_once_it_was_asked() {
        let own = [page("p", 3.0)];
        for pool in [Some("p"), None] {
            assert_eq!(held(&own, &[(pool, silent(true))]), Some(3));
            assert_eq!(held(&[], &[(pool, silent(true))]), None, "it is the only one");
        }
    }

    #[test]
    fn among_several_pools_a_replica_belongs_to_its_own() {
        let pages = [page("p", 3.0), page("p", 0.0), page("q", 0.0)];
        assert_eq!(held(&pages, &[]), Some(3));
        assert_eq!(held(&pages, &[(Some("p"), silent(false))]), None);
        assert_eq!(held(&pages, &[(Some("q"), silent(false))]), Some(3));
        // A picker of another pool says nothing of a model that nobody has named.
        assert_eq!(held(&[page("q", 0.0)], &[(Some("p"), silent(true))]), None);
    }
}
