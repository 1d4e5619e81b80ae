// SPDX-License-Identifier: Apache-2.0
//! The pattern that is compared with: variant by variant, one query after the other, each answer
//! compressed, as the Workload Variant Autoscaler's own collector asks for the same fields.

use std::io::Read as _;

use anyhow::{Context as _, Result, ensure};
use collector_core::ModelRef;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// An answer, decoded as far as a collector needs it.
#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    metric: std::collections::HashMap<String, String>,
    value: (f64, String),
}

/// Asks for everything about these models, and tells how many rows there were.
pub(super) async fn refresh(server: &str, models: &[ModelRef]) -> Result<usize> {
    let authority = server.trim_start_matches("http://");
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let mut rows = 0;
    for model in models {
        for query in queries(model) {
            rows += ask(&mut sender, authority, &query).await.with_context(|| query.clone())?;
        }
    }
    driving.abort();
    Ok(rows)
}

/// 5 for a variant and 3 for its model, which is the variant's own here. Means are divided by the server.
fn queries(model: &ModelRef) -> [String; 8] {
    let of = format!(
        "{{namespace=\"{}\",model_name=\"{}\"}}",
        model.namespace.as_str(),
        model.model.as_str()
    );
    let mean = |name: &str| {
        format!("sum(rate(vllm:{name}_sum{of}[1m])) / sum(rate(vllm:{name}_count{of}[1m]))")
    };
    [
        format!("sum(rate(vllm:request_prompt_tokens_count{of}[1m]))"),
        mean("request_prompt_tokens"),
        mean("request_generation_tokens"),
        mean("time_to_first_token_seconds"),
        mean("inter_token_latency_seconds"),
        format!("max by (pod) (max_over_time(vllm:kv_cache_usage_perc{of}[1m]))"),
        format!("sum by (pod) (max_over_time(vllm:num_requests_waiting{of}[1m]))"),
        format!("sum by (pod) (vllm:num_requests_running{of})"),
    ]
}

async fn ask(
    sender: &mut SendRequest<Empty<Bytes>>,
    authority: &str,
    query: &str,
) -> Result<usize> {
    let query = url::form_urlencoded::byte_serialize(query.as_bytes()).collect::<String>();
    let request = Request::get(format!("/api/v1/query?query={query}"))
        .header(header::HOST, authority)
        .header(header::ACCEPT_ENCODING, "gzip")
        .body(Empty::new())?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    ensure!(response.status() == StatusCode::OK, "status {}", response.status());
    let zipped = response.headers().get(header::CONTENT_ENCODING).is_some_and(|it| it == "gzip");
    let body = response.into_body().collect().await?.to_bytes();
    let mut text = Vec::new();
    if zipped {
        GzDecoder::new(&*body).read_to_end(&mut text)?;
    } else {
        text.extend_from_slice(&body);
    }
    let answer: Answer = serde_json::from_slice(&text)?;
    let rows = answer.data.result.iter();
    // A collector reads every value.
    Ok(rows
        .filter(|row| {
            row.value.1.parse::<f64>().is_ok() && row.value.0 > 0.0 && row.metric.len() < 8
        })
        .count())
}
