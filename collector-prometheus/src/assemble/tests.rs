// SPDX-License-Identifier: Apache-2.0
//! Live pods, by the rows of the liveness query and their age.

use collector_core::{Answer, ModelRef};

use super::*;
use crate::finish::{FetchContext, finish};
use crate::promql::EvalTime;

/// The evaluation time of the fetch, in seconds of the server's clock.
const NOW: f64 = 1_732_000_000.0;

fn now() -> Tick {
    Tick::from_nanos(1 << 62)
}

fn moment() -> Moment {
    Moment { tick: now(), time: EvalTime(1_732_000_000_000) }
}

/// Two engines that scrape each 15 s, as far as is known.
fn shape() -> Shape {
    let config =
        crate::PrometheusConfig { url: "https://h".into(), ..crate::PrometheusConfig::default() };
    let mut shape = Shape::unknown(&config.terms().unwrap());
    shape.served.push(Arc::clone(&shape.served[0]));
    shape
}

fn asked(models: usize) -> Requested {
    let models: Vec<ModelRef> = (0..models).map(|i| ModelRef::new(format!("m{i}"), "n")).collect();
    Requested::new(&models)
}

fn living(model: usize, pod: &str, age: f64) -> LiveRow {
    LiveRow {
        model,
        replica: Some(pod.into()),
        rank: "0".into(),
        key: "h:1".into(),
        role: None,
        clusters: Vec::new(),
        stamp: NOW - age,
    }
}

fn alive(engine: u8, models: usize, rows: Vec<LiveRow>) -> QueryResult {
    let result =
        Ok(QueryAnswer { rows: Rows::LiveRow(rows), warning: None, at: now(), query: None });
    QueryResult { kind: QueryKind::Liveness, engine, models: (0..models).collect(), result }
}

/// The pods of the first model after these rows, each with its engine.
fn pods(answers: Vec<(u8, Vec<LiveRow>)>) -> Vec<(String, u8)> {
    let (asked, shape) = (asked(1), shape());
    let mut assembly = Assembly::new(&asked, &shape, moment());
    for (engine, rows) in answers {
        assembly.add(alive(engine, 1, rows));
    }
    assembly.settle();
    let servers = assembly.models[0].servers.as_slice();
    servers.iter().map(|it| (it.replica.to_string(), it.engine)).collect()
}

fn of_first(names: &[&str]) -> Vec<(String, u8)> {
    names.iter().map(|name| ((*name).to_owned(), 0)).collect()
}

#[test]
fn a_pod_older_than_four_scrapes_has_left_where_its_siblings_are_fresh() {
    let fleet = |ages: &[f64]| {
        let rows = ages.iter().enumerate();
        pods(vec![(0, rows.map(|(i, age)| living(0, &format!("m-{i}"), *age)).collect())])
    };
    assert_eq!(fleet(&[5.0, 5.0, 150.0]), of_first(&["m-0", "m-1"]));
    assert_eq!(fleet(&[5.0, 64.0]), of_first(&["m-0", "m-1"]), "a scrape was lost, or two");
    assert_eq!(fleet(&[5.0, 66.0]), of_first(&["m-0"]));
    assert_eq!(fleet(&[150.0, 200.0, 290.0]).len(), 3, "nobody is fresh: the server lags");
    assert_eq!(fleet(&[150.0]).len(), 1);
}

#[test]
fn a_pod_that_two_engines_read_is_the_firsts() {
    let both = vec![
        (1, vec![living(0, "m-0", 5.0), living(0, "m-1", 5.0)]),
        (0, vec![living(0, "m-0", 5.0)]),
    ];
    assert_eq!(pods(both), [("m-0".to_owned(), 0), ("m-1".to_owned(), 1)]);
}

#[test]
fn models_are_grouped_by_the_lateness_of_their_samples() {
    let (asked, shape) = (asked(5), shape());
    let mut assembly = Assembly::new(&asked, &shape, moment());
    let ages = [(0, 3.0), (1, 15.9), (2, 31.5), (3, 290.0)];
    let rows = ages.iter().map(|(model, age)| living(*model, "p-0", *age));
    // The newest sample of a model counts.
    let rows = rows.chain([living(2, "p-1", 45.0)]).collect();
    assembly.add(alive(0, 5, rows));
    assembly.settle();
    let classes = assembly.late_classes(&[0, 1, 2, 3, 4], Duration::from_secs(15), None);
    let classes: Vec<(u32, Vec<usize>)> = classes
        .into_iter()
        .map(|(late, models)| {
            let mut models: Vec<usize> = models.iter().copied().collect();
            models.sort_unstable();
            (late, models)
        })
        .collect();
    assert_eq!(classes, [(0, vec![0, 1, 4]), (2, vec![2]), (19, vec![3])]);
}

#[test]
fn rows_without_a_time_or_a_pod_make_the_fetch_incomplete() {
    let (asked, shape) = (asked(1), shape());
    let mut assembly = Assembly::new(&asked, &shape, moment());
    let nameless = LiveRow { replica: None, ..living(0, "", 1.0) };
    assembly.add(alive(0, 1, vec![living(0, "m-0", f64::NAN), nameless]));
    assembly.settle();
    assert!(assembly.models[0].incomplete && assembly.models[0].seen);
    assert!(assembly.has_unnamed_pods() && assembly.models[0].has_no_pods());
}

#[test]
fn pods_may_be_absent_if_an_engine_does_not_answer_however_often_another_does() {
    let (asked, shape) = (asked(1), shape());
    let mut assembly = Assembly::new(&asked, &shape, moment());
    for rows in [vec![], vec![living(0, "m-0", 1.0)]] {
        assembly.add(alive(0, 1, rows));
        assembly.add(QueryResult {
            result: Err(Failure::bad_answer("unreadable")),
            ..alive(1, 1, Vec::new())
        });
    }
    assembly.settle();
    let common = FetchContext {
        as_of: now(),
        evaluated_at: now(),
        url: "https://h",
        shape: &shape,
        backend: crate::NAME.into(),
    };
    let (answers, _) = finish(assembly, &common, |_| false, |_| None);
    let [(_, Answer::Found(sample))] = answers.as_slice() else { panic!("{answers:?}") };
    assert!(!sample.absent.is_none());
}

#[test]
fn several_values_of_one_cluster_label_are_ambiguous_and_one_is_not() {
    let (asked, mut shape) = (asked(1), shape());
    shape.served.truncate(1);
    let mut served = Arc::into_inner(shape.served.remove(0)).unwrap();
    served.labels.cluster = vec!["cluster".into(), "location".into()];
    shape.served.push(Arc::new(served));
    let ambiguous = |clusters: &[(usize, &str)]| {
        let mut assembly = Assembly::new(&asked, &shape, moment());
        let row = |(i, (at, value)): (usize, &(usize, &str))| LiveRow {
            clusters: vec![(*at, (*value).into())],
            ..living(0, &format!("m-{i}"), 1.0)
        };
        assembly.add(alive(0, 1, clusters.iter().enumerate().map(row).collect()));
        assembly.models[0].ambiguous().map(|failure| (failure.detail, failure.remedy.to_string()))
    };
    assert_eq!(ambiguous(&[(0, "eu"), (0, "eu"), (1, "west")]), None);
    let (detail, remedy) = ambiguous(&[(0, "us\"x"), (0, "eu")]).unwrap();
    assert!(detail.contains("label cluster") && detail.contains("\"eu\""), "{detail}");
    assert!(remedy.contains("prometheus.matchers = ['cluster=\"eu\"']"), "{remedy}");
}
