// SPDX-License-Identifier: Apache-2.0
//! `GET /api/v1/events`.

use std::collections::VecDeque;

use futures_util::StreamExt as _;

use super::*;

/// After this a model that nobody reads is no longer tracked.
const IDLE: Duration = Duration::from_secs(400);

/// A client of the events.
struct Client {
    body: axum::body::BodyDataStream,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Client {
    /// The next event; heartbeats are left out. `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        while self.events.is_empty() {
            let part = self.part().await?;
            self.events.extend(part.split_terminator("\n\n").filter_map(Event::parse));
        }
        self.events.pop_front()
    }

    async fn part(&mut self) -> Option<String> {
        let part = self.body.next().await?.unwrap();
        Some(String::from_utf8(part.to_vec()).unwrap())
    }

    /// Whether nothing comes for a time but heartbeats.
    async fn is_silent_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.next()).await.is_err()
    }
}

impl Event {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let lines = text.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next()
        };
        Some(Self {
            name: field("event")?,
            id: field("id").unwrap_or_default(),
            data: serde_json::from_str(&field("data")?).unwrap(),
        })
    }
}

impl Fixture {
    async fn listen(&self, uri: &str, last_id: Option<&str>) -> Client {
        let mut request = Request::get(uri);
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer("127.0.0.1".parse().unwrap()));
        let answer = Front::new(Arc::clone(&self.app)).answer(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Client { body: answer.into_body().into_data_stream(), events: VecDeque::new() }
    }

    /// A client that knows the models of now.
    async fn listening(&self) -> (Client, Event) {
        let mut client = self.listen("/api/v1/events", None).await;
        let reset = client.next().await.unwrap();
        assert_eq!((&*reset.name, &reset.data["models"]), ("reset", &json!(1)));
        let known = client.next().await.unwrap();
        assert_eq!(known.name, "model");
        (client, known)
    }

    async fn sample(&self) {
        self.collector.invalidate_cache(&model());
        self.collector.collect_replica_metrics(&model()).await.unwrap();
    }

