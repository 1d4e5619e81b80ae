// SPDX-License-Identifier: Apache-2.0
//! Reads the replicas of a model from a Prometheus, with everything set in code.
//!
//! ```text
//! cargo run -p inference-collector --example embed -- http://localhost:9090 Qwen/Qwen3-32B chat
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it reads")]

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use collector::prelude::*;
use collector::prometheus::{PrometheusBackend, PrometheusConfig};

/// What a server says of a model, as text.
pub(crate) async fn read(url: &str, model: &ModelRef) -> Result<String, Box<dyn Error>> {
    let server = PrometheusConfig {
        url: url.to_owned(),
        // A server without TLS, as in a cluster of one's own.
        allow_http: true,
        ..PrometheusConfig::default()
    };
    let backend = PrometheusBackend::new(server, Arc::new(SystemClock::new()))?;
    let cache = CacheConfig { fetch_interval: Duration::from_secs(15), ..CacheConfig::default() };
    let collector = CachingCollector::with_config(backend, cache)?;
    // From here on, models that are read are refreshed in the background.
    collector.start_background_worker().await?;

    let mut text = String::new();
    match collector.collect_replica_metrics(model).await {
        Ok(reading) => {
            // The same value again comes from memory.
            writeln!(text, "{}, {:?} old", reading.freshness(), reading.age())?;
            for replica in &reading.value().replicas {
                // `None` is "not measured", never 0.
                writeln!(text, "{}: queue {:?}", replica.pod_name, replica.queue_length)?;
            }
        }
        // The server was asked and has no such model; another error is a server that cannot be asked.
        Err(CollectError::Missing { .. }) => writeln!(text, "no metrics of {model}")?,
        Err(error) => return Err(error.into()),
    }
    collector.stop_background_worker().await;
    Ok(text)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, model, namespace] = arguments.as_slice() else {
        return Err("usage: embed URL MODEL NAMESPACE".into());
    };
    print!("{}", read(url, &ModelRef::new(model.as_str(), namespace.as_str())).await?);
    Ok(())
}
