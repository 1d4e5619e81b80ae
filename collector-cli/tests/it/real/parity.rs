// SPDX-License-Identifier: Apache-2.0
//! One fleet of every kind of model server, read by both backends with a real Prometheus between: they say the
//! same, field by field.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use collector_config::Loader;
use collector_core::{
    Allocation, MetricsCollector, ModelRef, Reading, ReplicaMetrics, ReplicaState, Replicas,
    SystemClock,
};
use collector_engine::CachingCollector;
use collector_sim::{EngineKind, Gauges, VariantSpec};
use collector_testkit::PrometheusServer;
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::fixture::{SCRAPES_OF_A_WINDOW, WINDOW, World, eventually, now, read_anew, variant};

/// Servers of which the simulator has pages of their own, and data-parallel ranks of each.
const OF_A_KIND: [(&str, EngineKind, u32); 4] = [
    ("vllm", EngineKind::Vllm, 2),
    ("sglang", EngineKind::Sglang, 2),
    ("trtllm-serve", EngineKind::TrtllmServe, 1),
    ("triton-tensorrt-llm", EngineKind::TritonTensorrtLlm, 1),
];
/// Servers whose pages are made from their descriptions.
const DESCRIBED: [&str; 15] = [
    "triton-vllm",
    "nim",
    "tokenspeed",
    "lmdeploy",
    "fastdeploy",
    "atom",
    "ray-vllm",
    "ray-sglang",
    "tgi",
    "llamacpp",
    "kserve-vllm",
    "kserve-sglang",
    "triton",
    "mlc",
    "dynamo",
];
/// Those that do not name their model.
const WITHOUT_MODEL: [&str; 6] =
    ["triton-tensorrt-llm", "fastdeploy", "atom", "tgi", "llamacpp", "mlc"];

fn every_engine() -> Vec<&'static str> {
    OF_A_KIND.iter().map(|(name, ..)| *name).chain(DESCRIBED).collect()
}

fn fleet() -> Vec<VariantSpec> {
    let mut variants = Vec::new();
    for (name, kind, engines) in OF_A_KIND {
        let mut spec = variant(name, name);
        spec.engine.kind = kind;
        spec.engine.engines = engines;
        variants.push(spec);
    }
    for name in DESCRIBED {
        let mut spec = variant(name, name);
        let labels = if WITHOUT_MODEL.contains(&name) { "\nmodel_labels = []" } else { "" };
        spec.engine.described = Some(Box::new(toml_of(&format!("name = {name:?}{labels}"))));
        variants.push(spec);
    }
    for spec in &mut variants {
        spec.pods = 1;
        spec.load.requests_per_minute = 600.0;
    }
    variants
}

fn toml_of<T: serde::de::DeserializeOwned>(text: &str) -> T {
    toml::from_str(text).unwrap()
}

/// A collector over one backend, as a configuration builds it.
fn collector(toml: &str) -> Arc<CachingCollector> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("collector.toml");
    std::fs::write(&file, toml).unwrap();
    let loaded = Loader::new().file(file).load().unwrap();
    Arc::new(loaded.config.build(Arc::new(SystemClock::new())).unwrap())
}

fn variants() -> String {
    every_engine().iter().fold(String::new(), |mut text, name| {
        let _ = writeln!(
            text,
            "[[variants]]\nname = {name:?}\nnamespace = \"prod\"\nmodel = {:?}\n",
            model(name).model.as_str()
        );
        text
    })
}

fn direct(world: &World) -> Arc<CachingCollector> {
    let targets = world.fleet.targets().into_iter().map(|target| {
        let engine = WITHOUT_MODEL.iter().find(|name| target.pod.starts_with(&format!("{name}-")));
        let model = engine.map_or_else(String::new, |name| format!(", model = {name:?}"));
        format!(
            "{{ url = \"http://{}/metrics\", namespace = {:?}, pod = {:?}{model} }}",
            target.address, target.namespace, target.pod
        )
    });
    collector(&format!(
        "backend = \"epp\"\n[epp]\nscrape_interval = \"1s\"\nwindow = \"{}s\"\ntargets = [{}]\n{}",
        WINDOW.as_secs(),
        targets.collect::<Vec<_>>().join(", "),
        variants()
    ))
}

