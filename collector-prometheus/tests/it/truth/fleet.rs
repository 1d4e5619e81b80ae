// SPDX-License-Identifier: Apache-2.0
//! A fleet whose every value is known, stored in several ways side by side; the label `w` distinguishes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use collector_core::ModelRef;

/// The moment of the first fetch, in seconds since the epoch. All other times count from it.
pub(crate) const NOW: f64 = 1_732_000_000.0;
/// When every gauge and every rate changed, long before the window of the first fetch.
pub(crate) const CHANGED: f64 = -420.0;
const FIRST: f64 = -1_300.0;
const LAST: f64 = 200.0;
const SCRAPE: f64 = 15.0;

/// How series are stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum World {
    /// With the labels that a `PodMonitor` attaches.
    Plain,
    /// By a pair of servers that scrape 7 s apart, under `prometheus_replica`.
    Pair,
    /// By a pair of which one ended 100 s ago.
    HalfDeadPair,
    /// By two jobs that scrape the same instance.
    TwoJobs,
    /// By two jobs that scrape the same pod at two addresses.
    TwoInstances,
    /// Under the names of OpenTelemetry's labels.
    OtherLabels,
    /// With the labels of an agent in `namespace` and `pod`, and the pod's own in `exported_…`.
    Exported,
    /// In two clusters, each pod in one of them.
    Clusters,
    /// One pod of each model has no label that names it.
    UnnamedPod,
    /// With a router's series of the same names as well.
    Router,
    /// With samples that arrive 45 s late.
    Late,
}

impl World {
    pub(crate) const ALL: [Self; 11] = [
        Self::Plain,
        Self::Pair,
        Self::HalfDeadPair,
        Self::TwoJobs,
        Self::TwoInstances,
        Self::OtherLabels,
        Self::Exported,
        Self::Clusters,
        Self::UnnamedPod,
        Self::Router,
        Self::Late,
    ];

    /// The value of the label `w`.
    pub(crate) fn label(self) -> String {
        format!("{self:?}")
    }

    /// Whether series are stored more than once.
    pub(crate) fn is_stored_twice(self) -> bool {
        self.copies().len() > 1
    }

    /// Each copy of a series that is stored: how much later it is scraped, and when it ends.
    fn copies(self) -> &'static [(f64, f64)] {
        match self {
            Self::Pair => &[(0.0, LAST), (7.0, LAST)],
            Self::HalfDeadPair => &[(0.0, LAST), (7.0, -100.0)],
            Self::TwoJobs | Self::TwoInstances => &[(0.0, LAST), (4.0, LAST)],
            Self::Late => &[(0.0, -45.0)],
            _ => &[(0.0, LAST)],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Vllm,
    Sglang,
}

/// A gauge or rate before and after the change.
pub(crate) type Change = [f64; 2];

/// A data-parallel rank.
#[derive(Clone, Debug)]
pub(crate) struct Rank {
    pub(crate) waiting: Change,
    /// Of `waiting`, those in a separate series.
    pub(crate) grammar: f64,
    pub(crate) running: Change,
    pub(crate) usage: Change,
    /// Requests per second.
    pub(crate) requests: Change,
    pub(crate) prompt: f64,
    pub(crate) generated: f64,
    pub(crate) ttft: f64,
    pub(crate) itl: f64,
    pub(crate) hits: f64,
    pub(crate) blocks: f64,
    pub(crate) block_size: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) model: ModelRef,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) ranks: Vec<Rank>,
    /// How long before each whole interval it is scraped.
    phase: f64,
    pub(crate) from: f64,
    pub(crate) until: f64,
    number: usize,
}

impl Pod {
    /// Returns when it was last sampled before `at`, by any copy.
    pub(crate) fn newest(&self, world: World, at: f64) -> Option<f64> {
        let of = |(shift, end): &(f64, f64)| {
            let last = at.min(self.until).min(*end);
            let steps = ((last - self.start(*shift)) / SCRAPE).floor();
            let time = self.start(*shift) + steps * SCRAPE;
            (time >= self.from && time <= last).then_some(time)
        };
        world.copies().iter().filter_map(of).max_by(f64::total_cmp)
    }

