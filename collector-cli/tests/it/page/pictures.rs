// SPDX-License-Identifier: Apache-2.0
//! The pictures of the page in the docs: `cargo xtask screenshots` takes them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use collector_sim::{
    Arrivals, EngineSpec, Faults, FleetServer, FleetSpec, Load, VariantSpec, Variation,
};

use super::browser::Browser;
use super::{serve, url};
use crate::pods::targets;

/// Name, model, namespace, pods, requests a minute, KV blocks, greatest batch.
type Row = (&'static str, &'static str, &'static str, u32, f64, u32, u32);

const ROWS: [Row; 9] = [
    ("llama-8b-h100", "meta-llama/Llama-3.1-8B-Instruct", "chat", 6, 2400.0, 2000, 64),
    ("llama-8b-a100", "meta-llama/Llama-3.1-8B-Instruct", "chat", 2, 300.0, 700, 32),
    ("qwen-32b", "Qwen/Qwen3-32B", "chat", 4, 2600.0, 900, 24),
    ("qwen-coder", "Qwen/Qwen3-Coder-30B-A3B-Instruct", "code", 3, 900.0, 900, 32),
    ("mistral", "mistralai/Mistral-Small-3.2-24B-Instruct-2506", "tools", 2, 420.0, 600, 24),
    ("gpt-oss-120b", "openai/gpt-oss-120b", "chat", 8, 3600.0, 1000, 48),
    ("deepseek", "deepseek-ai/DeepSeek-V3.2", "research", 4, 160.0, 1200, 16),
    ("gemma", "google/gemma-3-27b-it", "batch", 1, 0.0, 1000, 32),
    ("embed", "BAAI/bge-m3", "search", 2, 240.0, 800, 64),
];

/// A fleet with several loads, and one model whose pods do not answer any more.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes docs/page-*.png"]
async fn the_pictures_show_the_page_as_it_is() {
    let Some(browser) = Browser::start() else { return };
    let variants =
        ROWS.iter().map(|(name, model, namespace, pods, rate, blocks, batch)| VariantSpec {
            pods: *pods,
            engine: EngineSpec {
                num_gpu_blocks: *blocks,
                max_num_seqs: *batch,
                ..EngineSpec::default()
            },
            load: Load {
                requests_per_minute: *rate,
                arrivals: Arrivals::Poisson,
                variation: Variation::Spread,
                ..Load::default()
            },
            ..VariantSpec::new(name, model, namespace)
        });
    let spec = FleetSpec {
        warm_up: Duration::from_secs(300),
        variants: variants.collect(),
        ..FleetSpec::default()
    };
    let fleet = FleetServer::start(spec).await.unwrap();
    let mut config =
        "backend = \"scrape\"\n[cache.freshness]\nfresh_threshold = \"10s\"\n".to_owned();
    for (name, model, namespace, ..) in &ROWS {
        writeln!(
            config,
            "[[variants]]\nname = {name:?}\nmodel = {model:?}\nnamespace = {namespace:?}"
        )
        .unwrap();
        writeln!(config, "pods = \"{name}-*\"\naccelerator = \"H100\"").unwrap();
    }
    let (served, _config) = serve(&(config + "[scrape]\n" + &targets(&fleet)));
    browser.hide_scroll_bars();
    browser.size(1000, 600);
    browser.open(&url(&served));
    browser.wait_for("document.querySelectorAll('#models tbody tr[id]').length === 8");
    // The lines take a minute to have a shape.
    for length in [180, 360] {
        browser.wait_for(&format!(
            "document.querySelector('.spark path').getAttribute('d').length > {length}"
        ));
    }
    for pod in 0..4 {
        let faults = Faults { vanish: true, ..Faults::default() };
        fleet.set_faults("research", &format!("deepseek-{pod}"), faults).await.unwrap();
    }
    browser.wait_for("document.querySelector('#banners').textContent.includes('no fresh reading')");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let take =
        |name: &str| fs::write(docs.join(format!("page-{name}.png")), browser.picture()).unwrap();
    browser.colours("light");
    take("list");
    browser.size(360, 600);
    take("phone");
    browser.size(800, 480);
    browser.run("document.querySelector('#internals-button').click()");
    browser.wait_for("document.querySelector('.groups dd')");
    take("internals");
    browser.run("document.querySelector('#internals-button').click()");
    browser.size(1120, 640);
    browser.colours("dark");
    let row = "[...document.querySelectorAll('#models tbody tr[id]')]
        .find(row => row.textContent.includes('Qwen3-32B'))";
    browser.wait_for(row);
    browser.run(&format!("{row}.click()"));
    browser.wait_for("document.querySelector('.facts').textContent.includes('cache.ttl')");
    take("model");
}
