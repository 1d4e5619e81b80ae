// SPDX-License-Identifier: Apache-2.0
//! A server, its collector, its cluster and a client.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use collector_core::{ModelRef, ModelSample, ReplicaMetrics, Tick};
use collector_engine::{CachingCollector, StaticDirectory, VariantSpec};
use collector_external_metrics::{
    AccessControl, AccessRequest, Decision, ExternalMetrics, FrontProxyConfig, serve,
};
use collector_keda::{Scaler, Settings};
use collector_testkit::certificates::rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};
use collector_testkit::certificates::{Authority, Pair};
use collector_testkit::{FakeBackend, TokioClock};
use collector_transport::Section;
use collector_transport::server::{Listener, ServerTls, ServerTlsSettings};
use http_body_util::BodyExt as _;
use percent_encoding::NON_ALPHANUMERIC;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

pub(crate) const MODEL: &str = "org/chat";
/// Of the API's version.
pub(crate) const ROOT: &str = "/apis/external.metrics.k8s.io/v1beta1";
pub(crate) const HPA: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";

/// The certificate of a client with this common name.
pub(crate) fn client(
    authority: &Authority,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Pair {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    authority.sign_params(&params)
}

/// A cluster that does what a test says.
#[derive(Default)]
pub(crate) struct ScriptedCluster {
    front_proxy: Mutex<Option<FrontProxyConfig>>,
    /// Namespaces that nobody may read.
    denied: Mutex<Vec<String>>,
    pub(crate) down: Mutex<Option<Down>>,
    pub(crate) asked: Mutex<Vec<AccessRequest>>,
    pub(crate) reads: AtomicUsize,
}

/// How an API server is down.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Down {
    Refuses,
    Hangs,
}

impl ScriptedCluster {
    /// From now on certificates of this authority are the front proxy's.
    pub(crate) fn trust(&self, authority: &Authority) {
        let mut config = FrontProxyConfig::new(authority.pem().into_bytes());
        config.allowed_names = vec!["front-proxy-client".to_owned()];
        *self.front_proxy.lock().unwrap() = Some(config);
    }

    pub(crate) fn deny(&self, namespace: &str) {
        self.denied.lock().unwrap().push(namespace.to_owned());
    }

    pub(crate) fn is(&self, down: Option<Down>) {
        *self.down.lock().unwrap() = down;
    }

    async fn up(&self) -> Result<(), String> {
        let down = *self.down.lock().unwrap();
        match down {
            None => Ok(()),
            Some(Down::Refuses) => Err("connection refused".to_owned()),
            Some(Down::Hangs) => std::future::pending().await,
        }
    }
}

#[async_trait]
impl AccessControl for ScriptedCluster {
    async fn front_proxy(&self) -> Result<FrontProxyConfig, String> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.up().await?;
        self.front_proxy.lock().unwrap().clone().ok_or_else(|| "there is no ConfigMap".to_owned())
    }

    async fn review(&self, access: &AccessRequest) -> Result<Decision, String> {
        self.asked.lock().unwrap().push(access.clone());
        // Those who ask at the same time come while this waits.
        tokio::task::yield_now().await;
        self.up().await?;
        let is_allowed = !self.denied.lock().unwrap().contains(&access.namespace);
        let reason = if is_allowed { "" } else { "no role binding" };
        Ok(Decision { is_allowed, reason: reason.to_owned() })
    }
}

pub(crate) struct Fixture {
    pub(crate) backend: FakeBackend,
    pub(crate) collector: Arc<CachingCollector>,
    pub(crate) cluster: Arc<ScriptedCluster>,
    pub(crate) client: Client,
    /// That of the server's certificate and of the front proxy's.
    pub(crate) authority: Authority,
    pub(crate) front_proxy: Pair,
    api: Arc<ExternalMetrics>,
    address: SocketAddr,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub(crate) async fn with(settings: Settings) -> Self {
        let authority = Authority::new();
        let cluster = Arc::new(ScriptedCluster::default());
        cluster.trust(&authority);
        Self::over(authority, cluster, settings).await
    }

    pub(crate) async fn over(
        authority: Authority,
        cluster: Arc<ScriptedCluster>,
        settings: Settings,
    ) -> Self {
        let clock = Arc::new(TokioClock::new());
        let backend = FakeBackend::new(clock.clone());
        let pods = "small-*".to_owned();
        let variant = VariantSpec { pods, ..VariantSpec::new("small", &model()) };
        let directory = StaticDirectory::new(vec![variant]).unwrap();
        let collector = CachingCollector::builder(Arc::new(backend.clone()))
            .directory(Arc::new(directory))
            .clock(clock.clone())
            .build();
        let collector = Arc::new(collector.unwrap());
        let scaler = Arc::new(Scaler::new(Arc::clone(&collector), clock.clone(), settings));
        let api =
            ExternalMetrics::new(scaler, clock, Arc::clone(&cluster) as Arc<dyn AccessControl>);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let tls = Some(Arc::new(server_tls(&authority)));
        let listener = Listener { socket, tls, read_timeout: None };
        let api = Arc::new(api);
        tokio::spawn(serve(listener, Arc::clone(&api), std::future::pending()));
        let front_proxy = client(&authority, "front-proxy-client", |_| ());
        let client = Client::Called(Arc::clone(&api), vec![front_proxy.der()]);
        Self { backend, collector, cluster, client, authority, front_proxy, api, address }
    }

