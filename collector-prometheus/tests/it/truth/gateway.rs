// SPDX-License-Identifier: Apache-2.0
//! A gateway in front of a real Prometheus that damages its answers as the plan of a scene says.
//!
//! Each query at a time is sent once and its answer kept: the history does not change.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use collector_core::{Clock, ManualClock, Tick};
use collector_testkit::PrometheusServer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::fleet::NOW;
use super::plan::{Fault, Plan, hits};

/// The clock of one scene, which does not advance during a fetch.
#[derive(Debug)]
pub(crate) struct SceneClock {
    passed: ManualClock,
    skew: i32,
}

impl Clock for SceneClock {
    fn now(&self) -> Tick {
        self.passed.now()
    }

    fn wall(&self) -> SystemTime {
        let seconds = NOW + f64::from(self.skew) + self.passed();
        UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }

    fn catch_up(&self) {}
}

impl SceneClock {
    pub(crate) fn new(skew: i32) -> Self {
        Self { passed: ManualClock::new(), skew }
    }

    pub(crate) fn advance(&self, seconds: f64) {
        self.passed.advance(Duration::from_secs_f64(seconds));
    }

    /// Seconds since the scene began.
    fn passed(&self) -> f64 {
        self.passed.wall().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
    }
}

/// One scene, as the gateway plays it.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) plan: Plan,
    pub(crate) clock: Arc<SceneClock>,
    pub(crate) fetch: AtomicUsize,
    /// Answers that a fault changed, by its kind.
    pub(crate) touched: Mutex<HashMap<&'static str, u32>>,
    /// Queries and answers, fetch by fetch.
    pub(crate) log: Mutex<Vec<(usize, String, String)>>,
}

impl Scene {
    pub(crate) fn new(plan: Plan) -> Arc<Self> {
        Arc::new(Self {
            clock: Arc::new(SceneClock::new(plan.skew)),
            plan,
            fetch: AtomicUsize::new(0),
            touched: Mutex::default(),
            log: Mutex::default(),
        })
    }

    fn touch(&self, fault: &Fault) {
        *self.touched.lock().unwrap().entry(fault.kind()).or_default() += 1;
    }
}

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: PrometheusServer,
    scenes: RwLock<HashMap<u64, Arc<Scene>>>,
    answers: RwLock<HashMap<(String, i64), Arc<str>>>,
    asked: AtomicU64,
    /// Queries that the server refused: either the backend or this gateway wrote them wrong.
    refused: Mutex<Vec<String>>,
}

/// The response.
struct Reply {
    status: u16,
    body: Vec<u8>,
    /// The announced length, and whether the connection ends there.
    length: usize,
}

impl Reply {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, length: body.len(), body }
    }
}

impl Gateway {
    pub(crate) async fn start(server: PrometheusServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            scenes: RwLock::default(),
            answers: RwLock::default(),
            asked: AtomicU64::new(0),
            refused: Mutex::default(),
        });
        let gateway = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let gateway = Arc::clone(&gateway);
                tokio::spawn(async move { gateway.serve(stream).await });
            }
        });
        Self { address, shared }
    }

    /// Opens a scene and returns its URL.
    pub(crate) fn open(&self, scene: &Arc<Scene>) -> String {
        let seed = scene.plan.seed;
        self.shared.scenes.write().unwrap().insert(seed, Arc::clone(scene));
        format!("http://{}/{seed}", self.address)
    }

    pub(crate) fn close(&self, scene: &Scene) {
        self.shared.scenes.write().unwrap().remove(&scene.plan.seed);
    }

    /// Requests of all scenes, and queries sent to the real server.
    pub(crate) fn counts(&self) -> (u64, usize) {
        let answers = self.shared.answers.read().unwrap().len();
        (self.shared.asked.load(Ordering::Relaxed), answers)
    }

    pub(crate) fn refused(&self) -> Vec<String> {
        self.shared.refused.lock().unwrap().clone()
    }
}

