// SPDX-License-Identifier: Apache-2.0
//! The live page, in a real Chromium.

#![expect(clippy::print_stderr, reason = "tests say what they skip, and what they measured")]

mod browser;
mod pictures;

use std::fmt::Write as _;
use std::fs;

use collector_sim::{Faults, FleetServer, Gauges};
use serde_json::Value;
use tempfile::NamedTempFile;

use self::browser::Browser;
use crate::faults::server::{Reply, Server};
use crate::pods::{busy_fleet, targets};
use crate::process::{Served, collector};

/// Names that try to be markup, to turn the text around them, and to be two lines.
const HOSTILE: [&str; 6] = [
    "\"quoted\" 'and' \\ `more` &amp; ${x}",
    "<img src=x onerror=document.title='hit'>",
    "</td></tr><script>document.title='hit'</script>",
    "abc\u{202e}fed\u{202c}\u{2066}",
    "zero\u{200b}width\u{feff}",
    "javascript:document.title='hit'",
];

fn serve(config: &str) -> (Served, NamedTempFile) {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), config).unwrap();
    (Served::start(collector().arg("--config").arg(file.path())), file)
}

/// `serve` on simulated pods, with a page that is refreshed at once and readings that are soon stale.
fn serve_fleet(fleet: &FleetServer) -> (Served, NamedTempFile) {
    let mut config =
        "backend = \"scrape\"\n[cache.freshness]\nfresh_threshold = \"3s\"\n".to_owned();
    config +=
        "[[variants]]\nname = \"m\"\nnamespace = \"prod\"\nmodel = \"org/model\"\npods = \"m-*\"\n";
    config += "[scrape]\nscrape_interval = \"300ms\"\n";
    serve(&(config + &targets(fleet)))
}

/// `serve` on one pod for every 200 of these names, whose page tells of all of them.
fn serve_names(names: &[String], pod_name: &str) -> (Served, NamedTempFile) {
    let mut config = "backend = \"scrape\"\n[scrape]\ntargets = [\n".to_owned();
    for (index, names) in names.chunks(200).enumerate() {
        let mut page = String::new();
        for (series, value) in [
            ("num_requests_running", 3.0),
            ("num_requests_waiting", 2.0),
            ("gpu_cache_usage_perc", 0.4),
        ] {
            writeln!(page, "# TYPE vllm:{series} gauge").unwrap();
            for name in names {
                let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                writeln!(page, "vllm:{series}{{model_name=\"{name}\"}} {value}").unwrap();
            }
        }
        let pod = Server::start(move |_| {
            Reply::status(200, page.clone()).header("Content-Type", "text/plain; version=0.0.4")
        });
        let url = pod.url();
        writeln!(
            config,
            "{{ url = \"{url}/metrics\", namespace = \"prod\", pod = \"{pod_name}-{index}\" }},"
        )
        .unwrap();
    }
    serve(&(config + "]\n"))
}

fn url(served: &Served) -> String {
    format!("http://{}/", served.address)
}

const ANSWERS: &str =
    "performance.getEntriesByType('resource').filter(it => it.name.includes('page/changes'))";
const FITS: &str = "return document.documentElement.scrollWidth <= innerWidth";
const ROWS: &str = "[...document.querySelectorAll('#models tbody tr[id]')]";

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_values_and_a_backend_that_stops_and_a_collector_that_is_gone() {
    let Some(browser) = Browser::start() else { return };
    let fleet = busy_fleet().await;
    let (served, _config) = serve_fleet(&fleet);
    browser.open(&url(&served));
    browser.wait_for("document.querySelector('td.rate')?.textContent > '0'");
    browser.wait_for("document.querySelector('td.replicas').textContent === '3'");
    assert!(browser.text("td.kv").ends_with(" %"));
    assert_eq!(browser.text("td.status"), "fresh");
    assert_eq!(browser.text("#banners"), "");

    // A value that changes is shown without a reload.
    for pod in ["m-0", "m-1", "m-2"] {
        let gauges = Gauges { waiting: 700, running: 8, kv_cache_usage: 0.75 };
        fleet.pin("prod", pod, 0, gauges).unwrap();
    }
    browser.wait_for("document.querySelector('td.queue').textContent === '2,100'");
    browser.wait_for("document.querySelector('td.kv').textContent === '75.0 %'");

    fleet.set_all_faults(&Faults { vanish: true, ..Faults::default() }).await.unwrap();
    browser.wait_for("document.querySelector('td.status').textContent.startsWith('stale')");
    browser.wait_for("document.querySelector('#banners').textContent.includes('no fresh reading')");

    let (exit, _) = served.stop("-TERM");
    assert_eq!(exit, Some(0));
    browser.wait_for(
        "document.querySelector('#banners .bad')?.textContent.startsWith('Not connected')",
    );
    browser.wait_for("document.querySelector('td.status').textContent.startsWith('was ')");
    assert!(browser.text("#banners").contains("since"), "{}", browser.text("#banners"));
    assert_eq!(browser.run("return document.body.className"), "disconnected");
    // Ages go on.
    browser.run("window.before = document.querySelector('td.age').textContent");
    browser.wait_for("document.querySelector('td.age').textContent !== window.before");
}

