//! Why a request failed: the kind, and the words for the user.

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{BackendError, ErrorKind, Operation};

/// Characters of a server's own text that are shown.
const QUOTED_MAX: usize = 200;

/// A request that failed. One failure may be told to many models, so it can be cloned.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    /// The cause: printable, short, without secrets.
    pub(crate) detail: String,
    pub(crate) remedy: Cow<'static, str>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) split: Split,
    /// How far the request came.
    pub(crate) stage: Stage,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Whether a smaller query may succeed where this one failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Split {
    /// Size is not the matter.
    No,
    /// The server has a limit on samples: split until it fits.
    UntilItFits,
    /// The server ran out of time: one split, then it is left in peace.
    Once,
}

/// How far a request came before it failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    /// It was not sent.
    Unsent,
    /// Resolving, connecting and shaking hands.
    Connecting,
    /// Waiting for the head of the answer, or reading the answer.
    Answering,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            remedy: Cow::Borrowed(""),
            retry_after: None,
            split: Split::No,
            stage: Stage::Answering,
            source: None,
        }
    }

    pub(crate) fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = remedy.into();
        self
    }

    pub(crate) fn with_split(mut self, split: Split) -> Self {
        self.split = split;
        self
    }

    pub(crate) fn at(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    pub(crate) fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The engine gave no leave to send.
    pub(crate) fn not_permitted(error: BackendError) -> Self {
        let mut failure =
            Self::new(error.kind(), "").with_remedy(error.remedy().to_owned()).at(Stage::Unsent);
        failure.retry_after = error.retry_after();
        failure.with_source(error)
    }

    /// Whether other requests to the same server would fail as this one did, so that they are not
    /// worth sending.
    pub(crate) fn is_of_the_server(&self) -> bool {
        match self.kind {
            ErrorKind::Dns
            | ErrorKind::Connect
            | ErrorKind::Tls
            | ErrorKind::Unauthorized
            | ErrorKind::Forbidden
            | ErrorKind::NotFound
            | ErrorKind::Redirected
            | ErrorKind::RateLimited
            | ErrorKind::Configuration
            | ErrorKind::Unsupported
            | ErrorKind::CircuitOpen
            | ErrorKind::Stopped => true,
            ErrorKind::Timeout => self.stage <= Stage::Connecting,
            ErrorKind::Disconnected
            | ErrorKind::Rejected
            | ErrorKind::Overloaded
            | ErrorKind::ServerError
            | ErrorKind::BadAnswer
            | ErrorKind::TooLarge
            | ErrorKind::Panicked => false,
        }
    }

    /// The error as a caller of the backend gets it.
    pub(crate) fn into_error(self, operation: Operation, url: &str) -> BackendError {
        let mut error = BackendError::new(self.kind, crate::NAME.into(), operation, url)
            .with_detail(self.detail)
            .with_remedy(self.remedy);
        if let Some(after) = self.retry_after {
            error = error.with_retry_after(after);
        }
        match self.source {
            Some(source) => error.with_source(Shared(source)),
            None => error,
        }
    }
}

