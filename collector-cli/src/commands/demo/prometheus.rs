// SPDX-License-Identifier: Apache-2.0
//! A real Prometheus for the demo: started on a free port in a folder of its own, stopped with it.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use collector_sim::{FleetServer, Target};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::exit::Failure;

/// How long it may take to start and to have scraped twice.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running Prometheus that scrapes a fleet each second.
pub(super) struct Prometheus {
    url: String,
    child: Child,
    // Removed when dropped, after the process has gone.
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it and waits until it answers.
    pub(super) async fn start(fleet: &FleetServer) -> Result<Self, Failure> {
        let folder = tempfile::tempdir().map_err(|error| cannot(&error))?;
        let address = free_address().map_err(|error| cannot(&error))?;
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, configuration(&fleet.targets())).map_err(|error| cannot(&error))?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::other(
                "prometheus is not installed: install it (Debian: apt-get install prometheus), or \
                 leave --backend out",
            ),
            _ => cannot(&error),
        })?;
        let mut prometheus = Self { url: format!("http://{address}"), child, _folder: folder };
        prometheus.wait_until_it_listens(&address).await?;
        Ok(prometheus)
    }

    /// Where it answers.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    async fn wait_until_it_listens(&mut self, address: &str) -> Result<(), Failure> {
        let started = Instant::now();
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Failure::other(format!("prometheus ended at once: {status}")));
            }
            if started.elapsed() > PATIENCE {
                return Err(Failure::other(format!(
                    "prometheus does not listen on {address} after {PATIENCE:?}"
                )));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

fn cannot(error: &io::Error) -> Failure {
    Failure::other(format!("cannot start prometheus: {error}"))
}

/// An address that is free now. If another process takes it first, Prometheus ends at once, which is reported.
fn free_address() -> io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// JSON is YAML, and needs no quoting of our own.
fn configuration(targets: &[Target]) -> String {
    let scraped = targets.iter().map(|target| {
        serde_json::json!({
            "targets": [target.address.to_string()],
            "labels": {"namespace": target.namespace, "pod": target.pod},
        })
    });
    serde_json::json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "900ms"},
        "scrape_configs": [{"job_name": "demo", "static_configs": scraped.collect::<Vec<_>>()}],
    })
    .to_string()
}
