// SPDX-License-Identifier: Apache-2.0
//! `POST /api/v1/read`, and the description of the API.

use super::*;

impl Fixture {
    async fn post(&self, kind: &str, body: impl Into<Body>) -> Answer {
        let body = body.into();
        let request = Request::post("/api/v1/read").header("content-type", kind);
        // As any client does.
        let request = request.header("transfer-encoding", "chunked");
        self.ask(request.body(body).unwrap(), "127.0.0.1").await
    }

    async fn read_many(&self, readings: Value) -> Answer {
        self.post("application/json", json!({ "readings": readings }).to_string()).await
    }
}

#[tokio::test(start_paused = true)]
async fn many_readings_are_answered_in_their_order_each_with_its_status_or_reason() {
    let fixture = Fixture::new();
    let wanted = |model: &str, variant: Option<&str>| {
        let mut wanted = json!({"namespace": "prod", "model": model});
        if let Some(variant) = variant {
            wanted["variant"] = variant.into();
        }
        wanted
    };
    let answer = fixture
        .read_many(json!([
            wanted("org/x", None),
            wanted("org/m", Some("m-h100")),
            wanted("org/m", None),
            wanted("org/m", Some("m-a100")),
            wanted("org/m", None),
        ]))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let list = answer.json();
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 5);
    assert_eq!((&items[0]["model"], &items[0]["namespace"]), (&json!("org/x"), &json!("prod")));
    assert_eq!(items[0]["error"]["reason"], "MetricsMissing");
    assert_eq!((&items[1]["kind"], &items[1]["numReplicas"]), (&json!("allocation"), &json!(2)));
    assert_eq!((&items[2]["kind"], &items[2]["status"]), (&json!("replicas"), &json!("fresh")));
    assert_eq!(items[3]["variant"], "m-a100");
    assert_eq!(items[3]["error"]["reason"], "MetricsMissing");
    assert_eq!(items[4]["replicas"][0]["podName"], "m-0");
    assert_eq!(fixture.read_many(json!([])).await.json()["items"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn any_other_body_is_refused_and_nothing_is_asked() {
    let fixture = Fixture::new();
    let reading = json!({"namespace": "prod", "model": "org/m"});
    let many = json!({ "readings": vec![&reading; 10_001] }).to_string();
    let of = |reading: Value| json!({ "readings": [reading] }).to_string();
    let json = "application/json";
    for (kind, body, status, reason) in [
        ("", of(reading.clone()), 415, "UnsupportedMediaType"),
        ("text/plain", of(reading.clone()), 415, "UnsupportedMediaType"),
        ("application/x-www-form-urlencoded", "a=b".to_owned(), 415, "UnsupportedMediaType"),
        (json, String::new(), 400, "BadRequest"),
        (json, "{}".to_owned(), 400, "BadRequest"),
        (json, "[]".to_owned(), 400, "BadRequest"),
        (json, "{\"readings\":[".to_owned(), 400, "BadRequest"),
        (json, "{\"readings\":[],\"reading\":[]}".to_owned(), 400, "BadRequest"),
        (json, of(json!({"namespace": "prod"})), 400, "BadRequest"),
        (json, of(json!({"namespace": "prod", "model": ""})), 400, "BadRequest"),
        (json, of(json!({"namespace": "prod", "model": "a\u{0}"})), 400, "BadRequest"),
        (json, of(json!({"namespace": "prod", "model": 1})), 400, "BadRequest"),
        (json, of(json!({"namespace": "prod", "model": "m", "pod": "x"})), 400, "BadRequest"),
        (json, many, 413, "TooLarge"),
        (json, " ".repeat(1024 * 1024 + 1), 413, "TooLarge"),
    ] {
        let short: String = body.chars().take(60).collect();
        let answer = fixture.post(kind, body).await;
        assert_eq!(answer.status.as_u16(), status, "{kind} {short}");
        assert_eq!(answer.reason(), reason, "{kind} {short}");
    }
    assert_eq!(fixture.backend.fetches(), 0);
    let largest = json!({ "readings": vec![&reading; 10_000] }).to_string();
    let answer = fixture.post("application/json; charset=utf-8", largest).await;
    assert_eq!(answer.json()["items"].as_array().unwrap().len(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let fixture = Fixture::new();
    let never = futures_util::stream::pending::<Result<String, std::io::Error>>();
    let answer = fixture.post("application/json", Body::from_stream(never)).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(answer.headers["connection"], "close");
}

#[tokio::test(start_paused = true)]
async fn so_many_requests_that_hang_do_not_pile_up() {
    // Each server has its own limit.
    let fixtures = [Fixture::new(), Fixture::new()];
    let all = fixtures.iter().map(|fixture| {
        fixture.backend.hang();
        let one = || fixture.read_many(json!([{"namespace": "prod", "model": "org/m"}]));
        futures_util::future::join_all((0..20).map(move |_| one()))
    });
    for answers in futures_util::future::join_all(all).await {
        check_that_four_are_refused(&answers);
    }
}

#[track_caller]
fn check_that_four_are_refused(answers: &[Answer]) {
    let refused = answers.iter().filter(|it| it.status == StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.clone().count(), 4);
    assert!(refused.clone().all(|answer| answer.headers.contains_key("retry-after")));
    let failed = answers.iter().filter(|answer| answer.status == StatusCode::OK);
    assert!(failed.map(Answer::json).all(|it| it["items"][0]["error"]["reason"].is_string()));
}

#[tokio::test(start_paused = true)]
async fn the_description_and_its_schemas_are_served() {
    let fixture = Fixture::new();
    let document = fixture.get("/api/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let schema = fixture.get("/api/schemas/Replicas").await.json();
    assert_eq!(schema["$ref"], "#/$defs/Replicas");
    assert!(schema["$defs"]["Replicas"]["properties"]["generation"].is_object(), "{schema}");
    assert!(!schema.to_string().contains("components/schemas"));
    let unknown = fixture.get("/api/schemas/Replica").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.text.contains("Replicas"));
}
