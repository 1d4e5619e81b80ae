// SPDX-License-Identifier: Apache-2.0
use super::*;

fn spec(text: &str) -> EngineSpec {
    toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn user(text: &str) -> Result<Engine, String> {
    Engines::new(&[spec(text)]).map(|all| all.all[0].clone()).map_err(|error| error.to_string())
}

fn shown(engine: &Engine, quantity: Quantity) -> Vec<String> {
    engine.alternatives(quantity).iter().map(ToString::to_string).collect()
}

fn builtin_engine(name: &str, index: usize) -> Engine {
    let engines = Engines::builtin();
    engines.iter().filter(|engine| engine.name.as_str() == name).nth(index).unwrap().clone()
}

#[test]
fn a_lost_colon_is_another_spelling_of_the_same_engine() {
    let vllm = builtin_engine("vllm", 0);
    let lost = builtin_engine("vllm", 1);
    assert_eq!(shown(&vllm, Quantity::Waiting), ["vllm:num_requests_waiting"]);
    assert_eq!(shown(&lost, Quantity::Waiting), ["vllm_num_requests_waiting"]);
    assert_eq!(lost.lora.as_deref(), Some("vllm_lora_requests_info"));
    assert_eq!(builtin_engine("tgi", 0).without_colons(), None);
}

#[test]
fn a_prefix_replaces_that_of_the_base() {
    let kserve = user("name = \"kserve\"\nbase = \"vllm\"\nprefix = \"kserve_vllm:\"").unwrap();
    assert_eq!(shown(&kserve, Quantity::Running), ["kserve_vllm:num_requests_running"]);
    assert_eq!(
        shown(&kserve, Quantity::PrefixHits)[0],
        "kserve_vllm:prefix_cache_hits_total + kserve_vllm:external_prefix_cache_hits_total?"
    );
    assert_eq!((kserve.rank_labels.len(), kserve.lora.is_some()), (1, true));
    let nim = builtin_engine("nim", 0);
    assert_eq!(shown(&nim, Quantity::Running), ["num_requests_running"]);
}

#[test]
fn labels_are_lists_and_a_singular_key_takes_one() {
    let one = user("name = \"a\"\nbase = \"vllm\"\nmodel_label = \"model\"\nrank_label = \"\"");
    let one = one.unwrap();
    assert_eq!((one.model_labels.len(), one.rank_labels.len()), (1, 0));
    let two = user("name = \"a\"\nbase = \"vllm\"\nmodel_labels = [\"m\", \"n\"]").unwrap();
    assert_eq!(two.model_labels, [Box::from("m"), Box::from("n")]);
}

#[test]
fn what_cannot_work_is_refused_with_its_reason() {
    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = user(text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    refused("name = \"\"", "its name is empty");
    refused("name = \"epp\"", "the name of the Endpoint Picker");
    refused("name = \"a\"\nbase = \"b\"", "base \"b\" is not known");
    refused("name = \"a\"\nbase = \"a\"", "is defined after it, or is itself");
    refused("name = \"a\"\nprefix = \"b\"", "prefix replaces that of a base");
    refused("name = \"a\"", "reads no series");
    refused("name = \"a\"\nmetrics.block_size = \"16\"", "reads no series");
    refused(
        "name = \"a\"\nmetrics.running = \"a / 0\"",
        "metrics.running, \"a / 0\": at character 5: expected a divisor other than 0",
    );
    refused("name = \"a\"\nmetrics.ttft_sum = \"a / b\"", "a counter may be a sum");
    let text = "name = \"a\"\nbase = \"b\"";
    let loops = [spec(text), spec("name = \"b\"\nbase = \"a\"")];
    let error = Engines::new(&loops).unwrap_err().to_string();
    assert!(error.contains("base \"b\" is defined after it"), "{error}");
}

#[test]
fn an_entry_of_the_users_overrides_and_comes_first() {
    let engines = Engines::new(&[spec("name = \"vllm\"\nmetrics.running = \"mine\"")]).unwrap();
    let of_name: Vec<_> = engines.iter().filter(|it| it.name.as_str() == "vllm").collect();
    assert_eq!(of_name.len(), 2, "as written, and without colons");
    assert_eq!(shown(of_name[0], Quantity::Running), ["mine"]);
    assert_eq!(shown(of_name[0], Quantity::Waiting), ["vllm:num_requests_waiting"]);
    assert_eq!(engines.of_user().len(), 2);
    assert_eq!(engines.iter().next().unwrap().name.as_str(), "vllm");
}

#[test]
fn partners_are_chosen_together() {
    let engine = user(
        "name = \"a\"\nmetrics.ttft_sum = [\"new_sum\", \"old_sum\"]\n\
         metrics.ttft_count = [\"new_count\", \"old_count\"]",
    )
    .unwrap();
    let chosen = |present: &[&str]| {
        let present = |series: &Series| present.contains(&&*series.name);
        let of = |quantity| engine.chosen(quantity, present).map(ToString::to_string);
        (of(Quantity::TtftSum), of(Quantity::TtftCount))
    };
    let pair = |sum: &str, count: &str| (Some(sum.to_owned()), Some(count.to_owned()));
    assert_eq!(chosen(&["new_sum", "old_sum", "old_count"]), pair("old_sum", "old_count"));
    assert_eq!(chosen(&["new_sum", "new_count", "old_sum"]), pair("new_sum", "new_count"));
    assert_eq!(chosen(&["new_sum", "old_count"]), (Some("new_sum".to_owned()), None));
    assert_eq!(chosen(&[]), (None, None));
}

#[test]
fn every_builtin_engine_reads_something_and_names_its_model() {
    for engine in Engines::builtin().iter() {
        assert!(engine.sample_names().next().is_some(), "{}", engine.name);
        assert!(!engine.model_labels.is_empty(), "{}", engine.name);
        assert!(!engine.names_model(""));
    }
    assert!(!builtin_engine("triton", 0).names_model("tensorrt_llm"));
}

#[test]
fn every_builtin_latency_has_the_buckets_of_its_histogram() {
    for engine in Engines::builtin().iter() {
        for count in Quantity::LATENCY_COUNTS {
            for (index, counted) in shown(engine, count).iter().enumerate() {
                let buckets = engine.buckets(count, index).expect(counted);
                let name = counted.strip_suffix("_count").unwrap();
                assert_eq!(&*buckets.name, format!("{name}_bucket"), "{}", engine.name);
            }
        }
    }
}

#[test]
fn a_latency_that_is_more_than_one_histogram_has_no_buckets() {
    let buckets = |sum: &str, count: &str| {
        let keys = format!("metrics.ttft_sum = '{sum}'\nmetrics.ttft_count = '{count}'");
        let engine = user(&format!("name = \"acme\"\nmodel = \"m\"\n{keys}")).unwrap();
        engine.buckets(Quantity::TtftCount, 0).map(|series| series.to_string())
    };
    let labelled = "x_bucket{a=b}".to_owned();
    assert_eq!(buckets("x_sum{a=b}", "x_count{a=b}"), Some(labelled));
    for (sum, count) in [
        ("x_sum / 1000", "x_count"),
        ("x_sum", "x_count + y_count"),
        ("y_sum", "x_count"),
        ("x_sum", "x_count{a=b}"),
        ("x_sum", "x_total"),
        ("x_sum", "x_count[le]"),
    ] {
        assert_eq!(buckets(sum, count), None, "{sum}, {count}");
    }
}
