// SPDX-License-Identifier: Apache-2.0
//! Entity tags, lists, their pages and fields, and compression.

use std::io::Read as _;

use collector_core::VariantRef;

use super::*;

const ONE: &str = "/api/v1/replicas?model=org/m&namespace=prod";
const ALL: &str = "/api/v1/replicas";

/// A server that tracks `org/m` and these models besides it.
async fn tracking(others: &[ModelRef]) -> Fixture {
    let fixture = Fixture::with(open_access(), 1000);
    fixture.collector.collect_replica_metrics(&model()).await.unwrap();
    for other in others {
        fixture.backend.serve_pods(other, &["o-0"]);
        fixture.collector.collect_replica_metrics(other).await.unwrap();
    }
    fixture
}

fn others() -> [ModelRef; 3] {
    [("org/a", "dev"), ("org/b", "dev"), ("org/z", "prod")].map(|(m, n)| ModelRef::new(m, n))
}

impl Fixture {
    async fn ask_with(&self, method: &str, uri: &str, name: &str, value: &str) -> Answer {
        let request = Request::builder().method(method).uri(uri).header(name, value);
        self.ask(request.body(Body::empty()).unwrap(), "127.0.0.1").await
    }

    async fn names(&self, uri: &str) -> (Vec<String>, Option<String>) {
        let list = self.get(uri).await.json();
        let name = |item: &Value| {
            let name = item.get("variant").unwrap_or(&item["model"]);
            name.as_str().unwrap().to_owned()
        };
        let names = list["items"].as_array().unwrap().iter().map(name).collect();
        (names, list["after"].as_str().map(ToOwned::to_owned))
    }
}

