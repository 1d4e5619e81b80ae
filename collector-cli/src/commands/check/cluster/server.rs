// SPDX-License-Identifier: Apache-2.0
//! Whether the API server answers, and whether its clock is near ours.

use std::time::{Duration, SystemTime};

use collector_core::text::shortened;
use collector_core::{BackendError, Check, ErrorKind};

use super::super::groups::{fail, pass, warn};
use super::Asked;

/// How far clocks may be apart.
const SKEW_MAX: Duration = Duration::from_secs(5);

/// The checks of the connection, and whether it works.
pub(super) async fn connection(asked: &Asked<'_>) -> (Vec<Check>, bool) {
    const ID: &str = "cluster.connection";
    let server = match asked.cluster.api_server().await {
        Ok(server) => server,
        // It answers, and knows us: what else we may do is checked next.
        Err(error) if error.kind() == ErrorKind::Forbidden => {
            let detail = "the API server answers, and does not tell its version: forbidden (403)";
            let remedy =
                "bind the ClusterRole system:public-info-viewer, which clusters do by default";
            return (vec![warn(ID, detail).with_remedy(remedy)], true);
        }
        Err(error) => return (vec![failure(ID, &error)], false),
    };
    let address = server.address.map(|address| format!(" at {address}")).unwrap_or_default();
    let detail = format!("Kubernetes {}{address} answers", shortened(&server.version));
    let mut checks = vec![pass(ID, detail)];
    checks.extend(server.time.map(|time| clock(time, asked.settings.clock.wall())));
    (checks, true)
}

/// A check that the API server made fail.
pub(super) fn failure(id: &str, error: &BackendError) -> Check {
    let detail = match error.detail() {
        "" => format!("the API server: {}", error.kind()),
        detail => format!("the API server: {}: {detail}", error.kind()),
    };
    fail(id, detail).with_remedy(remedy(error.kind()))
}

fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Tls => {
            "certificate-authority of the kubeconfig must be the authority of this API server, and its certificate must \
             have the name or address in `server`"
        }
        ErrorKind::Unauthorized => {
            "the token or the certificate is not accepted: is it expired, or one of another cluster?"
        }
        ErrorKind::Forbidden => {
            "the credentials are accepted, and not allowed to do this: bind a role to them; docs/kubernetes.md has it"
        }
        ErrorKind::Timeout => {
            "is the API server overloaded, or does a firewall or a NetworkPolicy drop what is sent to it?"
        }
        ErrorKind::Configuration => {
            "run it as a pod with a service account, or set or correct the kubeconfig (kubernetes.kubeconfig)"
        }
        _ => "is the API server running, and is the address in the kubeconfig right?",
    }
}

fn clock(theirs: SystemTime, ours: SystemTime) -> Check {
    const ID: &str = "cluster.clock";
    let (apart, direction) = match theirs.duration_since(ours) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    if apart <= SKEW_MAX {
        // Its time is cut to seconds.
        let seconds = apart.as_secs() + 2;
        return pass(ID, format!("the API server's clock is within {seconds} s of ours"));
    }
    let detail = format!("the API server's clock is {} s {direction} ours", apart.as_secs());
    warn(ID, detail).with_remedy(
        "synchronise both with NTP: a token may count as expired, and the times of pods are shown by the server's clock",
    )
}
