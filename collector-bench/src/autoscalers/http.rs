// SPDX-License-Identifier: Apache-2.0
//! Sends one request again and again over connections that stay open, and a bare server of the web framework to compare
//! an API with.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::any;
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

/// The argument by which this program is told to be the bare server.
const BARE: &str = "--bare-answer";
/// For a server to listen.
const PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// One connection to a server.
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr, path: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes();
        Ok(Self { stream, request, received: Vec::new() })
    }

    /// Sends the request, and returns the status and the body.
    pub(crate) async fn ask(&mut self) -> Result<(u16, &[u8])> {
        self.stream.write_all(&self.request).await?;
        self.received.clear();
        loop {
            if let Some((status, head, body)) = lengths(&self.received)?
                && self.received.len() >= head + body
            {
                return Ok((status, &self.received[head..head + body]));
            }
            ensure!(self.received.len() < ANSWER_BYTES_MAX, "the answer is too large");
            ensure!(self.stream.read_buf(&mut self.received).await? > 0, "the connection ended");
        }
    }
}

/// The status, and the bytes of head and body; `None` while the head is incomplete.
fn lengths(received: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&received[..end])?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match (status, length) {
        (Some(status), Some(length)) => Ok(Some((status, end + 4, length))),
        _ => bail!("no HTTP answer with a length: {head}"),
    }
}

/// Answers a second, as many as the server gives to so many connections.
pub(crate) async fn pace(
    address: SocketAddr,
    path: &str,
    connections: usize,
    time: Duration,
) -> Result<f64> {
    let until = Instant::now() + time;
    let mut asking = JoinSet::new();
    for _ in 0..connections {
        let mut connection = Connection::open(address, path).await?;
        asking.spawn(async move {
            let mut answers = 0_u32;
            while Instant::now() < until {
                let (status, _) = connection.ask().await?;
                ensure!(status == 200, "status {status}");
                answers += 1;
            }
            anyhow::Ok(answers)
        });
    }
    let mut answers = 0;
    while let Some(ended) = asking.join_next().await {
        answers += ended??;
    }
    Ok(f64::from(answers) / time.as_secs_f64())
}

/// The paces of a server and of the bare one with the same path: the medians of several rounds.
pub(crate) async fn beside(
    bare: &Bare,
    address: SocketAddr,
    path: &str,
    connections: usize,
    quick: bool,
) -> Result<(f64, f64)> {
    let (rounds, time) = if quick { (3, 1) } else { (6, 3) };
    let time = Duration::from_secs(time);
    let (mut own, mut peer) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        // In turns, so that what else the machine does is shared.
        peer.push(pace(bare.address, path, connections, time).await?);
        own.push(pace(address, path, connections, time).await?);
    }
    Ok((median(own), median(peer)))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The 99th percentile of the times to an answer, in seconds, at this pace whatever the answers take.
pub(crate) async fn p99(
    address: SocketAddr,
    path: &str,
    (connections, pace): (u32, f64),
    time: Duration,
) -> Result<f64> {
    let every = Duration::from_secs_f64(f64::from(connections) / pace);
    let until = Instant::now() + time;
    let mut asking = JoinSet::new();
    for index in 0..connections {
        let mut connection = Connection::open(address, path).await?;
        asking.spawn(async move {
            let mut micros = Histogram::<u64>::new(3)?;
            sleep(every.mul_f64(f64::from(index) / f64::from(connections))).await;
            let mut due = interval(every);
            loop {
                // From when it was due: a server that stalls delays the requests behind it.
                let due_at = due.tick().await;
                if due_at >= until {
                    return anyhow::Ok(micros);
                }
                connection.ask().await?;
                micros.record(u64::try_from(due_at.elapsed().as_micros())?)?;
            }
        });
    }
    let mut all = Histogram::<u64>::new(3)?;
    while let Some(ended) = asking.join_next().await {
        all.add(ended??)?;
    }
    Ok(all.value_at_quantile(0.99) as f64 / 1e6)
}

/// A server of the web framework alone, which gives the same answer to everything.
pub(crate) struct Bare {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Bare {
    pub(crate) async fn start(answer: &[u8], folder: &Path) -> Result<Self> {
        let (body, port) = (folder.join("answer"), folder.join("port"));
        fs::write(&body, answer)?;
        let process = Command::new(env::current_exe()?)
            .arg(BARE)
            .args([&body, &port])
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run the bare server")?;
        let mut bare = Self { process, address: (Ipv4Addr::LOCALHOST, 0).into() };
        let began = Instant::now();
        loop {
            if let Ok(Ok(port)) = fs::read_to_string(&port).map(|text| text.trim().parse::<u16>()) {
                bare.address.set_port(port);
                return Ok(bare);
            }
            ensure!(began.elapsed() < PATIENCE, "the bare server does not listen");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Is the bare server if this process was started for that, until it is killed; returns whether it was.
pub(crate) async fn serve_if_told() -> Result<bool> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != BARE) {
        return Ok(false);
    }
    let (Some(body), Some(port)) = (arguments.next(), arguments.next()) else {
        bail!("{BARE} takes the file with the answer, and the one for the port");
    };
    let body = Bytes::from(fs::read(body)?);
    let answer = move || {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    fs::write(port, format!("{}\n", listener.local_addr()?.port()))?;
    axum::serve(listener, Router::new().fallback(any(answer))).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_its_length_in_the_head() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(lengths(answer).unwrap(), Some((200, answer.len() - 2, 2)));
        assert_eq!(lengths(&answer[..20]).unwrap(), None);
        assert!(lengths(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