impl Shared {
    /// Serves one connection until it ends.
    async fn serve(&self, mut stream: TcpStream) {
        let mut buffer: Vec<u8> = Vec::new();
        while let Some((path, body)) = request(&mut stream, &mut buffer).await {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let seed =
                path.trim_start_matches('/').split('/').next().and_then(|it| it.parse().ok());
            let scene = seed.and_then(|seed: u64| self.scenes.read().unwrap().get(&seed).cloned());
            let reply = match scene {
                Some(scene) => self.reply(&scene, &body).await,
                None => Some(Reply::new(404, "no such scene")),
            };
            let Some(reply) = reply else { return };
            let head = format!(
                "HTTP/1.1 {} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                reply.status, reply.length
            );
            let bytes = [head.as_bytes(), &reply.body].concat();
            if stream.write_all(&bytes).await.is_err() || reply.length != reply.body.len() {
                return;
            }
        }
    }

    /// The answer to one query; `None` if there is never any.
    async fn reply(&self, scene: &Scene, form: &[u8]) -> Option<Reply> {
        let fetch = scene.fetch.load(Ordering::SeqCst);
        let (mut query, mut time) = (String::new(), None);
        for (key, value) in url::form_urlencoded::parse(form) {
            match &*key {
                "query" => query = value.into_owned(),
                "time" => time = value.parse::<f64>().ok(),
                _ => {}
            }
        }
        let time = time.unwrap_or(NOW + scene.clock.passed());
        let faults: Vec<&Fault> = scene.plan.of(&query, fetch).collect();
        let mut earlier = 0.0;
        let mut own_time = true;
        for fault in &faults {
            match fault {
                Fault::Delay { hangs: true } => {
                    scene.touch(fault);
                    std::future::pending::<()>().await;
                }
                Fault::Delay { hangs: false } => {
                    scene.touch(fault);
                    tokio::task::yield_now().await;
                }
                Fault::Status { code, body } => {
                    scene.touch(fault);
                    return Some(Reply::new(*code, *body));
                }
                Fault::Earlier { seconds, own_time: own, time_too }
                    if query != "vector(time())" || *time_too =>
                {
                    scene.touch(fault);
                    earlier = f64::max(earlier, *seconds);
                    own_time &= *own;
                }
                _ => {}
            }
        }
        if query == "vector(time())" {
            let reported = time - earlier;
            let body = json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [reported, reported.to_string()]}]}});
            let reply = Reply::new(200, body.to_string());
            return Some(truncated(scene, &faults, reply));
        }
        let dropped: Vec<&str> = scene
            .plan
            .of(&query, fetch)
            .filter_map(|fault| match fault {
                Fault::DropSeries(name) => Some(*name),
                _ => None,
            })
            .collect();
        let inside = inside(&query, &scene.plan.world.label(), &dropped);
        let text = self.answer(&inside, time - earlier).await;
        let changes = |fault: &&&Fault| {
            !matches!(fault, Fault::Delay { .. } | Fault::Earlier { .. } | Fault::Truncate { .. })
        };
        let body = if faults.iter().any(|fault| changes(&fault)) || (earlier > 0.0 && !own_time) {
            let mut body: Value = serde_json::from_str(&text).unwrap();
            let doubles = faults.iter().any(|fault| matches!(fault, Fault::Double { .. }));
            let older = if doubles { Some(self.answer(&inside, time - 600.0).await) } else { None };
            for fault in &faults {
                if change(&mut body, fault, &query, older.as_deref()) {
                    scene.touch(fault);
                }
            }
            if !own_time {
                for at in rows(&mut body).iter_mut().filter_map(|row| row.pointer_mut("/value/0")) {
                    *at = json!(time);
                }
            }
            body.to_string()
        } else {
            text.to_string()
        };
        scene.log.lock().unwrap().push((fetch, query.clone(), body.clone()));
        Some(truncated(scene, &faults, Reply::new(200, body)))
    }

    /// Returns the real server's answer.
    async fn answer(&self, query: &str, time: f64) -> Arc<str> {
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds since the epoch")]
        let key = (query.to_owned(), (time * 1000.0).round() as i64);
        if let Some(known) = self.answers.read().unwrap().get(&key) {
            return Arc::clone(known);
        }
        let parameters = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .append_pair("time", &format!("{time:.3}"))
            .finish();
        let answer = match self.server.get(&format!("/api/v1/query?{parameters}")).await {
            Ok(text) => without_world(&text),
            Err(error) => {
                self.refused.lock().unwrap().push(format!("{query}: {error}"));
                r#"{"status":"error","errorType":"bad_data","error":"refused"}"#.to_owned()
            }
        };
        let answer: Arc<str> = answer.into();
        self.answers.write().unwrap().insert(key, Arc::clone(&answer));
        answer
    }
}

