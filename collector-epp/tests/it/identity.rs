// SPDX-License-Identifier: Apache-2.0
//! PodIdentity a page is: several ports of one pod, several pods of one replica, one page under two names.

use collector_core::{
    Answer, Backend as _, CheckStatus, Field, ListAsk, LoadRates, ModelSample, ProbeAsk,
    ReplicaMetrics, SystemClock,
};
use collector_epp::discover::TargetSpec;

use crate::fake_pod::{FakePod, Says};
use crate::world::{answer, backend, config, failure, found, in_prod, look};

/// A page of one engine.
fn engine(rank: &str, waiting: u32, running: u32, usage: f64) -> String {
    let labels = format!("engine=\"{rank}\",model_name=\"m\"");
    format!(
        "vllm:num_requests_waiting{{{labels}}} {waiting}\n\
         vllm:num_requests_running{{{labels}}} {running}\n\
         vllm:kv_cache_usage_perc{{{labels}}} {usage}\n\
         vllm:cache_config_info{{engine=\"{rank}\",block_size=\"16\",num_gpu_blocks=\"1000\"}} 1\n\
         vllm:request_prompt_tokens_sum{{{labels}}} 500\n\
         vllm:request_prompt_tokens_count{{{labels}}} 5\n"
    )
}

fn with_rank(target: TargetSpec, rank: &str) -> TargetSpec {
    TargetSpec { rank: Some(rank.into()), ..target }
}

fn of_replica(target: TargetSpec, replica: &str) -> TargetSpec {
    TargetSpec { replica: Some(replica.into()), ..target }
}

async fn sample(targets: Vec<TargetSpec>) -> ModelSample {
    found(answer(&backend(config(targets)), "m").await)
}

fn told(row: &ReplicaMetrics) -> (&str, Option<u64>, Option<u64>, u32) {
    (row.pod_name.as_str(), row.queue_length, row.running_requests, row.servers)
}