    /// A newer sample of the model.
    async fn change(&self) {
        tokio::time::advance(Duration::from_secs(1)).await;
        self.sample().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_listener_gets_each_model_and_then_each_change_of_it() {
    let fixture = Fixture::new();
    fixture.sample().await;
    let (mut client, first) = fixture.listening().await;
    let list = fixture.get("/api/v1/replicas").await.json();
    assert_eq!(first.data["replicas"], list["items"][0]);
    assert_eq!(first.data["allocations"][0]["variant"], "m-h100");

    fixture.change().await;
    let second = client.next().await.unwrap();
    let generation = |event: &Event| event.data["replicas"]["generation"].as_u64().unwrap();
    assert!(generation(&second) > generation(&first), "{second:?}");
    assert_eq!(second.data["allocations"][0]["generation"], generation(&second));
    let (_, number) = second.id.split_once('-').unwrap();
    assert!(number.parse::<u64>().unwrap() > generation(&second));

    let other = ModelRef::new("org/other", "dev");
    fixture.backend.serve_pods(&other, &["o-0"]);
    fixture.collector.collect_replica_metrics(&other).await.unwrap();
    assert_eq!(client.next().await.unwrap().data["model"], "org/other");
}

#[tokio::test(start_paused = true)]
async fn a_sample_that_is_fetched_again_is_no_event_and_a_status_that_changes_by_age_is() {
    let fixture = Fixture::new();
    let at = fixture.app.clock.now();
    fixture
        .backend
        .serve(&model(), move |_| ModelSample::new(at, vec![ReplicaMetrics::new("m-0", at)]));
    fixture.collector.start_background_worker().await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let (mut client, first) = fixture.listening().await;
    let sampled_at = &first.data["replicas"]["sampledAt"];
    assert!(client.is_silent_for(Duration::from_secs(59)).await);

    let stale = client.next().await.unwrap();
    assert_eq!(stale.data["replicas"]["status"], "stale", "{stale:?}");
    assert_eq!(stale.data["replicas"]["generation"], first.data["replicas"]["generation"]);
    assert_eq!(stale.data["replicas"]["sampledAt"], *sampled_at);
    assert!(client.is_silent_for(Duration::from_secs(238)).await);
    let unavailable = client.next().await.unwrap();
    assert_eq!(unavailable.data["replicas"]["error"]["reason"], "MetricsStale");
    assert!(client.is_silent_for(IDLE).await);
    assert!(fixture.backend.fetches() > 10);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_comes_back_gets_what_it_missed_and_no_more() {
    let fixture = Fixture::new();
    fixture.sample().await;
    let other = ModelRef::new("org/other", "dev");
    fixture.backend.serve_pods(&other, &["o-0"]);
    fixture.collector.collect_replica_metrics(&other).await.unwrap();
    let mut client = fixture.listen("/api/v1/events", None).await;
    assert_eq!(client.next().await.unwrap().data["models"], 2);
    client.next().await.unwrap();
    let last = client.next().await.unwrap().id;
    drop(client);

    fixture.change().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (uri, id) in
        [("/api/v1/events?from=1", Some(&*last)), (&*format!("/api/v1/events?from={last}"), None)]
    {
        let mut client = fixture.listen(uri, id).await;
        let missed = client.next().await.unwrap();
        assert_eq!((&*missed.name, &missed.data["model"]), ("model", &json!("org/m")));
        assert!(client.is_silent_for(Duration::from_secs(20)).await);
    }

    let (process, number) = last.split_once('-').unwrap();
    let ids = [
        // Another replica may have given the same number to another change.
        format!("ffffffff-{number}"),
        number.to_owned(),
        format!("{process}-1"),
        format!("{process}-{}", u64::MAX),
        "nonsense".to_owned(),
    ];
    for id in ids {
        let mut client = fixture.listen("/api/v1/events", Some(&id)).await;
        let reset = client.next().await.unwrap();
        assert_eq!((&*reset.name, &reset.data["reason"]), ("reset", &json!("unknownId")));
        assert_eq!(client.next().await.unwrap().name, "model");
        assert_eq!(client.next().await.unwrap().name, "model");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_listener_gets_the_newest_state_alone() {
    let fixture = Fixture::new();
    fixture.sample().await;
    let (mut client, _) = fixture.listening().await;
    for _ in 0..10 {
        fixture.change().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let newest = fixture.get("/api/v1/replicas").await.json();
    let event = client.next().await.unwrap();
    assert_eq!(event.data["replicas"]["generation"], newest["items"][0]["generation"]);
    assert!(client.is_silent_for(Duration::from_secs(10)).await);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_untracked_is_removed() {
    let fixture = Fixture::new();
    let other = ModelRef::new("org/other", "dev");
    fixture.backend.serve_pods(&other, &["o-0"]);
    let (mut client, _) = fixture.listening().await;
    fixture.collector.collect_replica_metrics(&other).await.unwrap();
    assert_eq!(client.next().await.unwrap().data["model"], "org/other");
    fixture.collector.start_background_worker().await.unwrap();
    let removed = loop {
        let event = client.next().await.unwrap();
        if event.name != "model" {
            break event;
        }
    };
    assert_eq!((&*removed.name, &removed.data["model"]), ("removed", &json!("org/other")));
}

#[tokio::test(start_paused = true)]
async fn who_comes_from_too_far_back_starts_anew() {
    let fixture = Fixture::with(open_access(), 5000);
    fixture.sample().await;
    let (mut client, first) = fixture.listening().await;
    let many: Vec<_> =
        (0..1100).map(|number| ModelRef::new(format!("org/{number}"), "dev")).collect();
    for model in &many {
        fixture.backend.serve_pods(model, &["o-0"]);
        fixture.collector.collect_replica_metrics(model).await.unwrap();
    }
    fixture.collector.start_background_worker().await.unwrap();
    tokio::time::sleep(IDLE).await;
    assert_eq!(fixture.collector.tracked().len(), 1);
    let reset = client.next().await.unwrap();
    assert_eq!((&*reset.name, &reset.data["reason"]), ("reset", &json!("tooFarBack")));
    let mut client = fixture.listen("/api/v1/events", Some(&first.id)).await;
    assert_eq!(client.next().await.unwrap().data["reason"], "tooFarBack");
    for _ in 0..4 {
        let event = client.next().await.unwrap();
        assert_eq!((&*event.name, &event.data["model"]), ("model", &json!("org/m")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_takes_the_place_of_another_changes_nothing_and_goes_on() {
    let fixture = Fixture::new();
    fixture.sample().await;
    let (mut client, first) = fixture.listening().await;
    let next = Fixture::new();
    next.collector.take_over(&fixture.collector);
    fixture.app.events.follow(&next.collector, next.app.loaded.config.cache.freshness);
    let kept = next.get("/api/v1/replicas").await.json();
    assert_eq!(kept["items"][0]["generation"], first.data["replicas"]["generation"]);
    assert!(client.is_silent_for(Duration::from_secs(20)).await);
    next.change().await;
    let event = client.next().await.unwrap();
    assert!(
        event.data["replicas"]["generation"].as_u64() > kept["items"][0]["generation"].as_u64()
    );
}

#[tokio::test(start_paused = true)]
async fn listeners_are_bounded_and_end_with_the_server() {
    let fixture = Fixture::new();
    let mut clients = Vec::new();
    for _ in 0..256 {
        clients.push(fixture.listen("/api/v1/events", None).await);
    }
    let refused = fixture.get("/api/v1/events").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.reason(), "TooManyListeners");
    clients.truncate(1);
    let mut client = fixture.listen("/api/v1/events", None).await;

    while client.part().await.unwrap() != ":\n\n" {}
    fixture.lifecycle.send_replace(Lifecycle::Stopping);
    assert!(client.part().await.is_none());
}