fn truncated(scene: &Scene, faults: &[&Fault], reply: Reply) -> Reply {
    let cut = faults.iter().find_map(|fault| match fault {
        Fault::Truncate { percent, honest } => Some((fault, *percent, *honest)),
        _ => None,
    });
    let Some((fault, percent, honest)) = cut else { return reply };
    scene.touch(fault);
    let mut body = reply.body;
    let whole = body.len();
    body.truncate(whole * percent / 100);
    Reply { status: 200, length: if honest { body.len() } else { whole }, body }
}

/// Reads one request: its path and body.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
            let length = text.lines().find_map(|line| {
                line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
            });
            let end = head + 4 + length.unwrap_or(0_usize);
            if buffer.len() >= end {
                let body = buffer[head + 4..end].to_vec();
                buffer.drain(..end);
                let path = text.split(' ').nth(1)?.to_owned();
                return Some((path, body));
            }
        }
        let mut bytes = vec![0; 16_384];
        let read = stream.read(&mut bytes).await.ok().filter(|read| *read > 0)?;
        buffer.extend_from_slice(&bytes[..read]);
    }
}

fn without_world(text: &str) -> String {
    let mut body: Value = serde_json::from_str(text).unwrap();
    for row in rows(&mut body) {
        if let Some(labels) = row.get_mut("metric").and_then(Value::as_object_mut) {
            labels.remove("w");
        }
    }
    body.to_string()
}

/// Returns the query about one world, in which these series are not stored.
fn inside(query: &str, world: &str, dropped: &[&str]) -> String {
    let matcher = format!("w=\"{world}\"");
    let mut text = String::new();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => {
                let mut escaped = false;
                let close = rest[1..].find(|it| {
                    let ends = it == '"' && !escaped;
                    escaped = it == '\\' && !escaped;
                    ends
                });
                close.map_or(rest.len(), |close| close + 2)
            }
            it if it.is_alphabetic() || it == '_' => {
                let is_name = |it: char| it.is_alphanumeric() || it == '_' || it == ':';
                rest.find(|it| !is_name(it)).unwrap_or(rest.len())
            }
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(end);
        rest = after;
        text.push_str(token);
        let is_series = token.starts_with("vllm:") || token.starts_with("sglang:");
        if is_series && dropped.contains(&token) {
            text.push_str("_dropped");
        }
        let is_open = token == "{" && text.ends_with("({");
        if is_series && !rest.starts_with('{') {
            text.extend(["{", matcher.as_str(), "}"]);
        } else if is_series || is_open {
            rest = rest.strip_prefix('{').filter(|_| is_series).unwrap_or(rest);
            let open = if is_series { "{" } else { "" };
            let comma = if rest.starts_with('}') { "" } else { "," };
            text.extend([open, matcher.as_str(), comma]);
        }
    }
    text
}

fn rows(body: &mut Value) -> &mut [Value] {
    let rows = body.pointer_mut("/data/result").and_then(Value::as_array_mut);
    rows.map(Vec::as_mut_slice).unwrap_or_default()
}

