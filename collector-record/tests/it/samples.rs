// SPDX-License-Identifier: Apache-2.0
//! Any sample that a backend may answer, with any name in each place that has one.

use std::sync::Arc;
use std::time::Duration;

use collector_core::supply::{Pod, PodState, Supply, Workload};
use collector_core::{
    Absent, EndpointPicker, EndpointPickerLoad, Field, FieldReasons, Latencies, LatencyHistogram,
    LoadRates, LoadRow, LoadRows, LoraAdapters, Mark, ModelSample, PodName, ReplicaMetrics,
    ReplicaState, Tick,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

/// A name that nothing else in a file can contain by chance.
pub(crate) fn name() -> impl Strategy<Value = String> {
    "Zq[a-z0-9/.-]{6,20}Zq"
}

fn ago(now: Tick) -> impl Strategy<Value = Tick> + Clone {
    (0_u64..10_000_000_000_000).prop_map(move |nanos| now - Duration::from_nanos(nanos))
}

fn number() -> impl Strategy<Value = Option<f64>> + Clone {
    option::of(prop_oneof![
        Just(0.0),
        0.0..1.0,
        0.0..1e12,
        any::<f64>().prop_filter("finite", |it| it.is_finite())
    ])
}

fn count() -> impl Strategy<Value = Option<u64>> + Clone {
    option::of(prop_oneof![Just(0), any::<u64>()])
}

fn reasons() -> impl Strategy<Value = FieldReasons> {
    vec((prop::sample::select(Field::ALL), name()), 0..3)
        .prop_map(|all| all.into_iter().map(|(field, text)| (field, Arc::from(text))).collect())
}

fn marks(now: Tick) -> impl Strategy<Value = Vec<Mark>> {
    vec((prop::sample::select(Field::ALL), ago(now)), 0..3).prop_map(|mut all| {
        all.sort_unstable_by_key(|(field, _)| *field);
        all.dedup_by_key(|(field, _)| *field);
        let mark = |(field, sampled_at)| Mark { field, backend: "other".into(), sampled_at };
        all.into_iter().map(mark).collect()
    })
}

fn latencies(now: Tick) -> impl Strategy<Value = Latencies> {
    let histogram = vec(any::<u32>(), 2..6).prop_map(|counts| {
        let mut bounds: Vec<f64> = (1..counts.len()).map(|bound| bound as f64 / 4.0).collect();
        bounds.push(f64::INFINITY);
        let counts: Vec<u64> = counts.into_iter().map(u64::from).collect();
        LatencyHistogram::new(bounds.into(), counts).unwrap()
    });
    (ago(now), option::of(histogram.clone()), option::of(histogram))
        .prop_map(|(at, ttft, itl)| Latencies::new(at, ttft, itl))
}

fn replica(now: Tick) -> impl Strategy<Value = ReplicaMetrics> {
    let names = (name(), option::of(name()), option::of(name()), vec(name(), 0..3), any::<bool>());
    let numbers = (
        [number(), number(), number(), number()],
        [count(), count(), count(), count(), count(), count(), count()],
    );
    (ago(now), names, numbers, option::of(latencies(now)), marks(now), reasons()).prop_map(
        |(at, names, (floats, counts), latencies, marks, reasons)| {
            let (pod, engine, role, adapters, sleeping) = names;
            let mut row = ReplicaMetrics::new(pod.as_str(), at);
            row.engine = engine.as_deref().map(Into::into);
            row.role = role.as_deref().map(Into::into);
            if !adapters.is_empty() {
                let running = adapters.into_iter().map(Into::into).collect();
                row.lora_adapters =
                    Some(Box::new(LoraAdapters { running, waiting: Vec::new(), max: Some(4) }));
            }
            if sleeping {
                row.state = ReplicaState::Sleeping;
            }
            row.latencies = latencies.map(Arc::new);
            row.marks = marks;
            row.reasons = reasons;
            [
                row.kv_cache_usage,
                row.avg_input_tokens,
                row.avg_output_tokens,
                row.prefix_cache_hit_rate,
            ] = floats;
            [
                row.queue_length,
                row.waiting_for_capacity,
                row.running_requests,
                row.kv_capacity_tokens,
                row.kv_tokens_in_use,
                row.num_gpu_blocks,
                row.block_size,
            ] = counts;
            row
        },
    )
}

fn load_row() -> impl Strategy<Value = LoadRow> {
    ([number(), number(), number(), number(), number(), number(), number()], reasons()).prop_map(
        |([requests, prompt, generated, ttft, ttfts, itl, itls], reasons)| {
            let rates = LoadRates::default()
                .with_requests(requests)
                .with_tokens(prompt, generated)
                .with_ttft(ttft, ttfts)
                .with_itl(itl, itls);
            let mut row = LoadRow::from(rates);
            row.reasons = reasons;
            row
        },
    )
}

fn load() -> impl Strategy<Value = LoadRows> {
    prop_oneof![
        Just(LoadRows::None),
        load_row().prop_map(LoadRows::Model),
        vec((name(), load_row()), 1..4).prop_map(|rows| {
            rows.into_iter().map(|(pod, row)| (PodName::from(pod.as_str()), row)).collect()
        }),
    ]
}

fn picker(now: Tick) -> impl Strategy<Value = EndpointPicker> {
    let responding = (ago(now), count(), number()).prop_map(|(at, queued, saturation)| {
        let mut load = EndpointPickerLoad::new(at);
        load.flow_control = true;
        load.queued_requests = queued;
        load.saturation.effective = saturation;
        EndpointPicker::Responding(Arc::new(load))
    });
    let silent = (option::of(ago(now)), name())
        .prop_map(|(since, reason)| EndpointPicker::silent(since, reason));
    prop_oneof![Just(EndpointPicker::None), responding, silent]
}

fn supply(now: Tick) -> impl Strategy<Value = Supply> {
    let states = [PodState::Starting, PodState::Ready, PodState::NotReady, PodState::Terminating];
    let pods = btree_map(name(), (prop::sample::select(states.to_vec()), ago(now)), 0..3);
    let pods = pods.prop_map(|pods| {
        let pod =
            |(name, (state, since)): (String, _)| Pod::new(name.as_str().into(), state, since);
        pods.into_iter().map(pod).collect::<Vec<_>>()
    });
    let workload = (option::of(name()), option::of(any::<u32>()), pods);
    let deleted = btree_map(name(), ago(now), 0..3);
    (ago(now), vec(workload, 0..3), deleted).prop_map(|(as_of, workloads, deleted)| {
        let workload = |(variant, wanted, pods): (Option<String>, _, _)| {
            Workload::new(variant.as_deref().map(Into::into), wanted, pods)
        };
        let mut supply = Supply::new(as_of, workloads.into_iter().map(workload).collect());
        supply.deleted =
            deleted.into_iter().map(|(pod, at)| (PodName::from(pod.as_str()), at)).collect();
        supply
    })
}

/// A sample that a server was asked for at most `now`.
pub(crate) fn sample(now: Tick) -> impl Strategy<Value = ModelSample> {
    let absent = prop_oneof![
        Just(Absent::None),
        Just(Absent::Unknown(None)),
        name().prop_map(|warning| Absent::Unknown(Some(warning.into()))),
        vec(name(), 1..3).prop_map(|pods| {
            Absent::Pods(pods.into_iter().map(|pod| PodName::from(pod.as_str())).collect())
        }),
    ];
    let rows = (vec(replica(now), 0..4), load(), picker(now), option::of(supply(now)));
    let texts = (reasons(), absent, vec(name(), 0..3));
    (ago(now), rows, texts, any::<bool>(), option::of(0_u64..100_000)).prop_map(
        |(
            as_of,
            (replicas, load, picker, supply),
            (failed, absent, warnings),
            lists_pods,
            window,
        )| {
            let mut sample = ModelSample::new(as_of, replicas);
            sample.load = load;
            sample.endpoint_picker = picker;
            sample.failed = failed;
            sample.absent = absent;
            sample.warnings = warnings.into_iter().map(Arc::from).collect();
            sample.lists_pods = lists_pods;
            sample.supply = supply.map(Arc::new);
            sample.window = window.map(Duration::from_millis);
            sample
        },
    )
}

/// Every name and text in a sample.
pub(crate) fn texts_of(sample: &ModelSample) -> Vec<String> {
    // Names begin and end as `name` says, and nothing else in the form for debugging does.
    let shown = format!("{sample:?}");
    let mut parts = shown.split("Zq").skip(1);
    std::iter::from_fn(|| {
        let name = parts.next()?;
        parts.next();
        Some(format!("Zq{name}Zq"))
    })
    .collect()
}
