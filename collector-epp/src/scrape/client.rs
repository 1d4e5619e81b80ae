// SPDX-License-Identifier: Apache-2.0
//! Fetches the metrics page of one URL again and again: over one connection that is kept open, within a deadline.

use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use collector_core::{ErrorKind, Tick};
use collector_transport::{Cause, Token, redirect, sensitive};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, LOCATION,
    TRANSFER_ENCODING, USER_AGENT,
};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Incoming};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::connection::{Connection, ConnectionDriver};
use super::refused::{self, text};
use super::settings::Settings;
use super::words;
use crate::scan::TooLarge;

/// Python servers would answer in OpenMetrics if asked, without any gain.
const ACCEPTED: HeaderValue = HeaderValue::from_static("text/plain;version=0.0.4");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("collector/", env!("CARGO_PKG_VERSION")));
/// Redirects that are followed for one page.
const REDIRECTS_MAX: usize = 5;
/// The codes of redirects that are followed.
const FOLLOWED: [u16; 5] = [301, 302, 303, 307, 308];

/// Receives a page in chunks.
pub(super) trait ExpositionSink {
    /// Begins a page with this Content-Type, and discards an unfinished one.
    fn begin(&mut self, content_type: Option<&str>);

    /// Receives the next bytes of the page.
    fn feed(&mut self, chunk: &[u8]) -> Result<(), TooLarge>;
}

/// The credential that is sent to a server.
#[derive(Clone, Debug)]
pub enum Credential {
    /// The token of the configuration, for its targets, if it may be sent to them.
    Token,
    /// The token for endpoint pickers.
    EndpointPicker,
    /// The user name and password of a URL, see [`Credential::basic`].
    Basic(Basic),
    /// Nothing, because the URL is no target of the configuration.
    NoTarget,
}

/// A user name and a password, as a header and as secrets to be redacted. `Debug` shows neither.
#[derive(Clone, Debug)]
pub struct Basic {
    header: HeaderValue,
    secrets: [SecretString; 2],
}

impl Credential {
    /// A user name and a password, for `Authorization: Basic`.
    pub fn basic(user: &str, password: &str) -> Self {
        let pair = BASE64_STANDARD.encode(format!("{user}:{password}"));
        // Base64 is a header value.
        let header = sensitive(&format!("Basic {pair}")).unwrap_or(HeaderValue::from_static(""));
        Self::Basic(Basic { header, secrets: [password.into(), pair.into()] })
    }

    /// Returns a text of the server's without the credential.
    fn redact(&self, settings: &Settings, text: &str) -> String {
        let mut text = settings.picker_token().redact(&settings.token.redact(text));
        if let Self::Basic(Basic { secrets, .. }) = self {
            let secrets = secrets.iter().map(ExposeSecret::expose_secret);
            for secret in secrets.filter(|secret| !secret.is_empty()) {
                text = text.replace(secret, "[password]");
            }
        }
        text
    }

    /// Returns the token of the configuration that is sent.
    fn token<'a>(&self, settings: &'a Settings) -> Option<&'a Token> {
        match self {
            Self::Token => Some(&settings.token),
            Self::EndpointPicker => Some(settings.picker_token()),
            Self::Basic(_) | Self::NoTarget => None,
        }
    }

    fn header(&self, settings: &Settings, url: &Url) -> Option<HeaderValue> {
        match self {
            Self::Basic(basic) => Some(basic.header.clone()),
            _ => settings.authorization(self.token(settings)?, url),
        }
    }

    /// What was sent, in words.
    fn describe(&self, settings: &Settings, url: &Url) -> String {
        match self {
            Self::Token => settings.credential(&settings.token, url),
            Self::EndpointPicker => settings.credential(settings.picker_token(), url),
            Self::Basic(_) => "the user name and password of the URL were sent".to_owned(),
            Self::NoTarget => {
                "no token was sent, because the URL is not a target of the configuration".to_owned()
            }
        }
    }

    /// Adds a remedy if the server requires another credential.
    fn refused(&self, cause: Cause) -> Cause {
        let wants_another = matches!(cause.kind, ErrorKind::Unauthorized | ErrorKind::Forbidden);
        if !wants_another || !matches!(self, Self::NoTarget) {
            return cause;
        }
        cause.with_remedy(
            "epp.bearer_token or epp.token_path gives a token, which the targets of epp.targets, \
             epp.target_file and epp.dns get: add the URL there",
        )
    }
}

