//! One scrape after the other, of one pod.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use collector_core::{ErrorKind, Tick};
use collector_transport::Cause;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST,
    TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;
use url::Url;

use super::connection::Connection;
use super::page::Reader;
use super::refused::{refuse, text};
use super::settings::Settings;
use crate::engines::Page;
use crate::scan::{Format, Summary};

/// The Python servers answer in OpenMetrics if asked, at no gain.
const ACCEPTED: HeaderValue = HeaderValue::from_static("text/plain;version=0.0.4");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("collector/", env!("CARGO_PKG_VERSION")));

/// Scrapes one pod over one connection.
///
/// Cancel-safe: a scrape that is dropped loses its connection, nothing else.
pub(crate) struct Scraper {
    url: Url,
    host: HeaderValue,
    connection: Option<Connection>,
    reader: Result<Reader, Cause>,
}

/// A page that was read to its end.
#[derive(Debug)]
pub(crate) struct Scraped {
    pub(crate) page: Page,
    pub(crate) summary: Summary,
    /// When the request was sent: nothing on the page is older.
    pub(crate) asked_at: Tick,
    /// When the page had arrived.
    pub(crate) arrived_at: Tick,
    /// By how many seconds the pod's wall clock is ahead of ours, to the second; `None` when it does
    /// not say.
    pub(crate) clock_ahead: Option<f64>,
}

/// How far a scrape came, for the message when its time is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Waiting,
    Reading,
}

/// A failed exchange.
struct Broken {
    cause: Cause,
    /// A connection that was kept had ended by itself before anything was answered: another one may do.
    stale: bool,
    /// There is another token to try.
    other_token: bool,
}

impl From<Cause> for Broken {
    fn from(cause: Cause) -> Self {
        Self { cause, stale: false, other_token: false }
    }
}

impl Scraper {
    pub(crate) fn new(url: Url, reader: Result<Reader, Cause>) -> Self {
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        // What the URL parser took for a host is a header value.
        let host = HeaderValue::from_str(&host).unwrap_or(HeaderValue::from_static(""));
        Self { url, host, connection: None, reader }
    }

    /// Closes the connection that is kept.
    pub(crate) fn hang_up(&mut self) {
        self.connection = None;
    }

    /// Gets and reads the page, within the time-out.
    pub(crate) async fn scrape(&mut self, settings: &Settings) -> Result<Scraped, Cause> {
        let mut stage = Stage::Connecting;
        let deadline = Instant::now() + settings.timeout;
        let attempts = self.attempts(settings, &mut stage);
        tokio::time::timeout_at(deadline, attempts).await.unwrap_or_else(|_| {
            let within = seconds(settings.timeout);
            Err(match stage {
                Stage::Connecting => settings.wording(&self.url).no_connection_in_time(),
                Stage::Waiting => {
                    Cause::new(ErrorKind::Timeout, format!("no answer began within {within}"))
                }
                Stage::Reading => Cause::new(
                    ErrorKind::Timeout,
                    format!("the page was not complete within {within}"),
                ),
            })
        })
    }

    /// One exchange; another one when the first could not tell anything about the pod.
    async fn attempts(&mut self, settings: &Settings, stage: &mut Stage) -> Result<Scraped, Cause> {
        if let Err(cause) = &self.reader {
            return Err(cause.clone());
        }
        match self.exchange(settings, stage).await {
            Err(broken) if broken.stale || broken.other_token => {
                *stage = Stage::Connecting;
                self.exchange(settings, stage).await.map_err(|broken| broken.cause)
            }
            outcome => outcome.map_err(|broken| broken.cause),
        }
    }

    async fn exchange(
        &mut self,
        settings: &Settings,
        stage: &mut Stage,
    ) -> Result<Scraped, Broken> {
        // Taken out, so that it is closed whatever ends this early.
        let kept = match self.connection.take() {
            Some(mut connection) => connection.is_open().await.then_some(connection),
            None => None,
        };
        let reused = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(&self.url, settings).await?,
        };
        *stage = Stage::Waiting;
        let asked_at = settings.clock.now();
        let request = self.request(settings);
        let wording = || settings.wording(&self.url);
        let (sender, mut driver) = connection.split();
        let response = Connection::drive(&mut driver, sender.send_request(request)).await;
        let response = response.map_err(|error| Broken {
            cause: wording().explain(&error, false, false),
            stale: reused,
            other_token: false,
        })?;
        *stage = Stage::Reading;
        let (head, body) = response.into_parts();
        if let Err(cause) = refuse(&head, &self.url, &settings.credential(&self.url)) {
            let other_token = cause.kind == ErrorKind::Unauthorized
                && settings.authorization(&self.url).is_some()
                && settings.token.changed_after_refusal();
            return Err(Broken { cause, stale: false, other_token });
        }
        let clock_ahead =
            date(&head.headers).map(|date| seconds_between(settings.clock.wall(), date));
        let reader = self.reader.as_mut().map_err(|cause| cause.clone())?;
        let format = Format::from_content_type(text(&head.headers, CONTENT_TYPE).as_deref());
        reader.begin(format, settings.clock.wall());
        let end_is_known = head.headers.contains_key(CONTENT_LENGTH)
            || head.headers.contains_key(TRANSFER_ENCODING);
        let read = read(body, reader, settings.limits.max_page_bytes);
        Connection::drive(&mut driver, read).await.map_err(|error| match error {
            Unread::Refused(cause) => cause,
            Unread::Broken(error) => wording().explain(&error, false, false),
        })?;
        let (page, summary) = reader.finish(end_is_known)?;
        let arrived_at = settings.clock.now();
        self.connection = Some(connection);
        Ok(Scraped { page, summary, asked_at, arrived_at, clock_ahead })
    }

    fn request(&self, settings: &Settings) -> Request<Empty<Bytes>> {
        let mut path = self.url.path().to_owned();
        if let Some(query) = self.url.query() {
            path = format!("{path}?{query}");
        }
        let mut request = Request::new(Empty::new());
        // What the URL parser took for a path is one.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, AGENT);
        headers.insert(ACCEPT, ACCEPTED);
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(token) = settings.authorization(&self.url) {
            headers.insert(AUTHORIZATION, token);
        }
        request
    }
}

enum Unread {
    Refused(Cause),
    Broken(hyper::Error),
}

/// Reads a body, chunk by chunk, to its end.
async fn read(mut body: Incoming, reader: &mut Reader, max_page_bytes: u64) -> Result<(), Unread> {
    if body.size_hint().exact().is_some_and(|announced| announced > max_page_bytes) {
        let detail = format!("the page is larger than {max_page_bytes} bytes");
        return Err(Unread::Refused(
            Cause::new(ErrorKind::TooLarge, detail)
                .with_remedy("is it the page of a model server? epp.max_page_bytes may be raised"),
        ));
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Unread::Broken)?;
        if let Some(chunk) = frame.data_ref() {
            reader.feed(chunk).map_err(Unread::Refused)?;
        }
    }
    Ok(())
}

fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()
}

fn seconds_between(ours: SystemTime, theirs: SystemTime) -> f64 {
    match theirs.duration_since(ours) {
        Ok(ahead) => ahead.as_secs_f64(),
        Err(behind) => -behind.duration().as_secs_f64(),
    }
}

fn seconds(duration: Duration) -> String {
    collector_core::duration::format(duration)
}