/// Applies a fault to an answer. Returns whether it changed anything.
fn change(body: &mut Value, fault: &Fault, query: &str, older: Option<&str>) -> bool {
    let before = body.clone();
    let Some(all) = body.pointer_mut("/data/result").and_then(Value::as_array_mut) else {
        return false;
    };
    let text = |row: &Value| format!("{query}{}", row["metric"]);
    match fault {
        Fault::DropRows { salt, percent } => all.retain(|row| !hits(&text(row), *salt, *percent)),
        Fault::DropPod(pod) => {
            let names = |row: &Value| {
                row["metric"].as_object().is_some_and(|it| it.values().any(|it| it == pod))
            };
            all.retain(|row| !names(row));
        }
        Fault::DropSeries(name) => all.retain(|row| row["metric"]["__name__"] != **name),
        Fault::Double { label, older: is_older, first } => {
            let older: Value = serde_json::from_str(older.unwrap_or("{}")).unwrap();
            let of_then = |row: &Value| {
                let rows = older.pointer("/data/result")?.as_array()?;
                rows.iter().find(|other| other["metric"] == row["metric"]).cloned()
            };
            let mut doubles: Vec<Value> = Vec::new();
            for row in all.iter() {
                let mut double = if *is_older { of_then(row) } else { Some(row.clone()) };
                if let (Some(double), Some(label)) = (&mut double, label) {
                    double["metric"][*label] = json!("another");
                }
                doubles.extend(double);
            }
            if *first {
                doubles.append(all);
                *all = doubles;
            } else {
                all.append(&mut doubles);
            }
        }
        Fault::Relabel { from, to, salt, percent } => {
            for row in all.iter_mut() {
                if !hits(&text(row), *salt, *percent) {
                    continue;
                }
                let Some(labels) = row["metric"].as_object_mut() else { continue };
                if let (Some(value), Some(to)) = (labels.remove(*from), to) {
                    labels.insert((*to).to_owned(), value);
                }
            }
        }
        Fault::Partial { salt, percent, flag } => {
            all.retain(|row| !hits(&text(row), *salt, *percent));
            if *flag {
                body["isPartial"] = json!(true);
            } else {
                body["warnings"] = json!(["a store is away"]);
            }
        }
        Fault::Foreign => {
            let mut more: Vec<Value> = Vec::new();
            for row in all.iter() {
                for (key, value) in
                    [("model_name", "org/foreign"), ("namespace", "elsewhere"), ("model_name", "")]
                {
                    let mut foreign = row.clone();
                    let Some(labels) = foreign["metric"].as_object_mut() else { continue };
                    let keys: Vec<String> =
                        labels.keys().filter(|name| name.ends_with(key)).cloned().collect();
                    if keys.is_empty() {
                        continue;
                    }
                    labels.extend(keys.into_iter().map(|key| (key, json!(value))));
                    if labels.contains_key("pod") {
                        labels.insert("pod".to_owned(), json!("router-0"));
                    }
                    if foreign.get("value").is_some() {
                        foreign["value"][1] = json!("77");
                    }
                    more.push(foreign);
                }
            }
            all.extend(more);
        }
        Fault::Type(kind) => {
            body["data"]["resultType"] = json!(kind);
            if matches!(*kind, "scalar" | "string") {
                body["data"]["result"] = json!([NOW, "5"]);
            }
        }
        Fault::Value { value, salt, percent } => {
            for row in all.iter_mut() {
                if hits(&text(row), *salt, *percent) && row.get("value").is_some() {
                    row["value"][1] = json!(value);
                }
            }
        }
        Fault::Truncate { .. }
        | Fault::Status { .. }
        | Fault::Earlier { .. }
        | Fault::Delay { .. } => {}
    }
    *body != before || matches!(fault, Fault::DropSeries(name) if query.contains(name))
}