/// Fetches the pages of one URL.
///
/// Cancel-safe: a fetch that is dropped loses its connection, nothing else.
pub(super) struct Client {
    url: Url,
    host: HeaderValue,
    credential: Credential,
    connection: Option<Connection>,
}

/// A page that was fetched to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetched {
    /// When the request was sent: nothing on the page is older.
    pub(crate) asked_at: Tick,
    /// When the page had arrived.
    pub(crate) arrived_at: Tick,
    /// Seconds by which the server's wall clock is ahead of ours, to the second; `None` if it sends no date.
    pub(crate) clock_ahead: Option<f64>,
    /// The transfer gave its length or marked its end: the page is complete, even without a newline at its end.
    pub(crate) end_is_known: bool,
}

/// The stage of a fetch, for the message of a time-out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    Waiting,
    Reading,
}

/// A failed exchange.
struct Broken {
    cause: Cause,
    /// The kept connection had ended before anything was answered: a new one may work.
    stale: bool,
    /// There is another token to try.
    other_token: bool,
}

impl From<Cause> for Broken {
    fn from(cause: Cause) -> Self {
        Self { cause, stale: false, other_token: false }
    }
}

enum Answer {
    Exposition(Fetched),
    /// The page is at another path of the same origin.
    Moved(Url),
}

/// The context of one request.
struct Context<'a> {
    settings: &'a Settings,
    deadline: Instant,
    stage: &'a mut Stage,
}

impl Client {
    pub(super) fn new(url: Url, credential: Credential) -> Self {
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        // What the URL parser took for a host is a header value.
        let host = HeaderValue::from_str(&host).unwrap_or(HeaderValue::from_static(""));
        Self { url, host, credential, connection: None }
    }

    /// Closes the connection that is kept.
    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Hands the page to `sink`, all of it within `limit`.
    pub(super) async fn fetch(
        &mut self,
        settings: &Settings,
        limit: Duration,
        sink: &mut impl ExpositionSink,
    ) -> Result<Fetched, Cause> {
        let mut stage = Stage::Connecting;
        let deadline = Instant::now() + limit;
        let context = Context { settings, deadline, stage: &mut stage };
        let fetched = timeout_at(deadline, self.attempts(context, sink)).await;
        fetched.unwrap_or_else(|_| Err(self.timed_out(settings, stage, limit)))
    }

    fn timed_out(&self, settings: &Settings, stage: Stage, limit: Duration) -> Cause {
        let within = collector_core::duration::format(limit);
        let slow =
            |detail| Cause::new(ErrorKind::Timeout, detail).with_remedy(settings.more_time.clone());
        match stage {
            Stage::Connecting => {
                let cause = settings.wording(&self.url).no_connection_in_time();
                let remedy = format!("{}; {}", cause.remedy, settings.more_time);
                cause.with_remedy(remedy)
            }
            Stage::Waiting => slow(format!("no answer began within {within}")),
            Stage::Reading => slow(format!("the page was not complete within {within}")),
        }
    }

    /// Follows redirects on the same server to the page. A request is sent once more if there is another token to try,
    /// and if a kept connection had ended.
    async fn attempts(
        &mut self,
        mut context: Context<'_>,
        sink: &mut impl ExpositionSink,
    ) -> Result<Fetched, Cause> {
        let mut url = self.url.clone();
        let (mut redirects, mut renewed) = (0, false);
        loop {
            match self.request(&url, &mut context, sink).await {
                Ok(Answer::Exposition(fetched)) => return Ok(fetched),
                Ok(Answer::Moved(to)) if redirects == REDIRECTS_MAX => {
                    return Err(refused::too_many(REDIRECTS_MAX, &to));
                }
                Ok(Answer::Moved(to)) => {
                    redirects += 1;
                    url = to;
                }
                Err(broken) if broken.stale => *context.stage = Stage::Connecting,
                Err(broken) if broken.other_token && !renewed => {
                    renewed = true;
                    *context.stage = Stage::Connecting;
                }
                Err(broken) => return Err(broken.cause),
            }
        }
    }