fn through_prometheus(world: &World) -> Arc<CachingCollector> {
    let models = WITHOUT_MODEL.iter().fold(String::new(), |mut text, name| {
        let _ = writeln!(
            text,
            "[[prometheus.models]]\nselector = 'namespace=\"prod\",pod=~\"{name}-.*\"'\nmodel = {name:?}"
        );
        text
    });
    collector(&format!("{}{models}{}", world.toml("backend = \"prometheus\""), variants()))
}

/// Differences between what the two say, in words.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn same<T: PartialEq + std::fmt::Debug + Copy>(&mut self, what: &str, one: T, other: T) {
        if one != other {
            self.0.push(format!("{what}: directly {one:?}, through Prometheus {other:?}"));
        }
    }

    /// Both unknown, or both known and nearly alike: their windows do not begin at one moment.
    fn near(&mut self, what: &str, one: Option<f64>, other: Option<f64>) {
        let alike = match (one, other) {
            (Some(a), Some(b)) => (a - b).abs() <= 0.05 * a.abs().max(b.abs()),
            (None, None) => true,
            _ => false,
        };
        if !alike {
            self.0.push(format!("{what}: directly {one:?}, through Prometheus {other:?}"));
        }
    }

    fn replica(&mut self, one: &ReplicaMetrics, other: &ReplicaMetrics) {
        let pod = &one.pod_name;
        self.same(&format!("{pod}: pod"), &one.pod_name, &other.pod_name);
        // Triton's vLLM and vLLM have series of the same names, so that a Prometheus holds one engine.
        if !pod.as_str().starts_with("triton-vllm") {
            self.same(&format!("{pod}: engine"), &one.engine, &other.engine);
        }
        self.same(&format!("{pod}: state"), one.state, other.state);
        self.same(&format!("{pod}: servers"), one.servers, other.servers);
        self.same(&format!("{pod}: waiting"), one.queue_length, other.queue_length);
        self.same(&format!("{pod}: running"), one.running_requests, other.running_requests);
        self.near(&format!("{pod}: usage"), one.kv_cache_usage, other.kv_cache_usage);
        self.same(
            &format!("{pod}: capacity"),
            one.total_kv_capacity_tokens(),
            other.total_kv_capacity_tokens(),
        );
        self.same(&format!("{pod}: blocks"), one.num_gpu_blocks, other.num_gpu_blocks);
        self.same(&format!("{pod}: block size"), one.block_size, other.block_size);
        self.near(
            &format!("{pod}: hit rate"),
            one.prefix_cache_hit_rate,
            other.prefix_cache_hit_rate,
        );
        self.same(&format!("{pod}: variant"), &one.variant_name, &other.variant_name);
    }

    fn load(&mut self, one: &Allocation, other: &Allocation) {
        let name = &one.variant;
        self.near(&format!("{name}: arrivals"), one.load.arrival_rate, other.load.arrival_rate);
        self.near(
            &format!("{name}: input"),
            one.load.avg_input_tokens,
            other.load.avg_input_tokens,
        );
        self.near(
            &format!("{name}: output"),
            one.load.avg_output_tokens,
            other.load.avg_output_tokens,
        );
        self.near(&format!("{name}: first token"), one.ttft_average, other.ttft_average);
        self.near(&format!("{name}: between tokens"), one.itl_average, other.itl_average);
        self.same(&format!("{name}: replicas"), one.num_replicas, other.num_replicas);
    }
}

/// The model of an engine's server, which has its name. Dynamo's are asked for in capitals: it writes them
/// in small letters whatever the deployment calls them.
fn model(name: &str) -> ModelRef {
    let id = if name == "dynamo" { name.to_uppercase() } else { name.to_owned() };
    ModelRef::new(id, "prod")
}

