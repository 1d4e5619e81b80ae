//! Answers queries as a Prometheus would that scrapes one model: it looks at the names in a query
//! and not at its grammar, so that it does not care how queries are put together.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

pub(crate) const MODEL: &str = "org/model";
pub(crate) const NAMESPACE: &str = "prod";
const PODS: [&str; 2] = ["m-0", "m-1"];

/// A Prometheus with two pods of [`MODEL`], last scraped so long ago.
pub(crate) async fn with_one_model(age: Duration) -> MockServer {
    answering(move |request| {
        let query = query_of(request);
        ResponseTemplate::new(200).set_body_json(success(&rows(&query, age)))
    })
    .await
}

/// A Prometheus that scrapes nothing.
pub(crate) async fn empty() -> MockServer {
    answering(|request| {
        let query = query_of(request);
        let rows = if query == "time()" { rows(&query, Duration::ZERO) } else { vector(&[]) };
        ResponseTemplate::new(200).set_body_json(success(&rows))
    })
    .await
}

/// A server that answers everything alike.
pub(crate) async fn answering(
    answer: impl Fn(&Request) -> ResponseTemplate + Send + Sync + 'static,
) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

fn query_of(request: &Request) -> String {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let form = request.url.query().map(str::to_owned).unwrap_or_default() + "&" + &body;
    let query = form.split('&').find_map(|pair| pair.strip_prefix("query="));
    let query = query.unwrap_or_default().replace('+', " ");
    percent_encoding::percent_decode_str(&query).decode_utf8_lossy().into_owned()
}

fn success(data: &Value) -> Value {
    json!({"status": "success", "data": data})
}

fn vector(rows: &[Value]) -> Value {
    json!({"resultType": "vector", "result": rows})
}

fn rows(query: &str, age: Duration) -> Value {
    let now = wall();
    let row =
        |labels: Value, value: f64| json!({"metric": labels, "value": [now, value.to_string()]});
    if query == "time()" {
        return json!({"resultType": "scalar", "result": [now, now.to_string()]});
    }
    // Somebody else's model is not here.
    let other = |label: &str, value: &str| {
        query.contains(&format!("{label}=\"")) && !query.contains(&format!("{label}=\"{value}\""))
    };
    if other("model_name", MODEL) || other("namespace", NAMESPACE) {
        return vector(&[]);
    }
    if query.contains("__name__") {
        let names = [
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
            "vllm:kv_cache_usage_perc",
            "vllm:inter_token_latency_seconds_sum",
            "vllm:inter_token_latency_seconds_count",
            "vllm:prefix_cache_queries_total",
            "vllm:prefix_cache_hits_total",
        ];
        let of_names = names.map(|name| row(json!({"__name__": name, "what": name}), 2.0));
        let of_pods = row(json!({"what": "pod"}), 2.0);
        return vector(&[&of_names[..], &[of_pods]].concat());
    }
    if query.contains("cache_config_info") {
        let rows = PODS.map(|pod| {
            let labels = json!({
                "namespace": NAMESPACE, "pod": pod, "engine": "0",
                "num_gpu_blocks": "1000", "block_size": "16",
            });
            row(labels, 1.0)
        });
        return vector(&rows);
    }
    let value = if query.contains("timestamp(") {
        now - age.as_secs_f64()
    } else if query.contains("kv_cache_usage") {
        0.42
    } else {
        3.0
    };
    let by_pod = query.contains("pod");
    let rows = PODS.iter().take(if by_pod { 2 } else { 1 }).map(|pod| {
        let mut labels = json!({"namespace": NAMESPACE, "model_name": MODEL});
        if by_pod {
            labels["pod"] = json!(pod);
        }
        row(labels, value)
    });
    vector(&rows.collect::<Vec<_>>())
}

/// Seconds since the epoch, as Prometheus writes them.
#[expect(clippy::disallowed_methods, reason = "a server has a wall clock of its own")]
fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}
