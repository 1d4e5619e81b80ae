// SPDX-License-Identifier: Apache-2.0
//! A: the way to the server and back.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::certificates::Authority;
use super::fleet::{Fleet, Quantity};
use super::server::{Reply, Server, Unanswering, head};
use super::verdict::{Call, side_by_side};

/// An address of loopback where nothing listens.
fn closed() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// An answer to who lives, of two pods, and where its first pod ends.
fn two_pods_cut_after_one() -> Vec<u8> {
    let whole = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"namespace":"prod","model_name":"org/model","pod":"m-0"},"value":[1.0,"1.0"]},{"metric":"#;
    whole.as_bytes().to_vec()
}

#[test]
fn a_refused_connection_is_named_with_host_port_and_cause() {
    let address = closed();
    Call::to_url(&format!("http://{address}")).backend_fails(&[
        &address,
        "refused",
        "prometheus.url",
    ]);
}

#[test]
fn a_host_without_an_address_is_named() {
    Call::to_url("http://no-such-host.invalid:9090")
        .backend_fails(&["no-such-host.invalid", "prometheus.url"]);
}

#[test]
fn a_connection_that_never_completes_ends_at_the_deadline() {
    let nobody = Unanswering::new();
    // It is what it is for: a connection there does not come about.
    let wait = std::time::Duration::from_millis(100);
    assert!(TcpStream::connect_timeout(&nobody.address, wait).is_err());
    let address = nobody.address.to_string();
    Call::to_url(&format!("http://{address}")).in_haste().backend_fails(&[
        &address,
        "no connection",
        "prometheus.url",
    ]);
}

#[test]
fn a_handshake_that_is_never_answered_ends_at_the_deadline() {
    // What comes is taken and never looked at.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    let authority = Authority::new();
    Call::to_url(&format!("https://{address}"))
        .env("PROMETHEUS_CA_CERT_PATH", authority.file())
        .in_haste()
        .backend_fails(&[&address, "no connection"]);
}