async fn compare_replicas(one: &CachingCollector, other: &CachingCollector, when: &str) {
    let mut differences = Differences::default();
    for name in every_engine() {
        let read = |result: Result<Reading<Replicas>, _>| {
            result.map_err(|error: collector_core::CollectError| error.to_string())
        };
        let one = read(one.collect_replica_metrics(&model(name)).await);
        other.invalidate_cache(&model(name));
        let other = read(other.collect_replica_metrics(&model(name)).await);
        let (Ok(one), Ok(other)) = (&one, &other) else {
            differences.0.push(format!("{name}: {:?} and {:?}", one.err(), other.err()));
            continue;
        };
        let (one, other) = (&one.value().replicas, &other.value().replicas);
        differences.same(&format!("{name}: rows"), one.len(), other.len());
        for (one, other) in one.iter().zip(other) {
            differences.replica(one, other);
        }
    }
    assert!(differences.0.is_empty(), "{when}:\n{}", differences.0.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_engine_is_read_alike_by_both_backends() {
    let Some(world) = World::start(fleet()).await else { return };
    let (direct, asked) = (direct(&world), through_prometheus(&world));
    direct.start_background_worker().await.unwrap();
    world.scrapes(SCRAPES_OF_A_WINDOW + 2).await;
    let mut differences = Differences::default();
    let mut without_arrivals = Vec::new();
    for name in every_engine() {
        let variant = name.into();
        let one = direct.collect_allocation(&model(name), &variant).await;
        let other = asked.collect_allocation(&model(name), &variant).await;
        let (Ok(one), Ok(other)) = (&one, &other) else {
            differences.0.push(format!("{name}: {:?} and {:?}", one.err(), other.err()));
            continue;
        };
        if one.value().load.arrival_rate.is_none_or(|rate| rate <= 0.0) {
            without_arrivals.push(name);
        }
        differences.load(one.value(), other.value());
    }
    assert!(differences.0.is_empty(), "under load:\n{}", differences.0.join("\n"));
    // These count no requests.
    assert_eq!(without_arrivals, ["triton-tensorrt-llm", "llamacpp", "mlc"]);

    // At rest, with ranks that differ.
    for name in every_engine() {
        let ranks = OF_A_KIND.iter().find(|(it, ..)| *it == name).map_or(1, |(.., ranks)| *ranks);
        for rank in 0..ranks {
            let gauges = Gauges {
                waiting: 5 + 4 * rank,
                running: 3,
                kv_cache_usage: 0.25 + 0.5 * f64::from(rank),
            };
            world.fleet.pin("prod", &format!("{name}-0"), rank as usize, gauges).unwrap();
        }
    }
    world.fleet.freeze();
    let frozen = now();
    eventually("only the frozen fleet is in both windows", WINDOW * 3, || async {
        world.scrapes(1).await;
        frozen.elapsed() > WINDOW + Duration::from_secs(2)
    })
    .await;
    compare_replicas(&direct, &asked, "at rest").await;
    // Both are right, and what an engine does not report is unknown.
    for (name, expected) in [
        ("vllm", [Some(14.0), Some(6.0), Some(0.75), Some(877_952.0)]),
        ("dynamo", [Some(5.0), Some(3.0), None, None]),
        ("triton", [Some(5.0), None, None, None]),
        ("mlc", [None; 4]),
    ] {
        let reading = read_anew(&asked, &model(name)).await;
        let [row] = &reading.value().replicas[..] else { panic!("{name} is one row") };
        let count = |count: Option<u64>| count.map(|count| count as f64);
        let capacity = count(row.total_kv_capacity_tokens());
        let told =
            [count(row.queue_length), count(row.running_requests), row.kv_cache_usage, capacity];
        assert_eq!(told, expected, "{name}");
    }

    // After a restart of some servers.
    world.fleet.unfreeze();
    for name in ["vllm", "sglang", "triton", "mlc", "dynamo"] {
        world.fleet.restart_pod("prod", &format!("{name}-0")).await.unwrap();
    }
    world.fleet.freeze();
    let frozen = now();
    eventually("only what came after the restart is in both windows", WINDOW * 3, || async {
        world.scrapes(1).await;
        frozen.elapsed() > WINDOW + Duration::from_secs(2)
    })
    .await;
    compare_replicas(&direct, &asked, "after a restart").await;
    direct.stop_background_worker().await;
}

/// Pages at moments that no simulated fleet has, of vLLM unless the pod is named after another server.
fn page(pod: &str, since: Duration) -> String {
    let seconds = since.as_secs_f64();
    let config = |engine: u32| {
        format!(
            "vllm:cache_config_info{{model_name=\"odd\",engine=\"{engine}\",block_size=\"16\",num_gpu_blocks=\"100\"}} 1\n"
        )
    };
    let gauges = |engine: u32| {
        let labels = format!("{{model_name=\"odd\",engine=\"{engine}\"}}");
        format!(
            "vllm:num_requests_waiting{labels} 4\nvllm:num_requests_running{labels} 3\n\
             vllm:kv_cache_usage_perc{labels} 0.5\n{}",
            config(engine)
        )
    };
    let finished = |engine: u32, reason: &str, count: f64| {
        format!(
            "vllm:request_success_total{{model_name=\"odd\",engine=\"{engine}\",finished_reason=\"{reason}\"}} {count}\n"
        )
    };
    match pod {
        // One series of a sum goes, the others go on.
        "vanishing" => {
            let length = if seconds < 20.0 { finished(0, "length", 1e6) } else { String::new() };
            gauges(0) + &finished(0, "stop", (4.0 * seconds).floor()) + &length
        }
        // Its older releases count requests, and none of their tokens.
        "dynamo" => {
            let requests = |status: &str, count: f64| {
                let labels = format!("{{model=\"odd/dynamo\",status=\"{status}\"}}");
                format!("dynamo_frontend_requests_total{labels} {count}\n")
            };
            let failed = if seconds < 20.0 { requests("error", 1e6) } else { String::new() };
            "dynamo_frontend_inflight_requests{model=\"odd/dynamo\"} 9\n\
             dynamo_frontend_queued_requests{model=\"odd/dynamo\"} 4\n"
                .to_owned()
                + &requests("success", (4.0 * seconds).floor())
                + &failed
        }
        "triton" => {
            let of_version = |version: u8, count: f64| {
                let labels = format!("{{model=\"odd-triton\",version=\"{version}\"}}");
                format!("nv_inference_request_success{labels} {count}\n")
            };
            let unloaded = if seconds < 20.0 { of_version(1, 1e6) } else { String::new() };
            "nv_inference_pending_request_count{model=\"odd-triton\",version=\"2\"} 4\n".to_owned()
                + &of_version(2, (4.0 * seconds).floor())
                + &unloaded
        }
        "mlc" => {
            let prompts = if seconds < 20.0 { "prompt_tokens_sum 7000\n" } else { "" };
            let tokens = (400.0 * seconds).floor();
            format!(
                "engine_prefill_time_sum 3\nengine_decode_time_sum 9\n\
                 completion_tokens_sum {tokens}\n{prompts}"
            )
        }
        // The second rank's process has never had a request, so that its gauges were never written.
        "idle-rank" => {
            gauges(0)
                + &config(1)
                + &finished(0, "stop", (4.0 * seconds).floor())
                + &finished(1, "stop", 0.0)
        }
        _ => {
            gauges(0)
                + "vllm:engine_sleep_state{model_name=\"odd\",engine=\"0\",sleep_state=\"awake\"} 0\n\
                   vllm:engine_sleep_state{model_name=\"odd\",engine=\"0\",sleep_state=\"weights_offloaded\"} 1\n\
                   vllm:engine_sleep_state{model_name=\"odd\",engine=\"0\",sleep_state=\"discard_all\"} 0\n"
                + &finished(0, "stop", 7.0)
        }
    }
}

/// The pods, each with its model as it is asked for. The page of the last names none.
const ODD_PODS: [(&str, &str); 6] = [
    ("asleep", "odd"),
    ("idle-rank", "odd"),
    ("vanishing", "odd"),
    ("dynamo", "Odd/Dynamo"),
    ("triton", "odd-triton"),
    ("mlc", "odd-mlc"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_moments_are_read_alike_by_both_backends() {
    let server = MockServer::start().await;
    let since: Instant = now();
    for (pod, _) in ODD_PODS {
        Mock::given(path(format!("/{pod}")))
            .respond_with(move |_: &wiremock::Request| {
                ResponseTemplate::new(200).set_body_raw(page(pod, since.elapsed()), "text/plain")
            })
            .mount(&server)
            .await;
    }
    let jobs = ODD_PODS.iter().fold(String::new(), |mut text, (pod, _)| {
        let _ = write!(
            text,
            "- job_name: {pod}\n  metrics_path: /{pod}\n  static_configs:\n  - targets: ['{}']\n    \
             labels: {{ namespace: prod, pod: {pod} }}\n",
            server.address()
        );
        text
    });
    let yaml = format!("global: {{ scrape_interval: 1s }}\nscrape_configs:\n{jobs}");
    let Some(prometheus) = PrometheusServer::start_with_or_skip(&yaml).await else { return };
    let targets = ODD_PODS.map(|(pod, model)| {
        let model = if pod == "mlc" { format!(", model = {model:?}") } else { String::new() };
        format!(
            "{{ url = \"http://{}/{pod}\", namespace = \"prod\", pod = {pod:?}{model} }}",
            server.address()
        )
    });
    let variants = ODD_PODS.map(|(pod, model)| {
        format!(
            "[[variants]]\nname = {pod:?}\nnamespace = \"prod\"\nmodel = {model:?}\npods = {pod:?}\n"
        )
    });
    let direct = collector(&format!(
        "backend = \"epp\"\n[epp]\nscrape_interval = \"1s\"\nwindow = \"10s\"\ntargets = [{}]\n{}",
        targets.join(", "),
        variants.concat()
    ));
    let asked = collector(&format!(
        "backend = \"prometheus\"\n[prometheus]\nurl = {:?}\nallow_http = true\nscrape_interval = \"1s\"\n\
         window = \"10s\"\n[[prometheus.models]]\nselector = 'pod=\"mlc\"'\nmodel = \"odd-mlc\"\n{}",
        prometheus.url(),
        variants.concat()
    ));
    direct.start_background_worker().await.unwrap();
    eventually("the vanished series is within both windows", WINDOW * 3, || async {
        since.elapsed() > Duration::from_secs(24)
    })
    .await;
    let mut differences = Differences::default();
    let mut rows = Vec::new();
    for id in ["odd", "Odd/Dynamo", "odd-triton", "odd-mlc"] {
        let one = direct.collect_replica_metrics(&ModelRef::new(id, "prod")).await.unwrap();
        let other = asked.collect_replica_metrics(&ModelRef::new(id, "prod")).await.unwrap();
        let (one, other) = (&one.value().replicas, &other.value().replicas);
        differences.same(&format!("{id}: rows"), one.len(), other.len());
        for (one, other) in one.iter().zip(other) {
            differences.replica(one, other);
        }
        rows.extend(one.iter().cloned());
    }
    let mut arrivals = Vec::new();
    for (pod, id) in ODD_PODS {
        let id = ModelRef::new(id, "prod");
        let one = direct.collect_allocation(&id, &pod.into()).await.unwrap();
        let other = asked.collect_allocation(&id, &pod.into()).await.unwrap();
        differences.load(one.value(), other.value());
        differences.same(pod, one.value().num_sleeping, other.value().num_sleeping);
        arrivals.push(one.value().load.arrival_rate);
    }
    assert!(differences.0.is_empty(), "{}", differences.0.join("\n"));
    // And both are right: 4 requests a second, whatever vanishes beside them.
    let [.., vanishing, dynamo, triton, mlc] = arrivals[..] else { panic!("{arrivals:?}") };
    for rate in [vanishing, dynamo, triton] {
        assert!(rate.is_some_and(|rate| (200.0..280.0).contains(&rate)), "{arrivals:?} a minute");
    }
    assert_eq!(mlc, None);
    let told = rows.iter().map(|row| (row.queue_length, row.running_requests));
    let [asleep, idle_rank, _, dynamo, triton, mlc] = told.collect::<Vec<_>>()[..] else {
        panic!("{} rows", rows.len())
    };
    assert_eq!(rows[0].state, ReplicaState::Sleeping);
    assert_eq!(asleep, (Some(4), Some(3)));
    assert_eq!(idle_rank, (Some(4), Some(3)));
    assert_eq!((dynamo, triton), ((Some(4), Some(5)), (Some(4), None)));
    assert_eq!(mlc, (None, None));
    direct.stop_background_worker().await;
}