#[test]
fn banners_and_the_panel_say_what_is_wrong() {
    let Some(browser) = Browser::start() else { return };
    // Nothing listens there.
    let config = "[prometheus]\nurl = \"http://127.0.0.1:9\"\nallow_http = true\ntimeout = \"200ms\"\n\
                  [cache]\nfetch_interval = \"1s\"\n\
                  [[variants]]\nname = \"m\"\nnamespace = \"prod\"\nmodel = \"org/model\"\npods = \"m-*\"\n";
    let (served, file) = serve(config);
    browser.open(&url(&served));
    browser.wait_for(
        "document.querySelector('#banners').textContent.includes('The backend prometheus is down')",
    );
    browser.wait_for("document.querySelector('td.status').textContent === 'failed'");
    // Not measured is not 0, and says why.
    for cell in ["replicas", "queue", "kv", "rate", "age"] {
        assert!(browser.text(&format!("td.{cell}")).ends_with('—'), "{cell}");
        let why = browser.run(&format!("return document.querySelector('td.{cell} [title]').title"));
        // It cannot connect, or had to wait for its budget.
        assert!(why.as_str().unwrap().contains("prometheus: fetching metrics"), "{cell}: {why}");
    }
    browser
        .wait_for("document.querySelector('#banners').textContent.includes('its circuit is open')");
    browser.run("document.querySelector('#internals-button').click()");
    browser
        .wait_for("document.querySelector('#internals .groups').textContent.includes('Hit rate')");
    let panel = browser.text("#internals");
    for part in ["open, tried again in", "of 8", "a second", "Autoscalers", "Entries"] {
        assert!(panel.contains(part), "no {part:?} in {panel}");
    }

    fs::write(file.path(), format!("{config}[cache.freshness]\nfresh_threshold = 3\n")).unwrap();
    browser.wait_for("document.querySelector('#banners').textContent.includes('was not reloaded')");
    assert!(browser.text("#banners").contains("fresh_threshold"), "{}", browser.text("#banners"));
    fs::write(file.path(), config).unwrap();
    browser
        .wait_for("!document.querySelector('#banners').textContent.includes('was not reloaded')");
}

#[test]
fn it_asks_for_the_token_of_reads() {
    let Some(browser) = Browser::start() else { return };
    let token = NamedTempFile::new().unwrap();
    fs::write(token.path(), "r3ad").unwrap();
    let (served, _config) = serve(&format!(
        "[prometheus]\nurl = \"http://127.0.0.1:9\"\nallow_http = true\n\
         [server]\nread_token_path = {:?}\n",
        token.path()
    ));
    browser.open(&url(&served));
    browser.wait_for("!document.querySelector('#access').hidden");
    assert!(browser.text("#banners").contains("asks for a token"));
    browser.run("document.querySelector('#token').focus()");
    browser.keys("wrong\u{e007}");
    browser.wait_for("document.querySelector('#token').value === ''");
    browser.run("document.querySelector('#token').focus()");
    browser.keys("r3ad\u{e007}");
    browser.wait_for("document.querySelector('#connection').textContent === 'connected'");
    browser.wait_for("document.querySelector('#access').hidden");
    // As long as the tab is open.
    browser.open(&url(&served));
    browser.wait_for("document.querySelector('#connection').textContent === 'connected'");
}