#[tokio::test(start_paused = true)]
async fn several_ports_of_one_pod_are_servers_of_one_replica() {
    let a = FakePod::with_page(&engine("0", 5, 3, 0.25)).await;
    let b = FakePod::with_page(&engine("0", 7, 4, 0.75)).await;
    let targets = vec![with_rank(a.target("m-0"), "0"), with_rank(b.target("m-0"), "1")];
    let sample = sample(targets).await;
    let [row] = &sample.replicas[..] else { panic!("{:?}", sample.replicas) };
    assert_eq!(told(row), ("m-0", Some(12), Some(7), 2));
    assert_eq!(row.kv_cache_usage, Some(0.75));
    assert_eq!((row.total_kv_capacity_tokens(), row.tokens_in_use()), (Some(32_000), Some(16_000)));
    assert_eq!((sample.warnings.len(), sample.absent.is_none()), (0, true));
    assert_eq!(sample.load.pods().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_replica_has_the_adapters_of_all_its_servers() {
    let page = |running: &str, max: u32| {
        let labels = format!(
            "max_lora=\"{max}\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"\""
        );
        engine("0", 0, 1, 0.5) + &format!("vllm:lora_requests_info{{{labels}}} 0\n")
    };
    let adapters = async |pages: [String; 2]| {
        let [a, b] = [FakePod::with_page(&pages[0]).await, FakePod::with_page(&pages[1]).await];
        let targets = vec![with_rank(a.target("m-0"), "0"), with_rank(b.target("m-0"), "1")];
        *sample(targets).await.replicas.remove(0).lora_adapters.unwrap()
    };
    let joined = adapters([page("sql,chat", 4), page("chat,code", 4)]).await;
    let names: Vec<&str> = joined.running.iter().map(|name| &**name).collect();
    assert_eq!((names, joined.waiting.len()), (vec!["chat", "code", "sql"], 0));
    assert_eq!(joined.max, Some(4), "each batch has its own");
    assert_eq!(adapters([page("sql", 4), page("sql", 8)]).await.max, None);
}

#[tokio::test(start_paused = true)]
async fn pods_of_one_replica_add_up_by_ranks_and_equal_ranks_count_once() {
    let both = engine("0", 5, 3, 0.25) + &engine("1", 1, 1, 0.5);
    let a = FakePod::with_page(&both).await;
    let b = FakePod::with_page(&(engine("1", 9, 9, 0.5) + &engine("2", 2, 2, 0.125))).await;
    let targets = vec![of_replica(a.target("node-0"), "m"), of_replica(b.target("node-1"), "m")];
    let sample = sample(targets).await;
    let [row] = &sample.replicas[..] else { panic!("{:?}", sample.replicas) };
    assert_eq!(told(row), ("m", Some(8), Some(6), 3));
    let [warning] = &sample.warnings[..] else { panic!("{:?}", sample.warnings) };
    assert!(warning.contains("both show engine 1 of the replica m: it counts once"), "{warning}");
}

#[tokio::test(start_paused = true)]
async fn a_replica_with_a_silent_server_is_unknown_and_no_smaller_one() {
    let a = FakePod::with_page(&engine("0", 5, 3, 0.25)).await;
    let b = FakePod::with_page(&engine("0", 7, 4, 0.75)).await;
    let whole = FakePod::with_page(&engine("0", 1, 1, 0.5)).await;
    let ranks = || vec![with_rank(a.target("m-0"), "0"), with_rank(b.target("m-0"), "1")];
    let with_other = [ranks(), vec![whole.target("m-1")]].concat();
    let two = backend(config(with_other));
    found(answer(&two, "m").await);
    b.say(Says::Raw(Vec::new()));
    let sample = found(answer(&two, "m").await);
    let rows: Vec<_> = sample.replicas.iter().map(told).collect();
    assert_eq!(rows, [("m-1", Some(1), Some(1), 1)]);
    assert!(!sample.absent.is_none());
    assert_eq!(sample.absent.named(), ["m-0".into()]);
    // Where it is the only one, nothing is known of the model.
    let error = failure(&backend(config(ranks())), "m").await;
    assert!(error.to_string().contains(&b.address.to_string()), "{error}");
}

#[tokio::test(start_paused = true)]
async fn one_page_under_two_pod_names_counts_once_with_a_warning() {
    let pod = FakePod::with_page(&engine("0", 5, 3, 0.25)).await;
    let backend = backend(config(vec![pod.target("m-0"), pod.target("other")]));
    let sample = found(answer(&backend, "m").await);
    assert_eq!(
        sample.replicas.iter().map(told).collect::<Vec<_>>(),
        [("m-0", Some(5), Some(3), 1)]
    );
    let [warning] = &sample.warnings[..] else { panic!("{:?}", sample.warnings) };
    assert!(warning.contains("is a target under two pod names, m-0 and other"), "{warning}");
    let checks = backend.probe(ProbeAsk::new(&SystemClock::new())).await.unwrap().checks;
    let check = checks.iter().find(|check| check.id == "connection.duplicates").unwrap();
    assert_eq!(check.status, CheckStatus::Warn);
    assert!(check.detail.contains("two pod names"), "{}", check.detail);
}

#[tokio::test(start_paused = true)]
async fn a_list_counts_replicas_and_not_servers() {
    let a = FakePod::with_page(&engine("0", 5, 3, 0.25)).await;
    let b = FakePod::with_page(&engine("0", 7, 4, 0.75)).await;
    let targets = vec![with_rank(a.target("m-0"), "0"), with_rank(b.target("m-0"), "1")];
    let models =
        backend(config(targets)).list_models(ListAsk::new(&SystemClock::new())).await.unwrap();
    assert_eq!((models.len(), models[0].replicas), (1, Some(1)));
}

#[tokio::test(start_paused = true)]
async fn the_model_of_a_target_beats_the_page() {
    let pod = FakePod::with_page(&engine("0", 5, 3, 0.25)).await;
    let target = TargetSpec { model: Some("org/m".into()), ..pod.target("m-0") };
    let backend = backend(config(vec![target]));
    let answers = look(&backend, &[in_prod("org/m"), in_prod("m")]).await.unwrap();
    for (model, answer) in answers {
        match answer {
            Answer::Found(sample) => {
                assert_eq!(model, in_prod("org/m"));
                assert_eq!(sample.replicas[0].total_kv_capacity_tokens(), Some(16_000));
            }
            Answer::Missing { .. } => assert_eq!(model, in_prod("m")),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn prefill_and_decode_pods_count_each_request_once() {
    let page = |requests: u32, generated: u32| {
        let labels = "engine=\"0\",model_name=\"m\"";
        format!(
            "vllm:num_requests_running{{{labels}}} 1\n\
             vllm:request_prompt_tokens_sum{{{labels}}} {}\n\
             vllm:request_prompt_tokens_count{{{labels}}} {requests}\n\
             vllm:request_generation_tokens_sum{{{labels}}} {generated}\n\
             vllm:request_generation_tokens_count{{{labels}}} {requests}\n",
            requests * 100
        )
    };
    let pods = [FakePod::with_page(&page(0, 0)).await, FakePod::with_page(&page(0, 0)).await];
    let roles = ["prefill", "decode"];
    let targets = pods
        .iter()
        .zip(roles)
        .map(|(pod, role)| TargetSpec { role: Some(role.into()), ..pod.target(role) });
    let backend = backend(config(targets.collect()));
    found(answer(&backend, "m").await);
    pods[0].say(Says::Page(page(8, 8)));
    pods[1].say(Says::Page(page(8, 400)));
    let sample = found(answer(&backend, "m").await);
    let load = sample.load.pods().iter().map(|(_, load)| load.rates);
    let roles = sample.replicas.iter().map(|row| row.role.as_ref());
    let rates = LoadRates::of_roles(roles.zip(load)).unwrap();
    let load = rates.load(false);
    assert_eq!((load.avg_input_tokens, load.avg_output_tokens), (Some(100.0), Some(50.0)));
    let per_second = rates.requests.unwrap();
    assert!((0.0..=8.0).contains(&per_second), "{per_second} of 8 requests in some seconds");
}

#[tokio::test(start_paused = true)]
async fn every_answer_says_over_which_window_it_is() {
    let pod = FakePod::with_page(&engine("0", 5, 3, 0.25)).await;
    let sample = sample(vec![pod.target("m-0")]).await;
    assert_eq!(sample.window, Some(std::time::Duration::from_secs(60)));
    // Something runs and nothing has finished in the window: there is no mean.
    assert_eq!(sample.load.pods()[0].1.rates.load(false).avg_input_tokens, None);
    assert!(!sample.replicas[0].has(Field::AvgInputTokens));
}
