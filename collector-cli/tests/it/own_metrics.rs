// SPDX-License-Identifier: Apache-2.0
//! `/metrics` of a daemon with everything switched on, beside its documentation, and beside the dashboards and alerts
//! that are made of it.

mod alerts;
mod dashboards;
mod documented;
mod page;
mod selected;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use collector_sim::{FleetServer, FleetSpec, Load, PickerSpec, VariantSpec};
use collector_testkit::promtool_or_skip;

use crate::faults::certificates::Authority;
use crate::faults::daemon::Daemon;
use crate::faults::fleet::Fleet;
use crate::faults::server::Server;
use crate::pods::targets;
use crate::process::collector;

/// The documentation.
const METRICS_PAGE: &str = include_str!("../../../docs/metrics.md");

/// In Unix seconds: the end of 2099, when the certificate of the scaler expires, and when the token for the server does.
const CERTIFICATE_ENDS: u64 = 4_102_358_400;
const TOKEN_ENDS: u64 = 2_000_000_000;

/// The section of the External Metrics API, if this build has it.
fn external_metrics(authority: &Authority) -> String {
    if !cfg!(feature = "kubernetes") {
        return String::new();
    }
    let folder = authority.folder().display();
    format!(
        "[external_metrics]\nenabled = true\nlisten = \"127.0.0.1:0\"\nfront_proxy_ca_path = \"{}\"\n\
         tls_cert_path = \"{folder}/cert.pem\"\ntls_key_path = \"{folder}/key.pem\"\n",
        authority.file()
    )
}

/// A daemon whose metrics are all there: both backends, pods and a picker, both doors of autoscalers.
struct Everything {
    daemon: Daemon,
    authority: Authority,
    config: String,
    _prometheus: Server,
    _fleet: FleetServer,
}

impl Everything {
    async fn start() -> Self {
        let prometheus = Server::start(|request| Fleet::default().reply(request));
        let load = Load { requests_per_minute: 3600.0, ..Load::default() };
        let fleet = FleetServer::start(FleetSpec {
            warm_up: Duration::from_secs(60),
            variants: vec![VariantSpec {
                pods: 2,
                load,
                ..VariantSpec::new("m", "org/model", "prod")
            }],
            pickers: vec![PickerSpec::new("pool", "prod")],
            ..FleetSpec::default()
        })
        .await
        .unwrap();
        let authority = Authority::new();
        let pair = authority.sign_until("localhost", 2099);
        let file = |name: &str, text: &str| authority.write(name, text).display().to_string();
        let claims = URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{TOKEN_ENDS}}}"));
        let mut config = format!(
            "backend = [\"scrape\", \"prometheus\"]\n\
             [cache]\nsnapshot_path = \"{}\"\nfetch_interval = \"2s\"\nttl = \"1s\"\nadaptive.enabled = true\nadaptive.min_ttl = \"1s\"\n\
             [[variants]]\nname = \"m\"\nnamespace = \"prod\"\nmodel = \"org/model\"\nmax_batch = 256\n\
             [server]\nlisten = \"127.0.0.1:0\"\n\
             [promql]\nenabled = true\n\
             [keda]\nlisten = \"127.0.0.1:0\"\ntls_cert_path = \"{}\"\ntls_key_path = \"{}\"\n\
             {}\
             [prometheus]\nurl = \"{}\"\nallow_http = true\ntimeout = \"500ms\"\ntoken_path = \"{}\"\n\
             [scrape]\nscrape_interval = \"300ms\"\n",
            authority.folder().join("snapshot").display(),
            file("cert.pem", &pair.cert),
            file("key.pem", &pair.key),
            external_metrics(&authority),
            prometheus.url(),
            file("token", &format!("e30.{claims}.c2ln")),
        );
        config.push_str(&targets(&fleet));
        let path = authority.write("collector.toml", &config);
        let daemon = Daemon::start_as_configured(collector().arg("--config").arg(path));
        daemon.eventually("the values that take two looks are there", |daemon| {
            let page = daemon.get("/metrics").body;
            let last = [
                "collector_cache_volatility_ratio{",
                "collector_allocation_arrival_rate_per_minute{",
                "collector_cache_snapshot_bytes ",
                "collector_epp_pool_saturation{",
            ];
            last.iter().all(|series| page.contains(series))
        });
        Self { daemon, authority, config, _prometheus: prometheus, _fleet: fleet }
    }

    /// The page, which Prometheus' own check has no complaint about.
    #[track_caller]
    fn page(&self, state: &str) -> String {
        let page = self.daemon.get("/metrics").body;
        if let Some(Err(complaints)) = promtool_or_skip(["check", "metrics"], &page) {
            panic!("{state}: {complaints}");
        }
        page
    }
}