    fn start(&self, shift: f64) -> f64 {
        FIRST - self.phase + shift
    }

    /// Returns whether it lives at a time.
    pub(crate) fn lives(&self, at: f64) -> bool {
        (self.from..=self.until).contains(&at)
    }

    /// Returns whether it lived all through the windows that end at a time.
    pub(crate) fn is_steady(&self) -> bool {
        self.from <= FIRST
    }

    pub(crate) fn sum(&self, of: impl Fn(&Rank) -> f64) -> f64 {
        self.ranks.iter().map(of).sum()
    }
}

fn rank(waiting: Change, running: Change, usage: Change, requests: Change) -> Rank {
    Rank {
        waiting,
        grammar: 0.0,
        running,
        usage,
        requests,
        prompt: 512.0,
        generated: 128.0,
        ttft: 0.25,
        itl: 0.02,
        hits: 0.25,
        blocks: 12_000.0,
        block_size: 16.0,
    }
}

/// The pods of every model.
pub(crate) fn fleet() -> Vec<Pod> {
    let mut pods: Vec<Pod> = Vec::new();
    let mut add = |namespace: &str, model: &str, name: &str, kind, ranks: Vec<Rank>| {
        let number = pods.len();
        pods.push(Pod {
            model: ModelRef::new(model, namespace),
            name: name.to_owned(),
            kind,
            ranks,
            phase: 1.0 + number as f64 * 0.73,
            from: FIRST,
            until: LAST,
            number,
        });
        number
    };
    let vllm = |i: f64| {
        rank([31.0 + i, 6.0 + i], [9.0 + i, 20.0 + i], [0.31, 0.80 - i / 20.0], [7.0, 2.0 + i])
    };
    for i in 0..3_u32 {
        let rank = Rank { prompt: 512.0 + f64::from(i), ..vllm(f64::from(i)) };
        add("prod", "org/alpha", &format!("alpha-{i}"), Kind::Vllm, vec![rank]);
    }
    let left = add("prod", "org/alpha", "alpha-left", Kind::Vllm, vec![vllm(7.0)]);
    for i in 0..2_u32 {
        let i = f64::from(i);
        let ranks = vec![vllm(i), Rank { blocks: 9_000.0, ..vllm(i + 2.0) }];
        add("prod", "org/ranks", &format!("ranks-{i}"), Kind::Vllm, ranks);
    }
    for i in 0..2_u32 {
        let i = f64::from(i);
        let rank = |more: f64| Rank { grammar: 2.0, blocks: 9_500.0, ..vllm(i + more) };
        let ranks = vec![rank(0.0), rank(1.0)];
        add("prod", "org/lang", &format!("lang-{i}"), Kind::Sglang, ranks);
    }
    // The same name in another namespace, and one without requests.
    for i in 0..2_u32 {
        let rank = Rank { generated: 99.0, hits: 0.5, ..vllm(f64::from(i) + 4.0) };
        add("test", "org/alpha", &format!("alpha-{i}"), Kind::Vllm, vec![rank]);
    }
    let nothing = [5.0, 0.0];
    let idle = rank(nothing, nothing, [0.4, 0.0], [1.0, 0.0]);
    add("test", "org/idle", "idle-0", Kind::Vllm, vec![idle]);
    let young = add("test", "org/young", "young-0", Kind::Vllm, vec![vllm(1.0)]);
    add("test", "org/young", "young-1", Kind::Vllm, vec![vllm(3.0)]);
    let gone = add("test", "org/gone", "gone-0", Kind::Vllm, vec![vllm(1.0)]);
    pods[left].until = -100.0;
    pods[young].from = -52.0;
    pods[gone].until = -1_000.0;
    pods
}

/// A series: its name, the labels that the server wrote, and its value at a time.
type Series = (&'static str, Vec<(&'static str, String)>, Box<dyn Fn(f64) -> f64>);

