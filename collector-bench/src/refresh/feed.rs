// SPDX-License-Identifier: Apache-2.0
//! Many pods on few pages: a Prometheus that scrapes them has the series of the whole fleet, and spends its
//! time on queries instead of on scraping.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use collector_core::ModelRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pages that the pods are spread over.
const PAGES: usize = 10;
/// Namespaces that the variants are spread over.
const NAMESPACES: usize = 40;
/// A request is a few hundred bytes.
const MAX_REQUEST_BYTES: usize = 16 << 10;

/// Serves the pages, until it is dropped.
pub(crate) struct Feed {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The model of each variant, which has one of its own.
pub(crate) fn models(variants: usize) -> Vec<ModelRef> {
    (0..variants).map(model).collect()
}

fn model(variant: usize) -> ModelRef {
    ModelRef::new(
        format!("meta-llama/Llama-3.1-8B-Instruct-{variant}"),
        format!("inference-{}", variant % NAMESPACES),
    )
}

/// Pods of a variant: 4 to 8.
fn pods(variant: usize) -> usize {
    4 + variant % 5
}

/// Pods of a fleet.
pub(crate) fn pods_of(variants: usize) -> usize {
    (0..variants).map(pods).sum()
}

impl Feed {
    pub(crate) async fn start(variants: usize) -> Result<Self> {
        Self::start_with(variants, pods).await
    }

    /// The same with so many pods of each variant.
    pub(crate) async fn start_with(variants: usize, pods: fn(usize) -> usize) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let fleet = Arc::new(Fleet { variants, pods, started: Instant::now() });
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fleet = Arc::clone(&fleet);
                tokio::spawn(async move {
                    // A scrape that is broken off is Prometheus's to report.
                    let _ = answer(stream, &fleet).await;
                });
            }
        });
        Ok(Self { address, serving })
    }

    /// What makes a Prometheus scrape all pages.
    pub(crate) fn configuration(&self, seconds: u64) -> String {
        let mut yaml = format!(
            "global: {{ scrape_interval: {seconds}s, scrape_timeout: {seconds}s }}\n\
             scrape_configs:\n\
             - job_name: fleet\n\
             \x20 honor_labels: true\n\
             \x20 static_configs:\n"
        );
        for page in 0..PAGES {
            // Writing to a string cannot fail.
            let _ = writeln!(
                yaml,
                "  - {{ targets: [\"{}\"], labels: {{ __metrics_path__: \"/{page}\", instance: \"{page}\" }} }}",
                self.address
            );
        }
        yaml
    }
}

struct Fleet {
    variants: usize,
    pods: fn(usize) -> usize,
    started: Instant,
}

async fn answer(mut stream: TcpStream, fleet: &Fleet) -> Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < MAX_REQUEST_BYTES {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let page = request.iter().skip_while(|byte| **byte != b'/').nth(1);
    let page = page.map_or(0, |digit| usize::from(digit.wrapping_sub(b'0')));
    let page = fleet.page(page);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        page.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(page.as_bytes()).await?;
    Ok(())
}

impl Fleet {
    fn page(&self, page: usize) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let mut text = String::new();
        for variant in (page..self.variants).step_by(PAGES) {
            let of = model(variant);
            for pod in 0..(self.pods)(variant) {
                let labels = format!(
                    "namespace=\"{}\",model_name=\"{}\",pod=\"variant-{variant}-{pod}\",engine=\"0\"",
                    of.namespace.as_str(),
                    of.model.as_str()
                );
                write_pod(&mut text, &labels, variant + pod, seconds);
            }
        }
        text
    }
}

/// The series that a collector asks for. A real vLLM shows some hundred more, which no query here touches.
fn write_pod(text: &mut String, labels: &str, number: usize, seconds: f64) {
    let requests = (1.0 + (number % 7) as f64) * seconds;
    for (name, value) in [
        ("kv_cache_usage_perc", (number % 100) as f64 / 100.0),
        ("num_requests_waiting", (number % 5) as f64),
        ("num_requests_running", (number % 30) as f64),
        ("request_prompt_tokens_sum", requests * 512.0),
        ("request_prompt_tokens_count", requests),
        ("request_generation_tokens_sum", requests * 128.0),
        ("request_generation_tokens_count", requests),
        ("time_to_first_token_seconds_sum", requests * 0.2),
        ("time_to_first_token_seconds_count", requests),
        ("inter_token_latency_seconds_sum", requests * 2.5),
        ("inter_token_latency_seconds_count", requests * 127.0),
        ("prefix_cache_hits_total", requests * 100.0),
        ("prefix_cache_queries_total", requests * 512.0),
    ] {
        let _ = writeln!(text, "vllm:{name}{{{labels}}} {value}");
    }
    let _ = writeln!(
        text,
        "vllm:cache_config_info{{{labels},num_gpu_blocks=\"27000\",block_size=\"16\"}} 1"
    );
}