#[test]
fn silence_ends_at_the_deadline_wherever_it_begins() {
    let cases = [
        (Reply::Stall(Vec::new()), "no answer began"),
        (Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-".to_vec()), "no answer began"),
        (
            Reply::Stall([head("Content-Length: 1000\r\n"), two_pods_cut_after_one()].concat()),
            "not complete",
        ),
        // One deadline for all of it, and not one for each byte.
        (Reply::Drip(head("Content-Length: 1000\r\n")), "not complete"),
        (Reply::Drip(head("")), "not complete"),
        (Reply::Drip(b"HTTP/1.1 200 OK\r\nX-Slow: ".to_vec()), "no answer began"),
    ];
    side_by_side(&cases, |(reply, says)| {
        let server = Server::start({
            let reply = reply.clone();
            move |_| reply.clone()
        });
        let verdict = Call::to(&server).in_haste().backend_fails(&[says, "prometheus.timeout"]);
        assert!((1..=3).contains(&verdict.asked.len()), "{:?}", verdict.asked);
    });
}

#[test]
fn a_fetch_that_stalls_ends_at_its_deadline() {
    let silent_about = |silent: Quantity| {
        let fleet = Fleet::default();
        Server::start(move |request| {
            if request.about() == silent { Reply::Stall(Vec::new()) } else { fleet.reply(request) }
        })
    };
    let server = silent_about(Quantity::Liveness);
    Call::to(&server).in_haste().backend_fails(&["timed out"]);
    // What is only learnt for the queries' sake costs the reading nothing.
    let server = silent_about(Quantity::Shape);
    let (document, _) = Call::to(&server).in_haste().finds();
    assert_eq!(document["replicas"][1]["kvCacheUsage"], 0.42, "{document}");
}

#[test]
fn an_answer_that_breaks_off_is_never_a_smaller_fleet() {
    let part = two_pods_cut_after_one();
    let chunk = format!("{:x}\r\n", part.len());
    let chunked =
        [head("Transfer-Encoding: chunked\r\n"), chunk.into(), part.clone(), b"\r\n".to_vec()];
    let cases = [
        Reply::Close([head("Content-Length: 1000\r\n"), part.clone()].concat()),
        Reply::Close(chunked.concat()),
        Reply::Close([head("Connection: close\r\n"), part.clone()].concat()),
        Reply::Reset([head("Content-Length: 1000\r\n"), part.clone()].concat()),
        Reply::Close(Vec::new()),
        Reply::Reset(Vec::new()),
    ];
    side_by_side(&cases, |reply| {
        let (reply, fleet) = (reply.clone(), Fleet::default());
        let server = Server::start(move |request| match request.about() {
            Quantity::Liveness => reply.clone(),
            _ => fleet.reply(request),
        });
        Call::to(&server).backend_fails(&[]);
    });
}

#[test]
fn a_connection_that_breaks_is_tried_three_times() {
    let half = [head("Content-Length: 1000\r\n"), b"{\"status\":".to_vec()].concat();
    let cases = [
        Reply::Close(Vec::new()),
        Reply::Reset(Vec::new()),
        Reply::Reset(half.clone()),
        Reply::Close(half),
    ];
    side_by_side(&cases, |reply| {
        let reply = reply.clone();
        let server = Server::start(move |_| reply.clone());
        let verdict = Call::to(&server).backend_fails(&[]);
        assert_eq!(verdict.asked.len(), 3, "{}", verdict.stderr);
    });
}

#[test]
fn an_idle_connection_that_the_server_closed_is_replaced_unseen() {
    let fleet = Fleet::default();
    let server = Server::start(move |request| {
        // Whole, and then closed without having said so.
        let Reply::Answer { body, .. } = fleet.reply(request) else { unreachable!() };
        let head = head(&format!("Content-Length: {}\r\n", body.len()));
        Reply::Close([head, body].concat())
    });
    let (document, verdict) = Call::to(&server).finds();
    assert_eq!(document["replicas"].as_array().unwrap().len(), 2);
    assert_eq!(document["replicas"][0]["kvCacheUsage"], 0.42, "{document}");
    assert!(verdict.asked.len() > 10);
}

#[test]
fn what_is_not_http_is_called_so() {
    for garbage in [&b"\x15\x03\x01\x00\x02\x02\x46"[..], b"SSH-2.0-OpenSSH_9.6\r\n", &[0; 4096]] {
        let server = Server::start(|_| Reply::Close(garbage.to_vec()));
        let verdict = Call::to(&server).backend_fails(&["not HTTP", "prometheus.url"]);
        assert_eq!(verdict.asked.len(), 1, "{}", verdict.stderr);
    }
}

#[test]
fn endless_headers_are_cut_off() {
    let header = format!("X-Pad: {}\r\n", "x".repeat(8_000)).into_bytes();
    let server = Server::start(move |_| {
        Reply::Flood(b"HTTP/1.1 200 OK\r\n".to_vec(), header.clone(), 2_000)
    });
    Call::to(&server).backend_fails(&["head", "too large"]);
}

#[test]
fn http_and_https_are_distinguished_in_both_directions() {
    let authority = Authority::new();
    let fleet = Fleet::default();
    let encrypted = Server::start_tls(authority.sign("127.0.0.1").server(None), move |request| {
        fleet.reply(request)
    });
    Call::to_url(&encrypted.url().replace("https", "http"))
        .backend_fails(&[&encrypted.address.to_string(), "https://"]);

    let fleet = Fleet::default();
    let plain = Server::start(move |request| fleet.reply(request));
    Call::to_url(&plain.url().replace("http", "https"))
        .env("PROMETHEUS_CA_CERT_PATH", authority.file())
        .backend_fails(&[&plain.address.to_string(), "http://", "does not speak TLS"]);
}

#[test]
fn a_first_try_that_fails_is_repeated_once() {
    let fleet = Fleet::default();
    let whole = Server::start({
        let fleet = fleet.clone();
        move |request| fleet.reply(request)
    });
    let (expected, without) = Call::to(&whole).finds();
    let count = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |request| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            Reply::status(502, "<html>bad gateway</html>")
        } else {
            fleet.reply(request)
        }
    });
    let (document, with) = Call::to(&server).finds();
    assert_eq!(with.asked.len(), without.asked.len() + 1);
    let pods = |document: &serde_json::Value| {
        let replicas = document["replicas"].as_array().unwrap();
        replicas
            .iter()
            .map(|r| (r["podName"].clone(), r["kvCacheUsage"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(pods(&document), pods(&expected));
}
