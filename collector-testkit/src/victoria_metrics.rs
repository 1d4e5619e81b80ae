// SPDX-License-Identifier: Apache-2.0
//! A real VictoriaMetrics that holds a written history, in a temporary folder, stopped for certain.

use std::error::Error;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use hyper::Method;
use tempfile::TempDir;

use crate::history::History;
use crate::prometheus_server::{
    GUARD, Guarded, LOOK_AGAIN, READY_WITHIN, free_address, get, now, program, send, skip,
};

/// The environment variable with the path of the `victoria-metrics` program; `PATH` is searched
/// without.
pub const VICTORIA_METRICS_BIN: &str = "COLLECTOR_VICTORIA_METRICS_BIN";

type Anything = Box<dyn Error + Send + Sync>;

/// A VictoriaMetrics of its own, on a free loopback port.
///
/// It is killed when this is dropped, and when the test process ends in whatever way.
#[derive(Debug)]
pub struct VictoriaMetricsServer {
    address: SocketAddr,
    _process: Guarded,
    _folder: TempDir,
}

impl VictoriaMetricsServer {
    /// Starts a server that holds the samples of a history up to its beginning, and returns when it
    /// answers queries about them; `None`, after saying so, where no VictoriaMetrics is installed and
    /// [`REQUIRE_REAL_SERVERS`](crate::REQUIRE_REAL_SERVERS) is not `1`.
    ///
    /// # Panics
    /// When the server cannot be started, or is required and not installed.
    pub async fn start_over_or_skip(history: &History) -> Option<Self> {
        let Some(program) = program(VICTORIA_METRICS_BIN, "victoria-metrics") else {
            skip(&format!(
                "no `victoria-metrics` program: install it with `apt-get install victoria-metrics`, or \
                 set {VICTORIA_METRICS_BIN} to its path"
            ));
            return None;
        };
        let start = async {
            let folder = tempfile::Builder::new().prefix("collector-victoria-").tempdir()?;
            let address = free_address()?;
            let process = Command::new("sh")
                .args(["-c", GUARD, "sh"])
                .arg(program)
                .arg(format!("-storageDataPath={}", folder.path().join("data").display()))
                .arg(format!("-httpListenAddr={address}"))
                .args(["-retentionPeriod=1", "-memory.allowedBytes=200MB"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            let server = Self { address, _process: Guarded(process), _folder: folder };
            server.take_in(history).await?;
            Ok::<_, Anything>(server)
        };
        match start.await {
            Ok(server) => Some(server),
            Err(error) => panic!("victoria-metrics: {error}"),
        }
    }

    /// The base URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the body of an answer with status 200.
    ///
    /// # Errors
    /// When the server does not answer, or answers with another status.
    pub async fn get(
        &self,
        path: &str,
    ) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        get(self.address, path).await
    }

    async fn take_in(&self, history: &History) -> Result<(), Anything> {
        let deadline = now() + READY_WITHIN;
        while let Err(error) = get(self.address, "/health").await {
            if now() > deadline {
                return Err(format!("not ready within {READY_WITHIN:?}: {error}").into());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let text = history.text_until_now();
        send(self.address, Method::POST, "/api/v1/import/prometheus", text).await?;
        for path in ["/internal/force_flush", "/internal/resetRollupResultCache"] {
            get(self.address, path).await?;
        }
        Ok(())
    }
}