/// A source that several errors share.
#[derive(Debug)]
struct Shared(Arc<dyn Error + Send + Sync>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Shared {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// What a server wrote, fit to be shown: printable, in one line, at most 200 characters.
pub(crate) fn quote(text: &str) -> String {
    let mut shown = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == QUOTED_MAX {
            shown.push('…');
            break;
        }
        let hidden = c.is_control() || is_format_character(c);
        shown.push(if c.is_whitespace() {
            ' '
        } else if hidden {
            '\u{fffd}'
        } else {
            c
        });
    }
    shown
}

/// Characters that print nothing and change how their neighbours print.
fn is_format_character(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
            | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// Facts of the configuration that errors of the transport are explained with.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// Host of the URL.
    pub(crate) host: String,
    /// `prometheus.server_name`, where set.
    pub(crate) server_name: Option<String>,
    /// `prometheus.ca_cert_path` is set.
    pub(crate) has_ca: bool,
    /// `prometheus.client_cert_path` is set.
    pub(crate) has_client_cert: bool,
}

impl Context {
    /// Explains an error of the HTTP client. `client_cert_demanded`: the server asked for one.
    pub(crate) fn explain(&self, error: reqwest::Error, client_cert_demanded: bool) -> Failure {
        // The URL may hold the query, and the message names the server in any case.
        let error = error.without_url();
        let stage = if error.is_connect() { Stage::Connecting } else { Stage::Answering };
        let mut failure = self.classify(&error, stage, client_cert_demanded);
        failure.stage = stage;
        failure.with_source(error)
    }

    fn classify(&self, error: &reqwest::Error, stage: Stage, demanded: bool) -> Failure {
        if let Some(tls) = find::<rustls::Error>(error) {
            return self.tls(tls, demanded);
        }
        if let Some(dns) = find::<crate::client::Unresolved>(error) {
            return Failure::new(ErrorKind::Dns, dns.to_string())
                .with_remedy("is the host in prometheus.url right?");
        }
        if error.is_timeout() {
            return no_connection_in_time();
        }
        if demanded && !self.has_client_cert {
            return client_certificate_demanded();
        }
        let cause = root_cause(error);
        if stage == Stage::Connecting {
            return Failure::new(ErrorKind::Connect, cause)
                .with_remedy("is the server running, and is prometheus.url right?");
        }
        if let Some(http) = find::<hyper::Error>(error) {
            if http.is_parse_too_large() {
                return Failure::new(
                    ErrorKind::TooLarge,
                    "the head of its answer is too large to be HTTP of a PromQL server",
                )
                .with_remedy("check prometheus.url");
            }
            if http.is_parse() {
                return Failure::new(ErrorKind::BadAnswer, format!("it is not HTTP: {cause}"))
                    .with_remedy(
                        "check the port, and whether prometheus.url should begin with https://",
                    );
            }
        }
        if error.is_decode() && find::<hyper::Error>(error).is_none() {
            return Failure::new(
                ErrorKind::BadAnswer,
                format!("its compressed body cannot be read: {cause}"),
            );
        }
        Failure::new(ErrorKind::Disconnected, cause)
    }

    fn tls(&self, error: &rustls::Error, demanded: bool) -> Failure {
        use rustls::{AlertDescription, CertificateError, Error as Tls};
        let failed = |detail: String| Failure::new(ErrorKind::Tls, detail);
        let ca_key = "prometheus.ca_cert_path (PROMETHEUS_CA_CERT_PATH)";
        match error {
            Tls::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => failed("the server's certificate has expired".into())
                .with_remedy("renew it; is this machine's clock right?"),
            Tls::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => failed("the server's certificate is not valid yet".into())
                .with_remedy("is this machine's clock right?"),
            // A bad signature is that of another authority of the same name, one made anew for example.
            Tls::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) if self.has_ca => failed(
                "the server's certificate is self-signed or signed by an authority that \
                 prometheus.ca_cert_path does not hold"
                    .into(),
            )
            .with_remedy(format!("put the right authority into {ca_key}")),
            Tls::InvalidCertificate(CertificateError::UnknownIssuer) => failed(
                "the server's certificate is self-signed or signed by an authority that this \
                 machine does not know"
                    .into(),
            )
            .with_remedy(format!("give the authority's certificate in {ca_key}")),
            Tls::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => self.wrong_name(error),
            Tls::InvalidCertificate(other) => {
                failed(format!("the server's certificate is not good: {other}"))
                    .with_remedy(format!("check the certificate and {ca_key}"))
            }
            Tls::AlertReceived(AlertDescription::CertificateRequired) => {
                client_certificate_demanded()
            }
            Tls::AlertReceived(alert) if demanded && !self.has_client_cert => {
                let mut failure = client_certificate_demanded();
                failure.detail = format!("{} ({alert:?})", failure.detail);
                failure
            }
            Tls::AlertReceived(alert) if self.has_client_cert => {
                failed(format!("the server refused the handshake: {alert:?}")).with_remedy(
                    "does it trust the certificate in prometheus.client_cert_path, and has that \
                     expired?",
                )
            }
            Tls::InvalidMessage(_) => failed("the server does not speak TLS on this port".into())
                .with_remedy(
                    "check the port, and whether prometheus.url should begin with http:// (with \
                     prometheus.allow_http)",
                ),
            other => failed(other.to_string()),
        }
    }

    fn wrong_name(&self, error: &rustls::Error) -> Failure {
        let asked = self.server_name.as_ref().unwrap_or(&self.host);
        let holds = match error {
            rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForNameContext { presented, .. },
            ) if !presented.is_empty() => {
                format!("the server's certificate is for {}", quote(&presented.join(", ")))
            }
            _ => "the server's certificate is for another name".to_owned(),
        };
        Failure::new(ErrorKind::Tls, format!("{holds}, not for {asked:?}")).with_remedy(
            "set prometheus.server_name (PROMETHEUS_SERVER_NAME) to a name that it holds, or \
             correct prometheus.url",
        )
    }
}

pub(crate) fn no_connection_in_time() -> Failure {
    Failure::new(ErrorKind::Timeout, "no connection within the time")
        .with_remedy(
            "is the address in prometheus.url reachable from here, or does a firewall drop the \
             packets?",
        )
        .at(Stage::Connecting)
}

fn client_certificate_demanded() -> Failure {
    Failure::new(ErrorKind::Tls, "the server demands a client certificate").with_remedy(
        "set prometheus.client_cert_path and prometheus.client_key_path \
         (PROMETHEUS_CLIENT_CERT_PATH, PROMETHEUS_CLIENT_KEY_PATH)",
    )
}

/// The first `T` among an error and its causes; an `io::Error` hides what it wraps from `source`.
pub(crate) fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref)
            && let Some(found) = find::<T>(inner)
        {
            return Some(found);
        }
        current = error.source();
    }
    None
}

/// The innermost cause, in words.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    quote(&current.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_wrote_is_shown_in_one_short_printable_line() {
        assert_eq!(quote(" a\nb\x1b[31m\u{202e}c "), "a b\u{fffd}[31m\u{fffd}c");
        let long = quote(&"é".repeat(500));
        assert_eq!(long.chars().count(), QUOTED_MAX + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_cause_is_found_inside_an_io_error() {
        let tls = rustls::Error::General("x".into());
        let wrapped = io::Error::other(io::Error::other(tls));
        assert!(find::<rustls::Error>(&wrapped).is_some());
        assert!(find::<hyper::Error>(&wrapped).is_none());
    }
}
