// SPDX-License-Identifier: Apache-2.0
//! The faults of one scene, drawn from its seed.

use collector_core::{ModelRef, Urgency};

use super::fleet::{World, names};

/// A stream of numbers from a seed (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xA24B_AED4_963E_E407))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Returns whether this text is affected, for a fraction of all texts.
pub(crate) fn hits(text: &str, salt: u64, percent: u64) -> bool {
    let hash = text.bytes().fold(salt, |hash, byte| mix(hash ^ u64::from(byte)));
    hash % 100 < percent
}

/// Which queries a fault touches.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Scope {
    All,
    /// Queries whose text has this part.
    With(&'static str),
    /// A fraction of them, by their text.
    Some {
        salt: u64,
        percent: u64,
    },
}

impl Scope {
    pub(crate) fn has(self, query: &str) -> bool {
        match self {
            Self::All => true,
            Self::With(part) => query.contains(part),
            Self::Some { salt, percent } => hits(query, salt, percent),
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Fault {
    /// Some rows are absent, without a warning.
    DropRows {
        salt: u64,
        percent: u64,
    },
    /// The rows of one pod are absent, without a warning.
    DropPod(String),
    /// A series is not stored.
    DropSeries(&'static str),
    /// The body ends early; `honest` where the head says so.
    Truncate {
        percent: usize,
        honest: bool,
    },
    Status {
        code: u16,
        body: &'static str,
    },
    /// Evaluates this many seconds earlier than asked, in the server or a cache in front of it.
    Earlier {
        seconds: f64,
        own_time: bool,
        time_too: bool,
    },
    /// Rows come twice, the second as of 10 minutes ago, with this label in addition.
    Double {
        label: Option<&'static str>,
        older: bool,
        first: bool,
    },
    /// A label has another name in some rows, or is absent.
    Relabel {
        from: &'static str,
        to: Option<&'static str>,
        salt: u64,
        percent: u64,
    },
    /// Rows are absent, with a warning.
    Partial {
        salt: u64,
        percent: u64,
        flag: bool,
    },
    /// Rows that belong to no model.
    Foreign,
    /// Another type of result.
    Type(&'static str),
    /// Impossible values.
    Value {
        value: &'static str,
        salt: u64,
        percent: u64,
    },
    /// A slow answer, and one that never comes.
    Delay {
        hangs: bool,
    },
}

impl Fault {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::DropRows { .. } => "rows dropped",
            Self::DropPod(_) => "pod dropped",
            Self::DropSeries(_) => "series dropped",
            Self::Truncate { .. } => "truncated",
            Self::Status { .. } => "status",
            Self::Earlier { .. } => "earlier or cached",
            Self::Double { .. } => "doubled",
            Self::Relabel { .. } => "relabelled",
            Self::Partial { .. } => "partial",
            Self::Foreign => "foreign rows",
            Self::Type(_) => "wrong type",
            Self::Value { .. } => "odd values",
            Self::Delay { .. } => "delayed",
        }
    }
}

/// A fault, the queries that it affects, and its fetches.
#[derive(Clone, Debug)]
pub(crate) struct Struck {
    pub(crate) fault: Fault,
    pub(crate) scope: Scope,
    pub(crate) fetches: [bool; 2],
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) world: World,
    pub(crate) model: ModelRef,
    pub(crate) with_others: bool,
    pub(crate) per_pod: bool,
    pub(crate) urgency: Urgency,
    /// When the fetches are, from [`super::fleet::NOW`].
    pub(crate) times: Vec<f64>,
    pub(crate) faults: Vec<Struck>,
    /// Seconds by which the collector's wall clock is ahead.
    pub(crate) skew: i32,
}

/// Parts of queries that identify them.
const PARTS: [&str; 18] = [
    "timestamp(",
    "timestamp(vllm:num_requests_running{",
    "timestamp(sglang:num_running_reqs{",
    "(vllm:num_requests_running{",
    "max_over_time(vllm:num_requests_waiting{",
    "max_over_time(vllm:kv_cache_usage_perc{",
    "max_over_time(sglang:num_queue_reqs{",
    "max_over_time(sglang:token_usage{",
    "max_over_time(",
    "rate(",
    "rate(vllm:request_prompt_tokens_count{",
    "rate(vllm:request_prompt_tokens_sum{",
    "rate(vllm:time_to_first_token_seconds_sum{",
    "rate(vllm:inter_token_latency_seconds_count{",
    "rate(vllm:prefix_cache_hits_total{",
    "cache_config_info{",
    "count_over_time(",
    "label_replace(",
];

const STATUSES: [(u16, &str); 9] = [
    (400, r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\""}"#),
    (
        422,
        r#"{"status":"error","errorType":"execution","error":"query processing would load too many samples"}"#,
    ),
    (413, "too large"),
    (429, "slow down"),
    (500, r#"{"status":"error","errorType":"internal","error":"boom"}"#),
    (502, "<html>bad gateway</html>"),
    (
        503,
        r#"{"status":"error","errorType":"timeout","error":"query timed out in expression evaluation"}"#,
    ),
    (504, ""),
    (200, r#"{"status":"error","errorType":"execution","error":"said with 200"}"#),
];

const MODELS: [(&str, &str, &[&str]); 8] = [
    ("org/alpha", "prod", &["alpha-0", "alpha-1", "alpha-2"]),
    ("org/ranks", "prod", &["ranks-0", "ranks-1"]),
    ("org/lang", "prod", &["lang-0", "lang-1"]),
    ("org/alpha", "test", &["alpha-0", "alpha-1"]),
    ("org/idle", "test", &["idle-0"]),
    ("org/young", "test", &["young-0", "young-1"]),
    ("org/gone", "test", &["gone-0"]),
    ("org/none", "prod", &["none-0"]),
];

pub(crate) fn models() -> impl Iterator<Item = ModelRef> {
    MODELS.into_iter().map(|(model, namespace, _)| ModelRef::new(model, namespace))
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        // Models with more possible faults are drawn more often.
        let place = random.pick(&[0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 6, 7]);
        let (model, namespace, pods) = MODELS[place];
        let world = if random.percent(40) { World::Plain } else { random.pick(&World::ALL) };
        let times = match random.below(4) {
            0 => vec![0.0, 30.0],
            1 => vec![0.0, 60.0],
            _ => vec![0.0],
        };
        let faults = random.pick(&[0, 1, 1, 1, 1, 1, 2, 2, 2, 3]);
        let faults = (0..faults).map(|_| struck(&mut random, pods)).collect();
        Self {
            seed,
            world,
            model: ModelRef::new(model, namespace),
            with_others: random.percent(20),
            per_pod: random.percent(40),
            urgency: random.pick(&[Urgency::Waiting, Urgency::Background]),
            times,
            faults,
            skew: random.pick(&[0, 0, 0, 37, -3_600]),
        }
    }

    /// The faults that touch a query of one fetch.
    pub(crate) fn of<'a>(
        &'a self,
        query: &'a str,
        fetch: usize,
    ) -> impl Iterator<Item = &'a Fault> {
        let touches = move |it: &&Struck| it.fetches[fetch] && it.scope.has(query);
        self.faults.iter().filter(touches).map(|struck| &struck.fault)
    }
}

fn struck(random: &mut Random, pods: &[&str]) -> Struck {
    let scope = match random.below(6) {
        0 | 1 => Scope::All,
        2..=4 => Scope::With(random.pick(&PARTS)),
        _ => Scope::Some { salt: random.next(), percent: random.pick(&[10, 30, 60]) },
    };
    let (salt, percent) = (random.next(), random.pick(&[10, 30, 70, 100]));
    let fault = match random.below(14) {
        0 => Fault::DropRows { salt, percent },
        1 => Fault::DropPod(random.pick(pods).to_owned()),
        2 => Fault::DropSeries(random.pick(&names())),
        3 => Fault::Truncate { percent: random.below(100), honest: random.percent(70) },
        4 => {
            let (code, body) = random.pick(&STATUSES);
            Fault::Status { code, body }
        }
        5 | 6 => Fault::Earlier {
            seconds: random.pick(&[30.0, 30.0, 180.0, 600.0]),
            own_time: random.percent(60),
            time_too: random.percent(60),
        },
        7 => Fault::Double {
            label: random.pick(&[None, Some("instance"), Some("prometheus_replica")]),
            older: random.percent(60),
            first: random.percent(50),
        },
        8 => {
            let (from, to) = random.pick(&[
                ("pod", Some("pod_name")),
                ("pod", None),
                ("namespace", Some("k8s_namespace_name")),
                ("namespace", None),
                ("model_name", Some("model")),
                ("model_name", None),
                ("engine", None),
                ("instance", None),
                ("what", None),
            ]);
            Fault::Relabel { from, to, salt, percent }
        }
        9 => Fault::Partial { salt, percent, flag: random.percent(50) },
        10 => Fault::Foreign,
        11 => Fault::Type(random.pick(&["scalar", "matrix", "string", "streams"])),
        12 => {
            let value = random.pick(&["NaN", "+Inf", "-1", "1e300", "seven", ""]);
            Fault::Value { value, salt, percent }
        }
        _ => Fault::Delay { hangs: random.percent(10) },
    };
    // A series that is not stored in the first fetch is not stored in the second either.
    let fetches = random.pick(&[[true, true], [true, true], [true, false], [false, true]]);
    let is_stored = matches!(fault, Fault::DropSeries(_));
    let scope = if is_stored { Scope::All } else { scope };
    Struck { fault, scope, fetches: if is_stored { [true, true] } else { fetches } }
}