    /// A client with another certificate, which has no connection: time can be paused.
    pub(crate) fn client_with(&self, identity: &Pair) -> Client {
        Client::Called(Arc::clone(&self.api), vec![identity.der()])
    }

    /// A client with a connection, as the API server has one.
    pub(crate) fn connected(&self, identity: Option<&Pair>) -> Client {
        Client::connected(self.address, &self.authority, identity)
    }

    /// From now on the model has these pods, whatever they say at each fetch.
    pub(crate) fn serve(&self, pods: impl Fn(Tick) -> ModelSample + Send + Sync + 'static) {
        self.backend.serve(&model(), pods);
    }

    /// The next read asks the backend.
    pub(crate) fn forget(&self) {
        self.collector.invalidate_cache(&model());
    }

    /// Reads a metric as the HPA controller does.
    pub(crate) async fn read(&self, metric: &str, selector: &str) -> Answer {
        self.client.read("prod", metric, selector).await
    }
}

fn server_tls(authority: &Authority) -> ServerTls {
    let pair = authority.sign("localhost");
    // What was read stays when the files are gone.
    ServerTls::new(&ServerTlsSettings {
        section: Section { name: "external_metrics", variables: None },
        cert_path: authority.write("cert.pem", &pair.cert),
        key_path: authority.write("key.pem", &pair.key),
        client_ca_path: None,
        asks_clients: true,
        protocols: &[b"http/1.1"],
    })
    .unwrap()
}

pub(crate) fn model() -> ModelRef {
    ModelRef::new(MODEL, "prod")
}

/// One pod with this queue.
pub(crate) fn queue_of(queue: u64) -> impl Fn(Tick) -> ModelSample + Send + Sync {
    move |as_of| {
        let mut pod = ReplicaMetrics::new("chat-0", as_of);
        pod.queue_length = Some(queue);
        pod.running_requests = Some(2);
        pod.kv_cache_usage = Some(0.3);
        ModelSample::new(as_of, vec![pod])
    }
}

/// A status and a document.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

impl Answer {
    fn new(code: u16, is_json: bool, body: &str) -> Self {
        let body = if is_json { serde_json::from_str(body).unwrap() } else { Value::from(body) };
        Self { code, body }
    }

    /// The text of the one value.
    #[track_caller]
    pub(crate) fn value(&self) -> &str {
        assert_eq!(self.code, 200, "{}", self.body);
        assert_eq!(self.body["kind"], "ExternalMetricValueList");
        assert_eq!(self.body["items"].as_array().map(Vec::len), Some(1));
        self.body["items"][0]["value"].as_str().unwrap()
    }

    /// Checks that it is an error with this status, and returns its message.
    #[track_caller]
    pub(crate) fn error(&self, code: u16) -> &str {
        let Self { code: got, body } = self;
        assert_eq!(*got, code, "{body}");
        assert_eq!((&body["kind"], &body["status"]), (&"Status".into(), &"Failure".into()));
        assert_eq!((&body["apiVersion"], &body["code"]), (&"v1".into(), &code.into()));
        assert!(body["reason"].is_string(), "{body}");
        body["message"].as_str().unwrap()
    }
}

#[derive(Clone)]
pub(crate) enum Client {
    /// Calls the API with these certificates.
    Called(Arc<ExternalMetrics>, Vec<CertificateDer<'static>>),
    /// Sends its requests over TLS, each on a new connection.
    Connected(SocketAddr, TlsConnector),
}

impl Client {
    fn connected(address: SocketAddr, trusted: &Authority, identity: Option<&Pair>) -> Self {
        let mut config = trusted.client(identity);
        // As Go's client, which prefers HTTP/2.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::Connected(address, TlsConnector::from(Arc::new(config)))
    }

    pub(crate) async fn read(&self, namespace: &str, metric: &str, selector: &str) -> Answer {
        let selector = percent_encoding::percent_encode(selector.as_bytes(), NON_ALPHANUMERIC);
        let path = format!("{ROOT}/namespaces/{namespace}/{metric}?labelSelector={selector}");
        self.get(&path).await
    }

    /// As the HPA controller's service account.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        let headers = [("X-Remote-User", HPA), ("X-Remote-Group", "system:serviceaccounts")];
        self.request("GET", path, &headers).await
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        match self {
            Self::Called(api, certificates) => {
                let mut request = http::Request::builder().method(method).uri(path);
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let response = api.answer(&request.body(()).unwrap(), certificates).await;
                let (head, body) = response.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let is_json = head.headers["content-type"] == "application/json";
                Answer::new(head.status.as_u16(), is_json, std::str::from_utf8(&body).unwrap())
            }
            Self::Connected(address, connector) => {
                let stream = TcpStream::connect(address).await.unwrap();
                let name = ServerName::try_from("localhost").unwrap();
                let mut stream = connector.connect(name, stream).await.unwrap();
                let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
                let headers = headers.collect::<Vec<_>>().concat();
                let request = format!(
                    "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                     Accept: application/vnd.kubernetes.protobuf, */*\r\n{headers}\r\n"
                );
                stream.write_all(request.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                let is_json = head.to_lowercase().contains("content-type: application/json");
                Answer::new(head[9..12].parse().unwrap(), is_json, body)
            }
        }
    }
}
