// SPDX-License-Identifier: Apache-2.0
//! What the page asks for.

use super::*;

impl Fixture {
    async fn changes(&self, after: &Value) -> Value {
        let query = after.as_str().map_or_else(String::new, |after| format!("?after={after}"));
        // What is asked for again within half a second is not made again.
        tokio::time::advance(Duration::from_millis(600)).await;
        let answer = self.get(&format!("/page/changes{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    async fn fetch(&self) {
        self.collector.invalidate_cache(&model());
        let _ = self.collector.collect_replica_metrics(&model()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_has_changed_is_sent_again() {
    let fixture = Fixture::new();
    fixture.fetch().await;
    let first = fixture.changes(&Value::Null).await;
    let row = json!({
        "status": "fresh", "partial": false, "replicas": 2, "queue": 2, "kv": 0.25, "rate": 60.0,
    });
    let models = json!([
        {"id": 0, "age": 0.6, "model": "org/m", "namespace": "prod", "row": row},
    ]);
    assert_eq!((&first["all"], &first["models"]), (&json!(true), &models));

    let second = fixture.changes(&first["version"]).await;
    assert_eq!((&second["all"], &second["models"]), (&json!(false), &json!([])));

    // A newer sample of the same values: its age alone.
    fixture.fetch().await;
    let third = fixture.changes(&second["version"]).await;
    assert_eq!(third["models"], json!([{"id": 0, "age": 0.6}]));

    fixture.backend.serve_pods(&model(), &["m-0", "m-1", "m-2"]);
    fixture.fetch().await;
    let fourth = fixture.changes(&third["version"]).await;
    assert_eq!(fourth["models"][0]["row"]["replicas"], 3);
    assert_eq!(fourth["models"][0].get("model"), None);

    // Another page gets everything, and so does one that another process answered before.
    for before in [Value::Null, json!("1-3"), json!("x")] {
        let whole = fixture.changes(&before).await;
        assert_eq!((&whole["all"], &whole["models"][0]["model"]), (&json!(true), &json!("org/m")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_null_with_its_reason() {
    let fixture = Fixture::new();
    let waiting = fixture.changes(&Value::Null).await;
    assert_eq!(waiting["models"][0]["age"], Value::Null);
    assert_eq!(waiting["models"][0]["row"]["status"], "pending");
    assert_eq!(waiting["models"][0]["row"]["queue"], Value::Null);

    fixture.backend.serve(&model(), |as_of| {
        let mut known = ReplicaMetrics::new("m-0", as_of);
        known.queue_length = Some(3);
        let unknown = ReplicaMetrics::new("m-1", as_of);
        ModelSample::new(as_of, vec![known, unknown])
    });
    fixture.fetch().await;
    let row = &fixture.changes(&Value::Null).await["models"][0]["row"];
    // Three and unknown are not three.
    assert_eq!(row["queue"], Value::Null);
    let why = row["why"]["queue"].as_str().unwrap();
    assert!(why.starts_with("1 of 2 replicas without it"), "{row}");
    assert!(row["why"]["rate"].is_string() && row["why"]["kv"].is_string(), "{row}");
}

#[tokio::test(start_paused = true)]
async fn a_row_without_a_reading_changes_with_its_reason_alone() {
    let fixture = Fixture::new();
    fixture.fetch().await;
    fixture.backend.fail(ErrorKind::Connect);
    tokio::time::advance(Duration::from_secs(400)).await;
    let first = fixture.changes(&Value::Null).await;
    assert_eq!(first["models"][0]["row"]["status"], "unavailable", "{first}");
    assert!(first["models"][0]["age"].as_f64().unwrap() > 400.0);
    let second = fixture.changes(&first["version"]).await;
    assert_eq!(second["models"], json!([]));
    // Its age is still the age of the sample.
    let again = fixture.changes(&Value::Null).await;
    assert!(again["models"][0]["age"].as_f64().unwrap() > 401.0, "{again}");
}

#[tokio::test(start_paused = true)]
async fn a_model_is_opened_by_its_id() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get("/page/model?id=0").await.status, StatusCode::NOT_FOUND);
    fixture.fetch().await;
    fixture.changes(&Value::Null).await;
    let opened = fixture.get("/page/model?id=0").await.json();
    assert_eq!(opened["replicas"]["replicas"][0]["podName"], "m-0");
    assert_eq!(opened["allocations"][0]["variant"], "m-h100");
    assert_eq!(opened["pace"]["ttlSeconds"], 30.0);
    assert_eq!(fixture.get("/page/model?id=1").await.status, StatusCode::NOT_FOUND);
    for wrong in ["/page/model", "/page/model?id=x", "/page/model?model=x"] {
        assert_eq!(fixture.get(wrong).await.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_file_of_the_page_may_run_or_load_anything_else() {
    let fixture = Fixture::new();
    let page = fixture.get("/").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    for inline in ["style=", "<style", " onclick", "javascript:", "http"] {
        assert!(!page.text.contains(inline), "{inline}");
    }
    let quoted: Vec<&str> = page.text.split('"').collect();
    let files: Vec<_> = quoted.iter().filter(|it| it.starts_with("page/")).collect();
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        let answer = fixture.get(&format!("/{file}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{file}");
        assert!(answer.headers.contains_key("content-security-policy"), "{file}");
    }
}
