// SPDX-License-Identifier: Apache-2.0
//! What a scraper sees of each fault, and that the truth goes on underneath.

use std::net::SocketAddr;
use std::time::Duration;

use collector_sim::{
    BodyFault, EngineKind, EngineSpec, Faults, FleetServer, FleetSpec, PickerNames, PickerSpec,
    ServeError, TransferFault, ValueFault, VariantSpec,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::text::Text;

/// One small page, standing still so that it can be compared.
async fn start() -> (FleetServer, SocketAddr) {
    let engine = EngineSpec { kind: EngineKind::TrtllmServe, ..EngineSpec::default() };
    start_with(engine).await
}

async fn start_with(engine: EngineSpec) -> (FleetServer, SocketAddr) {
    let variant = VariantSpec { pods: 1, engine, ..VariantSpec::new("v", "org/model", "ns") };
    let spec = FleetSpec {
        warm_up: Duration::from_secs(60),
        variants: vec![variant],
        ..FleetSpec::default()
    };
    let fleet = FleetServer::start(spec).await.unwrap();
    fleet.freeze();
    let address = fleet.targets()[0].address;
    (fleet, address)
}

async fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream
}

struct Answer {
    head: String,
    /// As sent, chunks included.
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

async fn scrape(address: SocketAddr) -> Answer {
    let mut stream = connect(address).await;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    let body = bytes.split_off(end + 4);
    Answer { head: String::from_utf8(bytes).unwrap(), body }
}

async fn set(fleet: &FleetServer, faults: Faults) {
    fleet.set_faults("ns", "v-0", faults).await.unwrap();
}

fn body(body: BodyFault) -> Faults {
    Faults { body: Some(body), ..Faults::default() }
}

fn transfer(transfer: TransferFault) -> Faults {
    Faults { transfer: Some(transfer), ..Faults::default() }
}

#[tokio::test]
async fn a_vanished_pod_refuses_and_returns_on_its_address() {
    let (fleet, address) = start().await;
    let before = fleet.truth("ns", "v-0").unwrap();
    set(&fleet, Faults { vanish: true, ..Faults::default() }).await;
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(fleet.truth("ns", "v-0"), Some(before));
    assert_eq!(fleet.targets().len(), 1);

    // A new process cannot be reached either.
    fleet.restart_pod("ns", "v-0").await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    set(&fleet, Faults::default()).await;
    Text::parse(scrape(address).await.text());

    // Nor does the end of the fault bring a dead pod to life.
    fleet.kill_pod("ns", "v-0").await.unwrap();
    set(&fleet, Faults { vanish: true, ..Faults::default() }).await;
    set(&fleet, Faults::default()).await;
    assert!(TcpStream::connect(address).await.is_err());
    fleet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_pod_accepts_a_request_and_never_answers() {
    let (fleet, address) = start().await;
    set(&fleet, Faults { hang: true, ..Faults::default() }).await;
    let mut stream = connect(address).await;
    let hour = Duration::from_secs(3600);
    assert!(timeout(hour, stream.read_u8()).await.is_err());

    set(&fleet, Faults::default()).await;
    assert!(scrape(address).await.head.starts_with("HTTP/1.1 200"));
    // It also ends with the fleet.
    set(&fleet, Faults { hang: true, ..Faults::default() }).await;
    let mut stream = connect(address).await;
    fleet.stop().await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_pod_answers_later() {
    let (fleet, address) = start().await;
    set(&fleet, Faults { slow: Some(Duration::from_secs(7)), ..Faults::default() }).await;
    let begun = Instant::now();
    Text::parse(scrape(address).await.text());
    assert_eq!(begun.elapsed().as_secs(), 7);
    fleet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dripping_page_is_complete_in_the_end() {
    let (fleet, address) =
        start_with(EngineSpec { kind: EngineKind::TritonTensorrtLlm, ..EngineSpec::default() })
            .await;
    let whole = scrape(address).await.body;
    set(&fleet, transfer(TransferFault::Drip)).await;
    let begun = Instant::now();
    let dripped = scrape(address).await.body;
    assert_eq!(dripped, whole);
    assert_eq!(begun.elapsed().as_secs(), whole.len() as u64 - 1);
    fleet.stop().await;
}

#[tokio::test]
async fn a_status_comes_without_a_page() {
    let (fleet, address) = start().await;
    set(&fleet, Faults { status: Some(503), ..Faults::default() }).await;
    let answer = scrape(address).await;
    assert!(answer.head.starts_with("HTTP/1.1 503"), "{}", answer.head);
    assert_eq!(answer.text(), "the simulator was told to fail\n");
    fleet.stop().await;
}

#[tokio::test]
async fn a_truncated_page_is_shorter_than_its_length() {
    let (fleet, address) = start().await;
    let whole = scrape(address).await.body;
    set(&fleet, transfer(TransferFault::CutShort)).await;
    let answer = scrape(address).await;
    assert_eq!(answer.header("content-length"), Some(whole.len().to_string().as_str()));
    assert_eq!(answer.body, whole[..whole.len() / 2]);
    fleet.stop().await;
}

#[tokio::test]
async fn chunks_may_lack_their_end() {
    let (fleet, address) = start().await;
    set(&fleet, transfer(TransferFault::UnendedChunks)).await;
    let answer = scrape(address).await;
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.header("content-length"), None);
    assert!(answer.body.len() > 10_000, "{}", answer.body.len());
    assert!(!answer.body.ends_with(b"0\r\n\r\n"));
    fleet.stop().await;
}

#[tokio::test]
async fn a_body_may_be_something_else() {
    let (fleet, address) = start().await;
    let page = scrape(address).await.body;

    set(&fleet, body(BodyFault::Garbage)).await;
    let garbage = scrape(address).await.body;
    assert_eq!(garbage.len(), page.len());
    assert!(std::str::from_utf8(&garbage).is_err());

    set(&fleet, body(BodyFault::Html)).await;
    let answer = scrape(address).await;
    assert!(answer.header("content-type").unwrap().starts_with("text/html"));
    assert!(answer.head.starts_with("HTTP/1.1 200") && answer.text().starts_with("<!DOCTYPE"));

    set(&fleet, body(BodyFault::FalseGzip)).await;
    let answer = scrape(address).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.body, page);

    for (fault, longest) in [(BodyFault::HugeLine, 1 << 20), (BodyFault::ManyLabels, 100_000 * 8)] {
        set(&fleet, body(fault)).await;
        let answer = scrape(address).await;
        let (line, rest) = answer.text().split_once('\n').unwrap();
        assert!(line.starts_with("trtllm_num_requests_waiting{"));
        assert!(line.len() > longest, "{}", line.len());
        assert_eq!(rest.as_bytes(), page);
    }
    fleet.stop().await;
}

#[tokio::test]
async fn an_endless_page_continues_while_it_is_read() {
    let (fleet, address) = start().await;
    set(&fleet, body(BodyFault::Endless)).await;
    let mut stream = connect(address).await;
    let mut read = vec![0; 20 << 20];
    stream.read_exact(&mut read).await.unwrap();
    assert!(String::from_utf8_lossy(&read[read.len() - 200..]).contains("simulated_endless{"));
    drop(stream);
    fleet.stop().await;
}

#[tokio::test]
async fn false_gauges_do_not_change_the_truth() {
    let (fleet, address) = start_with(EngineSpec::default()).await;
    let truth = fleet.truth("ns", "v-0").unwrap();
    let mut shown = Vec::new();
    for fault in [ValueFault::Nan, ValueFault::Negative, ValueFault::KvAboveOne] {
        set(&fleet, Faults { values: Some(fault), ..Faults::default() }).await;
        let text = Text::parse(scrape(address).await.text());
        shown.push((text.only("vllm:num_requests_running"), text.only("vllm:kv_cache_usage_perc")));
    }
    assert!(shown[0].0.is_nan() && shown[0].1.is_nan());
    assert!(shown[1].0 < 0.0 && shown[1].1 < 0.0);
    assert!((shown[2].0 - f64::from(truth.running())).abs() < 1e-9 && shown[2].1 > 1.0);
    assert_eq!(fleet.truth("ns", "v-0"), Some(truth));
    fleet.stop().await;
}

#[tokio::test]
async fn a_pod_may_answer_for_another_model() {
    let (fleet, address) = start_with(EngineSpec::default()).await;
    set(&fleet, Faults { other_model: Some("a\"b".into()), ..Faults::default() }).await;
    let answer = scrape(address).await;
    let text = Text::parse(answer.text());
    let series = text.named("vllm:num_requests_running").next().unwrap().0;
    assert!(series.ends_with("{engine=\"0\",model_name=\"a\\\"b\"}"), "{series}");
    assert!(!answer.text().contains("org/model"));
    fleet.stop().await;
}

#[tokio::test]
async fn a_clock_may_be_an_hour_off() {
    let (fleet, address) = start().await;
    let date = |answer: &Answer| httpdate::parse_http_date(answer.header("date").unwrap()).unwrap();
    let right = date(&scrape(address).await);
    let hour = Duration::from_secs(3600);
    set(&fleet, Faults { clock_ahead: Some(hour), ..Faults::default() }).await;
    let ahead = date(&scrape(address).await).duration_since(right).unwrap();
    assert!((3600..3660).contains(&ahead.as_secs()), "{ahead:?}");
    set(&fleet, Faults { clock_behind: Some(hour), ..Faults::default() }).await;
    let behind = right.duration_since(date(&scrape(address).await)).unwrap();
    assert!((3540..=3600).contains(&behind.as_secs()), "{behind:?}");
    fleet.stop().await;
}

#[tokio::test]
async fn faults_of_all_pods_include_the_picker() {
    let picker = PickerSpec {
        names: PickerNames::Legacy,
        flow_control: false,
        ..PickerSpec::new("pool", "ns")
    };
    let spec = FleetSpec {
        variants: vec![VariantSpec::new("v", "m", "ns")],
        pickers: vec![picker],
        ..FleetSpec::default()
    };
    let fleet = FleetServer::start(spec).await.unwrap();
    let targets = fleet.targets();
    let pods: Vec<&str> = targets.iter().map(|target| target.pod.as_str()).collect();
    assert_eq!(pods, ["pool-epp", "v-0", "v-1"]);
    let fail = Faults { status: Some(500), ..Faults::default() };
    fleet.set_all_faults(&fail).await.unwrap();
    for target in &targets {
        assert!(scrape(target.address).await.head.starts_with("HTTP/1.1 500"));
        assert_eq!(fleet.faults("ns", &target.pod), Some(fail.clone()));
    }
    fleet.set_all_faults(&Faults::default()).await.unwrap();
    for target in &targets {
        Text::parse(scrape(target.address).await.text());
    }
    fleet.stop().await;
}

#[tokio::test]
async fn impossible_faults_are_refused_with_their_reason() {
    let (fleet, _) = start().await;
    let hour = Some(Duration::from_secs(3600));
    for (faults, words) in [
        (Faults { status: Some(100), ..Faults::default() }, "status = 100"),
        (Faults { slow: Some(Duration::MAX), ..Faults::default() }, "use hang"),
        (Faults { clock_ahead: hour, clock_behind: hour, ..Faults::default() }, "leave one out"),
    ] {
        let error = fleet.set_faults("ns", "v-0", faults).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = fleet.set_faults("ns", "w-0", Faults::default()).await.unwrap_err();
    assert!(matches!(error, ServeError::Fleet(_)), "{error}");
    assert_eq!(fleet.faults("ns", "w-0"), None);
    fleet.stop().await;
}