#[test]
fn hostile_names_stay_text() {
    let Some(browser) = Browser::start() else { return };
    let mut names = HOSTILE.map(str::to_owned).to_vec();
    // The longest that is read.
    names.push("long".repeat(256));
    let (served, _config) = serve_names(&names, &"pod<b>".repeat(80));
    browser.open(&url(&served));
    browser.wait_for(&format!("{ROWS}.length === {}", names.len()));
    for index in 0..names.len() {
        browser.run(&format!("{ROWS}[{index}].click()"));
        browser.wait_for(&format!(
            "document.querySelector('#detail h2').textContent === {ROWS}[{index}].querySelector('.name').textContent
                && document.querySelector('#detail').textContent.includes('pod<b>pod<b>')"
        ));
    }
    let made = "return document.querySelectorAll('main img, main script, main b, iframe').length";
    assert_eq!(browser.run(made), 0);
    assert_eq!(browser.run(FITS), true);
    assert_eq!(browser.run("return document.title"), "collector");
    let names =
        browser.run(&format!("return {ROWS}.map(row => row.querySelector('.name').textContent)"));
    let names: Vec<&str> = names.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for name in
        [HOSTILE[0], HOSTILE[1], "abc\\u{202e}fed\\u{202c}\\u{2066}", "zero\\u{200b}width\\u{feff}"]
    {
        assert!(names.contains(&name), "no {name} in {names:?}");
    }
    // The collector refuses names that are longer; the page would show their beginning.
    browser.run(
        "return fetch('page/changes').then(answer => answer.json()).then(answer => {
            const row = {status: 'fresh', partial: false, replicas: 1, queue: null, kv: null, rate: null};
            const [model, namespace] = ['<b>huge</b>', '\u{202e}\"'].map(it => it.repeat(10000));
            const models = [{id: 0, age: 1, model, namespace, row}];
            const text = JSON.stringify({...answer, all: true, removed: [], models});
            window.fetch = async () => new Response(text, {headers: {'content-type': 'application/json'}});
        })",
    );
    browser.wait_for(&format!(
        "{ROWS}.length === 1 && document.querySelector('.name').textContent.length === 301"
    ));
    browser.run(&format!("{ROWS}[0].click()"));
    browser.wait_for("document.querySelector('#detail h2').textContent.startsWith('<b>huge')");
    assert_eq!(browser.run(made), 0);
    assert_eq!(browser.run(FITS), true);
    // The policy of the page refused nothing, because nothing tried.
    assert_eq!(browser.console(), Value::Array(Vec::new()));
}