    /// One request, over the connection that is kept or another one.
    async fn request(
        &mut self,
        url: &Url,
        context: &mut Context<'_>,
        sink: &mut impl ExpositionSink,
    ) -> Result<Answer, Broken> {
        let settings = context.settings;
        // Taken out, so that it is closed if this ends early.
        let kept = match self.connection.take() {
            Some(mut connection) => connection.is_open().await.then_some(connection),
            None => None,
        };
        let reused = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(&self.url, settings).await?,
        };
        *context.stage = Stage::Waiting;
        let asked_at = settings.clock.now();
        let request = self.head(url, settings);
        let wording = || settings.wording(&self.url);
        let (sender, mut driver) = connection.split();
        let response = Connection::drive(&mut driver, sender.send_request(request)).await;
        let response = response.map_err(|error| Broken {
            cause: wording().explain(&error, false, false),
            stale: reused,
            other_token: false,
        })?;
        *context.stage = Stage::Reading;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            let (words, ended) = beginning(body, &mut driver, context.deadline).await;
            if head.status.is_redirection() {
                let location = head.headers.get(LOCATION);
                let to =
                    redirect(url, head.status.as_u16(), location, &FOLLOWED, "the target's URL")?;
                self.connection = ended.then_some(connection);
                return Ok(Answer::Moved(to));
            }
            return Err(self.refused(&head, &words, settings));
        }
        refused::check_encoding(&head.headers)?;
        let clock_ahead =
            date(&head.headers).map(|date| seconds_between(settings.clock.wall(), date));
        sink.begin(text(&head.headers, CONTENT_TYPE).as_deref());
        let end_is_known = head.headers.contains_key(CONTENT_LENGTH)
            || head.headers.contains_key(TRANSFER_ENCODING);
        let read = read(body, sink, settings.limits.max_page_bytes);
        Connection::drive(&mut driver, read).await.map_err(|error| match error {
            Unread::Refused(error) => too_large(error),
            Unread::Broken(error) => wording().explain(&error, false, false),
        })?;
        let arrived_at = settings.clock.now();
        self.connection = Some(connection);
        Ok(Answer::Exposition(Fetched { asked_at, arrived_at, clock_ahead, end_is_known }))
    }

    fn refused(&self, head: &Parts, body: &[u8], settings: &Settings) -> Broken {
        let sent = self.credential.describe(settings, &self.url);
        let words = words::of(body).map(|words| self.credential.redact(settings, &words));
        let cause = refused::status(head, &self.url, &sent, words.as_deref());
        let other_token = cause.kind == ErrorKind::Unauthorized
            && self.credential.token(settings).is_some_and(|token| {
                settings.authorization(token, &self.url).is_some() && token.changed_after_refusal()
            });
        Broken { cause: self.credential.refused(cause), stale: false, other_token }
    }

    fn head(&self, url: &Url, settings: &Settings) -> Request<Empty<Bytes>> {
        let mut path = url.path().to_owned();
        if let Some(query) = url.query() {
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
        if let Some(credential) = self.credential.header(settings, &self.url) {
            headers.insert(AUTHORIZATION, credential);
        }
        request
    }
}

/// Returns the beginning of an answer without a page, and whether that is all of it. Only half of the time left is
/// spent on it, because the status matters more than its explanation.
async fn beginning(
    body: Incoming,
    driver: &mut ConnectionDriver<'_>,
    deadline: Instant,
) -> (Vec<u8>, bool) {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut bytes = Vec::new();
    let read = timeout_at(Instant::now() + left / 2, words::beginning(body, &mut bytes));
    let ended = Connection::drive(driver, read).await.unwrap_or(false);
    (bytes, ended)
}

enum Unread {
    Refused(TooLarge),
    Broken(hyper::Error),
}

/// Reads a body, chunk by chunk, to its end.
async fn read(
    mut body: Incoming,
    sink: &mut impl ExpositionSink,
    max_page_bytes: u64,
) -> Result<(), Unread> {
    if body.size_hint().exact().is_some_and(|announced| announced > max_page_bytes) {
        return Err(Unread::Refused(TooLarge { max_page_bytes }));
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Unread::Broken)?;
        if let Some(chunk) = frame.data_ref() {
            sink.feed(chunk).map_err(Unread::Refused)?;
        }
    }
    Ok(())
}

pub(super) fn too_large(error: TooLarge) -> Cause {
    Cause::new(ErrorKind::TooLarge, error.to_string())
        .with_remedy("is it the page of a model server? epp.max_page_bytes may be raised")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown_by_debug() {
        let shown = format!("{:?}", Credential::basic("me", "hunter2"));
        assert!(!shown.contains("hunter2") && !shown.contains("bWU6"), "{shown}");
    }
}
