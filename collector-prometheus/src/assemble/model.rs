// SPDX-License-Identifier: Apache-2.0
//! What the rows of a fetch say of one model.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use collector_core::{ErrorKind, FieldReasons, PodName, Tick, TraceRow};
use foldhash::fast::RandomState;

use crate::failure::Failure;
use crate::labels::KEY_SEPARATOR;
use crate::memory::RankConfig;
use crate::plan::{LeafId, QueryKind};
use crate::servers::Servers;
use crate::trace::TracedQuery;

/// Sums by engine and leaf. NaN: there was a value that cannot be true, so a sum without it would be too
/// small.
pub(crate) type Sums = Vec<(u8, LeafId, f64)>;

/// What is known about one model.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is set independently, in any order")]
pub(crate) struct Model {
    pub(crate) servers: Servers,
    /// Rates of the model, for all pods together.
    pub(crate) rates: Sums,
    /// Rates of each replica by key, including dead ones.
    pub(crate) replica_rates: HashMap<PodName, Vec<(Box<str>, Sums)>, RandomState>,
    /// Whether servers behind a frontend are live: then the frontend, which counts the same requests, does not count.
    pub(crate) has_servers_behind: bool,
    /// Whether one rank has several servers or copies, including dead ones.
    pub(crate) several_of_a_rank: bool,
    /// Whether any query returned a row of it.
    pub(crate) seen: bool,
    /// Servers and copies that terminated without a stale marker: their replicas and keys.
    pub(crate) left: HashMap<PodName, BTreeSet<Box<str>>, RandomState>,
    /// Whether it has series without a pod.
    pub(crate) unnamed: bool,
    /// Whether rows may be absent from an answer.
    pub(crate) incomplete: bool,
    /// The server's warning that says so.
    pub(crate) warning: Option<Arc<str>>,
    /// Whether each kind of query about it was answered, for any engine.
    pub(super) answered: [bool; QueryKind::ALL.len()],
    pub(crate) failed: FieldReasons,
    /// The first failure of a query about it.
    pub(crate) failure: Option<Failure>,
    /// The values of each cluster label.
    pub(crate) clusters: Vec<(Box<str>, BTreeSet<Box<str>>)>,
    /// Results of the presence query: the series that shows live pods, and whether there were any within the
    /// window.
    pub(crate) alive_by: Option<Box<str>>,
    pub(crate) lately: bool,
    /// When it was last seen, if it is missing.
    pub(crate) last_seen: Option<Tick>,
    /// Ranks of live replicas that have counters but no gauges, each with whether it never worked.
    pub(crate) ranks_without_gauges: HashMap<PodName, Vec<(Box<str>, bool)>, RandomState>,
    /// Capacities by replica.
    pub(crate) config: HashMap<PodName, Vec<RankConfig>, RandomState>,
    /// How its values came about, if the fetch is traced.
    pub(crate) trace: Vec<TraceRow>,
    /// The query for its cache sizes, if the fetch is traced.
    pub(crate) traced_config: Option<TracedQuery>,
}

impl Model {
    /// Returns whether a server with this key has terminated; with an empty key, any server of the replica.
    pub(super) fn has_left(&self, replica: &str, key: &str) -> bool {
        self.left.get(replica).is_some_and(|keys| key.is_empty() || keys.contains(key))
    }

    /// Returns whether a rank without gauges never worked; a new one starts as `idle`.
    pub(super) fn rank_without_gauges(
        &mut self,
        replica: &str,
        rank: &str,
        idle: bool,
    ) -> &mut bool {
        let ranks = self.ranks_without_gauges.entry(replica.into()).or_default();
        let known = ranks.iter().position(|(known, _)| **known == *rank);
        let at = known.unwrap_or_else(|| {
            ranks.push((rank.into(), idle));
            ranks.len() - 1
        });
        &mut ranks[at].1
    }

    /// Returns the rates of a server or copy with their key: its own, or one without some of the labels that
    /// distinguish copies. Gauges of each tensor or pipeline rank have labels that the counters of their server lack.
    pub(crate) fn rates_of(&self, replica: &PodName, key: &str) -> Option<&(Box<str>, Sums)> {
        let all = self.replica_rates.get(replica)?;
        let own = all.iter().find(|(of, _)| **of == *key);
        // The first part is the instance. All keys of a fetch have the same number of parts.
        let has_less = |of: &str| {
            let parts = of.split(KEY_SEPARATOR).zip(key.split(KEY_SEPARATOR)).enumerate();
            let mut parts = parts.map(|(at, (of, own))| of == own || (at > 0 && of.is_empty()));
            !of.is_empty() && parts.all(|is_of| is_of)
        };
        own.or_else(|| all.iter().find(|(of, _)| has_less(of)))
    }

    /// Returns the live pods, sorted by name.
    pub(crate) fn live_pods(&self) -> Vec<&PodName> {
        let mut pods: Vec<&PodName> =
            self.servers.as_slice().iter().map(|server| &server.replica).collect();
        pods.sort_unstable();
        pods.dedup();
        pods
    }

    /// Returns whether live pods are read as this engine.
    pub(crate) fn has_engine(&self, engine: u8) -> bool {
        self.servers.as_slice().iter().any(|server| server.engine == engine)
    }

    /// Returns whether a query of this kind was answered, for any engine.
    pub(crate) fn was_answered(&self, kind: QueryKind) -> bool {
        self.answered[kind as usize]
    }

    /// Returns whether the liveness query found no pod, so that other signs of life must be queried.
    pub(crate) fn has_no_pods(&self) -> bool {
        self.was_answered(QueryKind::Liveness) && self.servers.as_slice().is_empty()
    }

    /// Returns whether the model has no live pod, but had series within the window or has others now.
    pub(crate) fn has_just_vanished(&self) -> bool {
        self.has_no_pods() && (self.lately || self.alive_by.is_some())
    }

    /// Returns whether the model has no series now and had none within the window.
    pub(crate) fn is_missing(&self) -> bool {
        self.has_no_pods()
            && self.was_answered(QueryKind::Presence)
            && !(self.lately || self.seen || self.unnamed)
    }

    /// Returns whether the model has both prefill and decode pods.
    pub(crate) fn has_two_roles(&self) -> bool {
        let has = |role| self.servers.as_slice().iter().any(|it| it.role.as_deref() == Some(role));
        has("prefill") && has("decode")
    }

    /// Returns the failure of a model with series in several clusters, of which none is selected.
    pub(crate) fn ambiguous(&self) -> Option<Failure> {
        let (label, values) = self.clusters.iter().find(|(_, values)| values.len() > 1)?;
        let shown: Vec<String> =
            values.iter().map(|value| format!("{:?}", collector_transport::quote(value))).collect();
        let first = values.first()?;
        let matcher =
            format!("prometheus.matchers = ['{label}=\"{}\"']", collector_transport::quote(first));
        Some(
            Failure::new(
                ErrorKind::Ambiguous,
                format!(
                    "the series of the model have several values of the label {label}: {}",
                    shown.join(", ")
                ),
            )
            .with_remedy(format!("select one, with {matcher} for example")),
        )
    }
}