#[test]
fn of_a_thousand_models_only_those_seen_are_drawn() {
    let Some(browser) = Browser::start() else { return };
    let names: Vec<String> = (0..1000).map(|it| format!("org/model-{it:04}")).collect();
    let (served, _config) = serve_names(&names, "m");
    browser.open(&url(&served));
    browser.wait_for("document.querySelector('#models').getAttribute('aria-rowcount') === '1001'");
    // A second time, with everything tracked already.
    browser.open(&url(&served));
    browser.wait_for(&format!("{ROWS}.length > 0"));
    let opened = browser.run("return performance.now()");
    let scrolled = browser.run(
        "return new Promise(done => {
            const start = performance.now();
            let [frames, last, longest, most] = [0, start, 0, 0];
            requestAnimationFrame(function step(now) {
                frames += 1;
                longest = Math.max(longest, now - last);
                last = now;
                most = Math.max(most, document.querySelectorAll('#models tbody tr').length);
                scrollBy(0, 100);
                if (now - start < 5000) requestAnimationFrame(step);
                else done({framesPerSecond: frames * 1000 / (now - start), longestMs: longest, most});
            });
        })",
    );
    eprintln!("open after {opened} ms; while scrolling: {scrolled}");
    // Everything once, and then what has changed: of values that stay the same, the ages.
    browser.wait_for(&format!("{ANSWERS}.length > 5"));
    let answers = browser.run(&format!("return {ANSWERS}.map(it => it.encodedBodySize)"));
    let bytes: Vec<u64> = answers.as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    let whole = browser.run(
        "return Promise.all(['replicas', 'allocation'].map(async it =>
            (await (await fetch('api/v1/' + it)).text()).length))",
    );
    eprintln!("bytes of the answers: {bytes:?}; of all readings: {whole}");
    assert!((100_000..300_000).contains(&bytes[0]), "{bytes:?}");
    // The second may have rows of models that were fetched for the first time.
    assert!(bytes[2..].iter().all(|bytes| *bytes < 30_000), "{bytes:?}");
    let most = scrolled["most"].as_u64().unwrap();
    assert!((10..60).contains(&most), "{scrolled}");
    // The panel above closes: what it covered is drawn.
    browser.run("scrollTo(0, 0)");
    for _ in 0..2 {
        let is_full = browser.run(&format!(
            "return new Promise(done => {{
                document.querySelector('#internals-button').click();
                (function wait(frames) {{
                    if (frames > 0) requestAnimationFrame(() => wait(frames - 1));
                    else done({ROWS}.at(-1).getBoundingClientRect().bottom > innerHeight);
                }})(4);
            }})"
        ));
        assert_eq!(is_full, true);
    }
    let last = browser.run("scrollTo(0, document.body.scrollHeight)");
    assert!(last.is_null());
    browser.wait_for(&format!("{ROWS}.some(row => row.textContent.includes('model-0999'))"));

    browser.keys("/MODEL-042");
    browser.wait_for("document.querySelector('#models').getAttribute('aria-rowcount') === '11'");
    // Down into the list, to its third row, and open it.
    browser.keys("\u{e015}\u{e015}\u{e015}\u{e015}\u{e007}");
    browser.wait_for("!document.querySelector('#detail').hidden");
    assert_eq!(browser.text("#detail h2"), "org/model-0422");
    browser.wait_for("document.querySelector('#detail .frame:last-child tbody tr')");
    let field = browser.text("#detail .frame:last-child tbody tr");
    assert!(field.contains("1 of 1") && field.contains("epp"), "{field}");
    browser.keys("\u{e00c}");
    browser.wait_for("document.querySelector('#detail').hidden");
    assert_eq!(browser.run("return document.activeElement.id"), "models");

    for (column, first) in [("model", "org/model-0420"), ("model", "org/model-0429")] {
        browser.run(&format!("document.querySelector('th.{column} button').click()"));
        browser.wait_for(&format!("{ROWS}[0].textContent.includes({first:?})"));
    }
    let sorted = "return document.querySelector('th.model').getAttribute('aria-sort')";
    assert_eq!(browser.run(sorted), "descending");
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing() {
    let Some(browser) = Browser::start() else { return };
    let Some(axe) = browser::axe() else { return };
    let fleet = busy_fleet().await;
    let (served, _config) = serve_fleet(&fleet);
    let check = |what: &str| {
        let found = browser.run(
            "return axe.run().then(({violations}) => violations.map(
                ({id, help, nodes}) => id + ': ' + help + ' ' + nodes.map(node => node.html).join(' ')))",
        );
        assert_eq!(found, Value::Array(Vec::new()), "{what}");
    };
    for (colours, width) in [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)] {
        browser.colours(colours);
        browser.size(width, 740);
        browser.open(&url(&served));
        browser.run(&axe);
        browser.wait_for("document.querySelector('td.rate')?.textContent > '0'");
        check(&format!("the list, {colours}, {width}"));
        assert_eq!(browser.run(FITS), true, "nothing is wider than {width}");
        browser.run("document.querySelector('#internals-button').click()");
        browser.wait_for("document.querySelector('.groups dd')");
        check(&format!("the internals, {colours}, {width}"));
        browser.run("document.querySelector('#models tbody tr[id]').click()");
        browser.wait_for("document.querySelector('.facts').textContent.includes('cache.ttl')");
        check(&format!("a model, {colours}, {width}"));
    }
    fleet.set_all_faults(&Faults { vanish: true, ..Faults::default() }).await.unwrap();
    browser.wait_for("document.querySelector('#banners').textContent.includes('no fresh reading')");
    check("a stale list");
    drop(served);
    browser.wait_for(
        "document.querySelector('#banners .bad')?.textContent.startsWith('Not connected')",
    );
    check("a list from before");
}
