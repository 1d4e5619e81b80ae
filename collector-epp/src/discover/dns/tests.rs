// SPDX-License-Identifier: Apache-2.0
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use tokio::net::UdpSocket;

use super::*;

/// What a DNS server answers: a code, and records with a ttl of 7 s.
#[derive(Clone)]
struct Zone(Arc<Mutex<(ResponseCode, Vec<RData>)>>);

impl Zone {
    fn new(records: Vec<RData>) -> Self {
        Self(Arc::new(Mutex::new((ResponseCode::NoError, records))))
    }

    fn set(&self, code: ResponseCode, records: Vec<RData>) {
        *self.0.lock().unwrap() = (code, records);
    }

    /// Answers on loopback; the resolver that asks there.
    async fn serve(&self) -> TokioResolver {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let zone = self.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let mut message = Message::from_vec(&buffer[..length]).unwrap().into_response();
                let query = message.queries[0].clone();
                let (code, records) = zone.0.lock().unwrap().clone();
                message.metadata.response_code = code;
                for record in records.into_iter().filter(|r| r.record_type() == query.query_type) {
                    message.add_answer(Record::from_rdata(query.name.clone(), 7, record));
                }
                socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let mut connection = ConnectionConfig::udp();
        connection.port = port;
        let server = NameServerConfig::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true, vec![connection]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().cache_size = 0;
        builder.build().unwrap()
    }
}

fn spec(record: DnsRecord) -> DnsSpec {
    DnsSpec {
        name: "vllm.test.".into(),
        record,
        port: (record != DnsRecord::Srv).then_some(8000),
        namespace: "prod".into(),
        scheme: http(),
        path: metrics(),
        engine: Some("vllm".into()),
        role: None,
        model: None,
        rank: None,
        replica: None,
    }
}

fn shown(targets: &[Target]) -> Vec<(&str, &str)> {
    targets.iter().map(|target| (target.pod.as_str(), target.url.as_str())).collect()
}

fn srv(port: u16, host: &str) -> RData {
    RData::SRV(SRV::new(0, 0, port, Name::from_str(host).unwrap()))
}

#[tokio::test]
async fn each_address_is_a_target_and_the_ttl_says_when_to_look_again() {
    let zone = Zone::new(vec![
        RData::A(A(Ipv4Addr::new(10, 0, 0, 8))),
        RData::A(A(Ipv4Addr::new(10, 0, 0, 7))),
        RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)),
    ]);
    let dns = DnsTargets::with_resolver(spec(DnsRecord::A), zone.serve().await);
    let targets = dns.targets().await.unwrap();
    assert_eq!(
        shown(&targets),
        [
            ("10.0.0.7:8000", "http://10.0.0.7:8000/metrics"),
            ("10.0.0.8:8000", "http://10.0.0.8:8000/metrics"),
        ]
    );
    // The other addresses are of the same pods.
    let dns = DnsTargets::with_resolver(spec(DnsRecord::Aaaa), zone.serve().await);
    let targets = dns.targets().await.unwrap();
    assert_eq!(shown(&targets), [("[::1]:8000", "http://[::1]:8000/metrics")]);
    assert_eq!(*dns.again_after.lock().unwrap(), Duration::from_secs(7));
}

#[tokio::test]
async fn hosts_are_named_by_their_first_label_if_it_is_unique() {
    let zone = Zone::new(vec![
        srv(8000, "m-0.vllm.test."),
        srv(8001, "m-1.vllm.test."),
        srv(8002, "m-1.vllm.test."),
    ]);
    let dns = DnsTargets::with_resolver(spec(DnsRecord::Srv), zone.serve().await);
    let targets = dns.targets().await.unwrap();
    assert_eq!(
        shown(&targets),
        [
            ("m-0", "http://m-0.vllm.test:8000/metrics"),
            ("m-1.vllm.test:8001", "http://m-1.vllm.test:8001/metrics"),
            ("m-1.vllm.test:8002", "http://m-1.vllm.test:8002/metrics"),
        ]
    );
}

#[tokio::test]
async fn a_name_without_records_has_no_targets() {
    let zone = Zone::new(Vec::new());
    let dns = DnsTargets::with_resolver(spec(DnsRecord::A), zone.serve().await);
    assert!(dns.targets().await.unwrap().is_empty());
    assert!(!dns.lists_pods(), "there may be pods that are not ready");
    zone.set(ResponseCode::NXDomain, Vec::new());
    let error = dns.targets().await.unwrap_err().to_string();
    assert!(error.contains("epp.dns: vllm.test."), "{error}");
    zone.set(ResponseCode::ServFail, Vec::new());
    assert!(dns.targets().await.is_err());
    assert_eq!(*dns.again_after.lock().unwrap(), AGAIN_AFTER_FAILURE);
}

#[test]
fn a_spec_that_cannot_work_says_what_to_set() {
    assert_eq!(spec(DnsRecord::A).check(), Ok(()));
    assert_eq!(spec(DnsRecord::Srv).check(), Ok(()));
    let refused = |spec: DnsSpec, part: &str| {
        let problem = spec.check().unwrap_err();
        assert!(problem.contains(part), "{problem:?} lacks {part:?}");
    };
    refused(DnsSpec { port: None, ..spec(DnsRecord::A) }, "type = \"SRV\"");
    refused(DnsSpec { name: String::new(), ..spec(DnsRecord::A) }, "no DNS name");
    refused(DnsSpec { scheme: "ftp".into(), ..spec(DnsRecord::A) }, "http://");
    refused(DnsSpec { namespace: String::new(), ..spec(DnsRecord::A) }, "namespace is empty");
}