fn series_of(pod: &Pod) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for (number, rank) in pod.ranks.iter().enumerate() {
        let text = |number: f64| format!("{number}");
        let model = pod.model.model.as_str().to_owned();
        let (label, names) = match pod.kind {
            Kind::Vllm => ("engine", VLLM),
            Kind::Sglang => ("dp_rank", SGLANG),
        };
        let mut own = vec![("model_name", model), (label, number.to_string())];
        if pod.kind == Kind::Sglang {
            own.push(("engine_type", "unified".to_owned()));
        }
        for (name, what) in names {
            let value = value_of(*what, rank);
            all.push((name, own.clone(), value));
        }
        if pod.kind == Kind::Vllm {
            let labels = vec![
                (label, number.to_string()),
                ("num_gpu_blocks", text(rank.blocks)),
                ("block_size", text(rank.block_size)),
            ];
            all.push(("vllm:cache_config_info", labels, Box::new(|_| 1.0)));
        }
    }
    all
}

#[derive(Clone, Copy)]
enum What {
    Gauge(fn(&Rank) -> Change),
    /// The growth per request.
    Counter(fn(&Rank) -> f64),
}

const VLLM: &[(&str, What)] = &[
    ("vllm:num_requests_running", What::Gauge(|rank| rank.running)),
    ("vllm:num_requests_waiting", What::Gauge(|rank| rank.waiting)),
    ("vllm:kv_cache_usage_perc", What::Gauge(|rank| rank.usage)),
    ("vllm:request_success_total", What::Counter(|_| 1.0)),
    ("vllm:prompt_tokens_total", What::Counter(|rank| rank.prompt)),
    ("vllm:generation_tokens_total", What::Counter(|rank| rank.generated)),
    ("vllm:request_prompt_tokens_sum", What::Counter(|rank| rank.prompt)),
    ("vllm:request_prompt_tokens_count", What::Counter(|_| 1.0)),
    ("vllm:request_generation_tokens_sum", What::Counter(|rank| rank.generated)),
    ("vllm:request_generation_tokens_count", What::Counter(|_| 1.0)),
    ("vllm:time_to_first_token_seconds_sum", What::Counter(|rank| rank.ttft)),
    ("vllm:time_to_first_token_seconds_count", What::Counter(|_| 1.0)),
    ("vllm:inter_token_latency_seconds_sum", What::Counter(|rank| rank.generated * rank.itl)),
    ("vllm:inter_token_latency_seconds_count", What::Counter(|rank| rank.generated)),
    ("vllm:prefix_cache_queries_total", What::Counter(|rank| rank.prompt)),
    ("vllm:prefix_cache_hits_total", What::Counter(|rank| rank.prompt * rank.hits)),
];

const SGLANG: &[(&str, What)] = &[
    ("sglang:num_running_reqs", What::Gauge(|rank| rank.running)),
    ("sglang:num_queue_reqs", What::Gauge(|rank| rank.waiting.map(|all| all - rank.grammar))),
    ("sglang:num_grammar_queue_reqs", What::Gauge(|rank| [rank.grammar; 2])),
    ("sglang:token_usage", What::Gauge(|rank| rank.usage)),
    ("sglang:max_total_num_tokens", What::Gauge(|rank| [rank.blocks * rank.block_size; 2])),
    ("sglang:num_requests_total", What::Counter(|_| 1.0)),
    ("sglang:prompt_tokens_total", What::Counter(|rank| rank.prompt)),
    ("sglang:generation_tokens_total", What::Counter(|rank| rank.generated)),
    ("sglang:time_to_first_token_seconds_sum", What::Counter(|rank| rank.ttft)),
    ("sglang:time_to_first_token_seconds_count", What::Counter(|_| 1.0)),
    ("sglang:inter_token_latency_seconds_sum", What::Counter(|rank| rank.generated * rank.itl)),
    ("sglang:inter_token_latency_seconds_count", What::Counter(|rank| rank.generated)),
    ("sglang:cached_tokens_total", What::Counter(|rank| rank.prompt * rank.hits)),
];

/// The names of all series that a fault may take away.
pub(crate) fn names() -> Vec<&'static str> {
    VLLM.iter().chain(SGLANG).map(|(name, _)| *name).chain(["vllm:cache_config_info"]).collect()
}

