// SPDX-License-Identifier: Apache-2.0
//! A pod on loopback that says whatever a test lets it say.
//!
//! It also serves where tokio's time is paused, so that waits cost none: what one task writes to
//! loopback is there for the other at once, before the time moves.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_epp::discover::TargetSpec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a pod answers.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// A good answer with this page; the connection stays.
    Page(String),
    /// These bytes, and then the connection ends.
    Raw(Vec<u8>),
    /// To a request of each of these paths, query included, these bytes; the connection stays.
    Paths(Vec<(&'static str, Vec<u8>)>),
    /// Nothing, for ever.
    Nothing,
    /// These bytes one by one, with a pause before each.
    Drip(Vec<u8>, Duration),
    /// These bytes, and then nothing more.
    Stalls(Vec<u8>),
    /// These bytes, and then the others again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// A good answer with this page, and then the connection ends without a word of it.
    PageThenGone(String),
    /// A good answer with this page to the first request of a connection, which ends at the second.
    PageOnce(String),
}

/// A pod.
pub(crate) struct FakePod {
    pub(crate) address: SocketAddr,
    says: Arc<Mutex<Says>>,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
    open: Arc<()>,
    task: JoinHandle<()>,
}

impl Drop for FakePod {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakePod {
    pub(crate) async fn start(says: Says) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let says = Arc::new(Mutex::new(says));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (for_task, log) = (Arc::clone(&says), Arc::clone(&requests));
        let count = Arc::clone(&connections);
        let open = Arc::new(());
        let for_each = Arc::clone(&open);
        let task = tokio::spawn(async move {
            // Connections end with the pod.
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *count.lock().unwrap() += 1;
                let (says, log) = (Arc::clone(&for_task), Arc::clone(&log));
                let is_open = Arc::clone(&for_each);
                serving.spawn(async move {
                    let _ = serve(stream, says, log).await;
                    drop(is_open);
                });
            }
        });
        Self { address, says, requests, connections, open, task }
    }

    pub(crate) async fn with_page(page: &str) -> Self {
        Self::start(Says::Page(page.to_owned())).await
    }

    pub(crate) fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    /// The heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    /// Connections that have not ended.
    pub(crate) fn open_connections(&self) -> usize {
        // One is ours, and one the listener's.
        Arc::strong_count(&self.open) - 2
    }

    /// As a target called `pod` in the namespace `prod`.
    pub(crate) fn target(&self, pod: &str) -> TargetSpec {
        target(self.address, pod)
    }
}

/// A target called `pod` in the namespace `prod`.
pub(crate) fn target(address: SocketAddr, pod: &str) -> TargetSpec {
    TargetSpec {
        url: format!("http://{address}/metrics"),
        namespace: "prod".into(),
        pod: Some(pod.into()),
        ..TargetSpec::default()
    }
}

async fn serve(
    mut stream: TcpStream,
    says: Arc<Mutex<Says>>,
    requests: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    for number in 0.. {
        let Some(head) = head(&mut stream).await? else { return Ok(()) };
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        requests.lock().unwrap().push(head);
        let says = says.lock().unwrap().clone();
        match says {
            Says::PageOnce(_) if number > 0 => return Ok(()),
            Says::Page(page) | Says::PageOnce(page) => stream.write_all(&answer(&page)).await?,
            Says::PageThenGone(page) => {
                stream.write_all(&answer(&page)).await?;
                return Ok(());
            }
            Says::Raw(bytes) => {
                stream.write_all(&bytes).await?;
                stream.shutdown().await?;
                return Ok(());
            }
            Says::Paths(paths) => {
                let answer = paths.iter().find(|(known, _)| *known == path);
                stream.write_all(&answer.expect("a path that is known").1).await?;
            }
            Says::Nothing => return std::future::pending().await,
            Says::Stalls(bytes) => {
                stream.write_all(&bytes).await?;
                return std::future::pending().await;
            }
            Says::Drip(bytes, pause) => {
                for byte in bytes {
                    tokio::time::sleep(pause).await;
                    stream.write_all(&[byte]).await?;
                }
            }
            Says::Endless(bytes, again) => {
                stream.write_all(&bytes).await?;
                loop {
                    stream.write_all(&again).await?;
                }
            }
        }
    }
    Ok(())
}

async fn head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            // No HTTP: it is answered all the same, as servers do.
            Ok(byte) if head.is_empty() && !byte.is_ascii_alphabetic() => {
                return Ok(Some(String::new()));
            }
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

/// A good answer with this page.
pub(crate) fn answer(page: &str) -> Vec<u8> {
    answer_with("Content-Type: text/plain; version=0.0.4\r\n", page)
}

/// A good answer with these headers and this page.
pub(crate) fn answer_with(headers: &str, page: &str) -> Vec<u8> {
    let length = page.len();
    format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {length}\r\n\r\n{page}").into_bytes()
}

/// An answer without a page: its status line, headers and body.
pub(crate) fn status(line: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {line}\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// The page of a vLLM server.
pub(crate) fn vllm(model: &str, waiting: f64, kv: f64, requests: f64) -> String {
    let labels = format!("{{engine=\"0\",model_name=\"{model}\"}}");
    let tokens = requests * 100.0;
    format!(
        "vllm:num_requests_waiting{labels} {waiting}\n\
         vllm:num_requests_running{labels} 2.0\n\
         vllm:kv_cache_usage_perc{labels} {kv}\n\
         vllm:cache_config_info{{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"1000\"}} 1.0\n\
         vllm:request_prompt_tokens_sum{labels} {tokens}\n\
         vllm:request_prompt_tokens_count{labels} {requests}\n\
         vllm:request_generation_tokens_sum{labels} {tokens}\n\
         vllm:request_generation_tokens_count{labels} {requests}\n"
    )
}
