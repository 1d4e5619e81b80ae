// SPDX-License-Identifier: Apache-2.0
//! A server that answers byte by byte as a case wants it, over TCP or TLS, and remembers what it was
//! asked.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// The parameter `query`, decoded.
    pub(crate) query: String,
    /// The parameter `time`, or the server's own.
    pub(crate) time: f64,
    /// The time was asked for.
    pub(crate) has_time: bool,
    pub(crate) authorization: String,
    pub(crate) arrived: Instant,
}

/// What the server does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A whole answer; the connection stays open.
    Answer { status: u16, headers: String, body: Vec<u8> },
    /// These bytes, and the end of the connection.
    Close(Vec<u8>),
    /// These bytes, and a reset.
    Reset(Vec<u8>),
    /// These bytes, and then nothing for as long as the client stays.
    Stall(Vec<u8>),
    /// These bytes, and then a blank every 100 ms.
    Drip(Vec<u8>),
    /// The first bytes, and then the second so many times.
    Flood(Vec<u8>, Vec<u8>, usize),
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Answer { status: 200, headers: json_type(), body: body.into() }
    }

    pub(crate) fn status(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::Answer { status, headers: String::new(), body: body.into() }
    }

    /// Adds a header to an answer.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.extend([name, ": ", value, "\r\n"]);
        }
        self
    }
}

fn json_type() -> String {
    "Content-Type: application/json\r\n".to_owned()
}

/// The head of an answer whose body follows.
pub(crate) fn head(headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes()
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
}

struct State {
    script: Mutex<Arc<Script>>,
    asked: Mutex<Vec<Request>>,
    connections: AtomicUsize,
}

impl Server {
    pub(crate) fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, script)
    }

    pub(crate) fn start_tls(
        tls: Arc<ServerConfig>,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(tls), script)
    }

    fn start_with(
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            script: Mutex::new(Arc::new(script)),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = Self { address, scheme, state: Arc::clone(&state) };
        // It ends with the process of the tests.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                state.connections.fetch_add(1, Ordering::SeqCst);
                let (state, tls) = (Arc::clone(&state), tls.clone());
                // That a client leaves in the middle is what many cases are about.
                thread::spawn(move || match tls {
                    None => state.converse(stream),
                    Some(tls) => {
                        let tls = ServerConnection::new(tls).map_err(io::Error::other)?;
                        state.converse(StreamOwned::new(tls, stream))
                    }
                });
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Answers in another way from now on.
    pub(crate) fn change(&self, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        *self.state.script.lock().unwrap() = Arc::new(script);
    }

    /// What was asked since the last call.
    pub(crate) fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.asked.lock().unwrap())
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

impl State {
    fn converse(&self, mut stream: impl Read + Write) -> io::Result<()> {
        loop {
            let (request, last) = match read_request(&mut stream) {
                Ok(Some(request)) => request,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                }
                Err(error) => return Err(error),
            };
            let script = Arc::clone(&self.script.lock().unwrap());
            self.asked.lock().unwrap().push(request.clone());
            let reply = script(&request);
            // What is closed with a byte unread is reset instead of ended.
            if !matches!(reply, Reply::Reset(_)) {
                stream.read_exact(&mut vec![0; last])?;
            }
            match reply {
                Reply::Answer { status, headers, body } => {
                    let head = format!("HTTP/1.1 {status} Said\r\n{headers}");
                    let length = match status {
                        204 => String::new(),
                        _ => format!("Content-Length: {}\r\n", body.len()),
                    };
                    stream.write_all(format!("{head}{length}\r\n").as_bytes())?;
                    stream.write_all(&body)?;
                    stream.flush()?;
                }
                Reply::Close(bytes) | Reply::Reset(bytes) => {
                    stream.write_all(&bytes)?;
                    return stream.flush();
                }
                Reply::Stall(bytes) => {
                    stream.write_all(&bytes)?;
                    stream.flush()?;
                    return stream.read(&mut [0]).map(drop);
                }
                Reply::Drip(bytes) => {
                    stream.write_all(&bytes)?;
                    loop {
                        stream.write_all(b" ")?;
                        stream.flush()?;
                        thread::sleep(Duration::from_millis(100));
                    }
                }
                Reply::Flood(first, piece, times) => {
                    stream.write_all(&first)?;
                    (0..times).try_for_each(|_| stream.write_all(&piece))?;
                    return stream.flush();
                }
            }
        }
    }
}

/// A request, and how many of its bytes are still unread: the last of its body. `None` where the
/// client closed the connection.
fn read_request(stream: &mut impl Read) -> io::Result<Option<(Request, usize)>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        if head.is_empty() && !byte[0].is_ascii_alphabetic() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not HTTP"));
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let header = |wanted: &str| {
        head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case(wanted).then(|| value.to_owned())
        })
    };
    let length: usize = header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let last = length.min(1);
    let mut body = vec![0; length - last];
    stream.read_exact(&mut body)?;
    let mut first = head.split(' ');
    let method = first.next().unwrap_or_default().to_owned();
    let target = first.next().unwrap_or_default();
    let (path, parameters) = target.split_once('?').unwrap_or((target, ""));
    let form = format!("{parameters}&{}", String::from_utf8_lossy(&body));
    let parameter = |name: &str| {
        let value = form.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        let value = value.replace('+', " ");
        Some(percent_encoding::percent_decode_str(&value).decode_utf8_lossy().into_owned())
    };
    let time = parameter("time").and_then(|time| time.parse().ok());
    let request = Request {
        method,
        path: path.to_owned(),
        query: parameter("query").unwrap_or_default(),
        time: time.unwrap_or_else(super::fleet::wall),
        has_time: time.is_some(),
        authorization: header("authorization").unwrap_or_default(),
        arrived: now(),
    };
    Ok(Some((request, last)))
}

#[expect(clippy::disallowed_methods, reason = "a server has a clock of its own")]
fn now() -> Instant {
    Instant::now()
}

/// An address where connections are never accepted and never refused; it is so for as long as this
/// lives.
pub(crate) struct Unanswering {
    pub(crate) address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Unanswering {
    /// Fills the queue of a listener that never accepts; from then on the kernel drops what comes.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wait = Duration::from_millis(200);
        let connect = || TcpStream::connect_timeout(&address, wait).ok();
        let queued = std::iter::from_fn(connect).collect();
        Self { address, _listener: listener, _queued: queued }
    }
}