fn value_of(what: What, rank: &Rank) -> Box<dyn Fn(f64) -> f64> {
    match what {
        What::Gauge(of) => {
            let [before, after] = of(rank);
            Box::new(move |time| if time < CHANGED { before } else { after })
        }
        What::Counter(of) => {
            let [before, after] = rank.requests.map(|rate| rate * of(rank));
            Box::new(move |time| {
                let old = (time.min(CHANGED) - FIRST) * before;
                50_000.0 + old + (time - CHANGED).max(0.0) * after
            })
        }
    }
}

/// The labels that a scrape job attaches to the series of a pod, for one of its copies.
fn attached(world: World, pod: &Pod, copy: usize) -> Vec<(&'static str, String)> {
    let (namespace, name) = (pod.model.namespace.as_str().to_owned(), pod.name.clone());
    let host = if world == World::TwoInstances { 9_000 } else { 8_000 } + copy;
    let port = if world == World::TwoInstances { host } else { 8_000 };
    let instance = format!("10.0.0.{}:{port}", pod.number + 1);
    let job = if world == World::TwoJobs { format!("job-{copy}") } else { "fleet".to_owned() };
    let mut labels = vec![("instance", instance), ("job", job), ("w", world.label())];
    let is_unnamed = world == World::UnnamedPod && pod.name.ends_with("-1");
    let more = match world {
        World::OtherLabels => vec![("k8s_namespace_name", namespace), ("k8s_pod_name", name)],
        World::Exported => vec![
            ("exported_namespace", namespace),
            ("exported_pod", name),
            ("namespace", "monitoring".to_owned()),
            ("pod", "agent-0".to_owned()),
        ],
        World::Pair | World::HalfDeadPair => vec![
            ("namespace", namespace),
            ("pod", name),
            ("prometheus_replica", format!("replica-{copy}")),
        ],
        World::Clusters => {
            let cluster = if pod.number.is_multiple_of(2) { "east" } else { "west" };
            vec![("namespace", namespace), ("pod", name), ("cluster", cluster.to_owned())]
        }
        World::UnnamedPod if is_unnamed => vec![("namespace", namespace)],
        _ => vec![("namespace", namespace), ("pod", name)],
    };
    labels.extend(more);
    labels
}

/// The whole history of all worlds.
pub(crate) fn history(pods: &[Pod]) -> String {
    let mut by_name: BTreeMap<&str, String> = BTreeMap::new();
    let mut add = |name: &'static str,
                   labels: &[(&str, String)],
                   value: &dyn Fn(f64) -> f64,
                   times: &mut dyn Iterator<Item = f64>| {
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let labels = labels.join(",");
        let text = by_name.entry(name).or_default();
        for time in times {
            let _ = writeln!(text, "{name}{{{labels}}} {} {:.3}", value(time), NOW + time);
        }
    };
    for world in World::ALL {
        for pod in pods {
            for (copy, (shift, end)) in world.copies().iter().enumerate() {
                let attached = attached(world, pod, copy);
                for (name, own, value) in series_of(pod) {
                    let labels: Vec<_> = own.into_iter().chain(attached.clone()).collect();
                    let times = (0..200).map(|step| pod.start(*shift) + f64::from(step) * SCRAPE);
                    let mut times =
                        times.filter(|time| *time >= pod.from && *time <= pod.until.min(*end));
                    add(name, &labels, &*value, &mut times);
                }
            }
        }
    }
    // A router has the servers' names, with a label of its own per server.
    for (name, what) in VLLM {
        let rank = rank([90.0; 2], [90.0; 2], [0.95; 2], [50.0; 2]);
        let value = value_of(*what, &rank);
        for server in ["http://alpha-0", "http://alpha-1"] {
            let labels = [
                ("server", server.to_owned()),
                ("namespace", "prod".to_owned()),
                ("pod", "router-0".to_owned()),
                ("instance", "10.0.1.1:8001".to_owned()),
                ("w", World::Router.label()),
            ];
            let mut times = (0..100).map(|step| FIRST - 3.0 + f64::from(step) * SCRAPE);
            add(name, &labels, &*value, &mut times);
        }
    }
    let mut page: String = by_name.into_values().collect();
    page.push_str("# EOF\n");
    page
}