fn tag_of(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn what_a_client_has_already_is_304_until_there_is_a_newer_sample_or_another_status() {
    let fixture = tracking(&others()).await;
    let allocation = "/api/v1/allocation?model=org/m&namespace=prod&variant=m-h100";
    for uri in [ONE, ALL, allocation, "/api/v1/allocation"] {
        let tag = tag_of(&fixture.get(uri).await);
        assert!(tag.starts_with("W/\""), "{tag}");
        for (method, known) in
            [("GET", &*tag), ("HEAD", &tag), ("GET", &tag[2..]), ("GET", &format!("\"x\", {tag}"))]
        {
            let answer = fixture.ask_with(method, uri, "if-none-match", known).await;
            assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{method} {uri} {known}");
            assert_eq!((&*answer.text, tag_of(&answer)), ("", tag.clone()));
        }
        let other = fixture.ask_with("GET", uri, "if-none-match", "\"x\"").await;
        assert_eq!(other.status, StatusCode::OK);
    }

    for uri in [ONE, ALL, allocation, "/api/v1/allocation"] {
        let before = tag_of(&fixture.get(uri).await);
        tokio::time::advance(Duration::from_secs(31)).await;
        fixture.collector.invalidate_cache(&model());
        fixture.collector.collect_replica_metrics(&model()).await.unwrap();
        let newer = fixture.ask_with("GET", uri, "if-none-match", &before).await;
        assert_eq!(newer.status, StatusCode::OK, "{uri}");
        let newer = tag_of(&newer);
        fixture.backend.fail(ErrorKind::Connect);
        tokio::time::advance(Duration::from_secs(90)).await;
        let stale = fixture.ask_with("GET", uri, "if-none-match", &newer).await;
        assert_eq!(stale.status, StatusCode::OK, "{uri}");
        fixture.backend.restore();
        tokio::time::advance(Duration::from_secs(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_never_304() {
    let fixture = tracking(&[]).await;
    let tag = tag_of(&fixture.get(ONE).await);
    let unknown = "/api/v1/replicas?model=org/x&namespace=prod";
    let answer = fixture.ask_with("GET", unknown, "if-none-match", "*").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    fixture.backend.fail(ErrorKind::Connect);
    tokio::time::advance(Duration::from_secs(400)).await;
    for known in ["*", &tag] {
        let answer = fixture.ask_with("GET", ONE, "if-none-match", known).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(!answer.headers.contains_key("etag"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_filtered_by_namespace_accelerator_and_variant() {
    let fixture = tracking(&others()).await;
    let models = async |query: &str| fixture.names(&format!("{ALL}?{query}")).await.0;
    assert_eq!(models("namespace=dev").await, ["org/a", "org/b"]);
    assert_eq!(models("namespace=nowhere").await, [""; 0]);
    assert_eq!(models("accelerator=H100").await, ["org/m"]);
    assert_eq!(models("accelerator=A100").await, [""; 0]);
    let allocations =
        async |query: &str| fixture.names(&format!("/api/v1/allocation?{query}")).await.0;
    assert_eq!(allocations("accelerator=H100").await, ["m-h100"]);
    assert_eq!(allocations("accelerator=A100").await, [""; 0]);
    assert_eq!(allocations("namespace=dev").await, [""; 0]);

    assert_eq!(models("variant=m-h100").await, ["org/m"]);
    assert_eq!(models("variant=m-h100&namespace=dev").await, [""; 0]);
    assert_eq!(models("variant=m-a100").await, [""; 0]);
    assert_eq!(allocations("variant=m-h100").await, ["m-h100"]);
    assert_eq!(allocations("variant=m-a100").await, [""; 0]);
    // A variant without replicas is still one of its model.
    fixture.backend.serve_pods(&model(), &[]);
    fixture.collector.invalidate_cache(&model());
    fixture.collector.collect_replica_metrics(&model()).await.unwrap();
    assert_eq!(models("variant=m-h100").await, ["org/m"]);
    assert_eq!(models("accelerator=H100").await, [""; 0]);

    // Of a model without a reading nobody knows where it runs.
    fixture.backend.fail(ErrorKind::Connect);
    tokio::time::advance(Duration::from_secs(400)).await;
    assert_eq!(models("accelerator=A100").await.len(), 4);
    assert_eq!(models("variant=m-a100").await.len(), 4);
    assert_eq!(allocations("accelerator=A100").await, ["m-h100"]);
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_variant_is_the_list_of_its_variants() {
    let fixture = tracking(&others()).await;
    let of = |model: &str| format!("/api/v1/allocation?model={model}&namespace=prod");
    let list = fixture.get(&of("org/m")).await.json();
    assert_eq!(list["items"][0]["variant"], "m-h100");
    assert_eq!(list["items"][0]["numReplicas"], 2);
    assert_eq!(fixture.names(&of("org/z")).await, (vec![], None));
    assert_eq!(fixture.get(&of("org/x")).await.status, StatusCode::NOT_FOUND);

    // A variant that nobody tracked is read.
    let variant = VariantRef { namespace: "prod".into(), name: "m-h100".into() };
    fixture.collector.stop_tracking(&variant);
    assert_eq!(fixture.names(&of("org/m")).await.0, ["m-h100"]);
}

#[tokio::test(start_paused = true)]
async fn pages_have_each_item_once_while_others_come_and_go() {
    let fixture = tracking(&others()).await;
    let (first, token) = fixture.names(&format!("{ALL}?limit=2")).await;
    assert_eq!(first, ["org/a", "org/b"]);
    // It comes before the place of the first page, and the last item of that page goes.
    let early = ModelRef::new("org/aa", "dev");
    fixture.backend.serve_pods(&early, &["o-0"]);
    fixture.collector.collect_replica_metrics(&early).await.unwrap();
    let (second, token) = fixture.names(&format!("{ALL}?limit=1&after={}", token.unwrap())).await;
    assert_eq!(second, ["org/m"]);
    let (last, token) = fixture.names(&format!("{ALL}?limit=1&after={}", token.unwrap())).await;
    assert_eq!((last, token), (vec!["org/z".to_owned()], None));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_no_longer_the_last_one_is_another_answer() {
    let fixture = tracking(&[]).await;
    let uri = format!("{ALL}?limit=1");
    let last = tag_of(&fixture.get(&uri).await);
    let later = ModelRef::new("org/z", "prod");
    fixture.backend.serve_pods(&later, &["o-0"]);
    fixture.collector.collect_replica_metrics(&later).await.unwrap();
    let answer = fixture.ask_with("GET", &uri, "if-none-match", &last).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.json()["after"].is_string());
}

#[tokio::test(start_paused = true)]
async fn pages_go_on_after_long_and_odd_names() {
    let odd = [format!("a{}", "x".repeat(3500)), "b\0c".to_owned(), "d\n\"é".to_owned()];
    let models: Vec<_> = odd.iter().map(|name| ModelRef::new(name.as_str(), "a")).collect();
    let fixture = tracking(&models).await;
    let (mut names, mut next) = fixture.names(&format!("{ALL}?limit=1")).await;
    while let Some(token) = next {
        let page = fixture.names(&format!("{ALL}?limit=1&after={token}")).await;
        names.extend(page.0);
        next = page.1;
    }
    assert_eq!(names.len(), 4);
    assert_eq!(names[..3], odd);
}

#[tokio::test(start_paused = true)]
async fn fields_are_those_that_are_wanted_and_those_that_say_what_they_are_worth() {
    let fixture = tracking(&[]).await;
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let always = ["kind", "model", "namespace", "partial", "schemaVersion", "status"];
    let of_model = ["kind", "model", "namespace", "partial", "replicas", "schemaVersion", "status"];
    for uri in [format!("{ONE}&"), format!("{ALL}?")] {
        let part = async |fields: &str| {
            let mut answer = fixture.get(&format!("{uri}fields={fields}")).await.json();
            if answer.get("items").is_some() { answer["items"][0].take() } else { answer }
        };
        let generation = part("generation").await;
        assert!(generation["generation"].is_u64());
        assert_eq!(keys(&generation).len(), always.len() + 1, "{generation}");
        let rows = part("replicas.queueLength").await;
        assert_eq!(keys(&rows), of_model);
        let row = keys(&rows["replicas"][0]);
        assert!(row.contains(&"queueLength".to_owned()) && row.contains(&"podName".to_owned()));
        assert!(!row.contains(&"kvCacheUsage".to_owned()), "{row:?}");
        let whole = part("replicas,replicas.queueLength").await;
        assert!(keys(&whole["replicas"][0]).contains(&"kvCacheUsage".to_owned()));
    }
    let refused = fixture.get(&format!("{ONE}&fields=queueLength")).await;
    assert!(refused.text.contains("sampledAt"), "{}", refused.text);
}

#[tokio::test(start_paused = true)]
async fn a_long_list_is_compressed_for_those_who_ask_and_a_short_one_never() {
    let many: Vec<_> = (0..100).map(|n| ModelRef::new(format!("org/{n}"), "dev")).collect();
    let fixture = tracking(&many).await;
    for uri in [ONE, "/api/v1/allocation"] {
        let small = fixture.ask_with("GET", uri, "accept-encoding", "gzip").await;
        assert!(!small.headers.contains_key("content-encoding"), "{uri}");
    }
    let plain = fixture.get(ALL).await;
    assert!(!plain.headers.contains_key("content-encoding"));
    let mut request =
        Request::get(ALL).header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    request.extensions_mut().insert(Peer("127.0.0.1".parse().unwrap()));
    let answer = Front::new(Arc::clone(&fixture.app)).answer(request).await.unwrap();
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    assert_eq!(answer.headers()["vary"], "accept-encoding");
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&*bytes).read_to_string(&mut text).unwrap();
    assert_eq!(text, plain.text);
    assert!(bytes.len() * 5 < text.len());
}
