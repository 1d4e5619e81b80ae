// SPDX-License-Identifier: Apache-2.0
//! The configuration of the demo's collector: what somebody would write who has this fleet.

use std::fmt::Write as _;

use collector_sim::{FleetSpec, Target};
use serde_json::json;

/// The configuration as TOML: of the pods at these targets, or of the Prometheus at a URL that scrapes them
/// each second. Changes are visible within seconds.
pub(super) fn configuration(
    spec: &FleetSpec,
    targets: &[Target],
    prometheus: Option<&str>,
) -> String {
    let mut toml = match prometheus {
        None => {
            let mut toml = "backend = \"scrape\"\n\n[scrape]\nscrape_interval = \"500ms\"\n\
                            window = \"30s\"\ntargets = [\n"
                .to_owned();
            for Target { address, namespace, pod, .. } in targets {
                let url = format!("http://{address}/metrics");
                // Strings of JSON are strings of TOML.
                let _ = writeln!(
                    toml,
                    "  {{ url = {}, namespace = {}, pod = {} }},",
                    json!(url),
                    json!(namespace),
                    json!(pod)
                );
            }
            toml + "]\n"
        }
        Some(url) => format!(
            "backend = \"prometheus\"\n\n[prometheus]\nurl = {}\nallow_http = true\n\
             timeout = \"800ms\"\nscrape_interval = \"1s\"\nwindow = \"15s\"\n",
            json!(url)
        ),
    };
    toml.push_str("\n[cache]\nttl = \"2s\"\nfetch_interval = \"1s\"\n");
    for variant in &spec.variants {
        let _ = write!(
            toml,
            "\n[[variants]]\nname = {name}\nnamespace = {namespace}\nmodel = {model}\n\
             accelerator = \"H100\"\npods = {pods}\nmax_batch = {max_batch}\n",
            name = json!(variant.name),
            namespace = json!(variant.namespace),
            model = json!(variant.model),
            pods = json!(format!("{}-*", variant.name)),
            max_batch = variant.engine.max_num_seqs,
        );
    }
    toml
}
