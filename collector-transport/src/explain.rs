// SPDX-License-Identifier: Apache-2.0
//! Explains connection errors: what happened, and which key to change.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;

use collector_core::ErrorKind;
use collector_core::text::quote;

use crate::certificates::{SelfSigned, in_words};
use crate::error::Section;
use crate::resolver::Unresolved;

/// The explanation of an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cause {
    /// The kind of the error.
    pub kind: ErrorKind,
    /// What happened: printable, short, without secrets.
    pub detail: String,
    /// What the user should do; empty if the user can only wait.
    pub remedy: Cow<'static, str>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        for (separator, text) in [(": ", &*self.detail), ("; ", &*self.remedy)] {
            if !text.is_empty() {
                write!(f, "{separator}{text}")?;
            }
        }
        Ok(())
    }
}

impl Cause {
    /// A cause without a remedy.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), remedy: Cow::Borrowed("") }
    }

    /// Adds what the user should do.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

/// The settings that explanations of connection errors refer to.
#[derive(Clone, Debug)]
pub struct Wording {
    /// The section of the keys that are named.
    pub section: Section,
    /// The kind of server, `a PromQL server` for example.
    pub server: &'static str,
    /// The key of its address, `prometheus.url` for example, and its source if that is known:
    /// `prometheus.url (environment variable PROMETHEUS_BASE_URL)`.
    pub address: Cow<'static, str>,
    /// Follows the advice to use `http://`: empty, or the setting that it requires.
    pub unencrypted: &'static str,
    /// Host of the URL.
    pub host: String,
    /// `server_name`, where set.
    pub server_name: Option<String>,
    /// `ca_cert_path` is set.
    pub has_ca: bool,
    /// `client_cert_path` is set.
    pub has_client_cert: bool,
}

impl Wording {
    /// Explains an error of a connection.
    ///
    /// `connecting`: there was no connection yet. `client_cert_demanded`: the server asked for a certificate.
    pub fn explain(
        &self,
        error: &(dyn Error + 'static),
        connecting: bool,
        client_cert_demanded: bool,
    ) -> Cause {
        if let Some(tls) = find::<rustls::Error>(error) {
            return self.tls(tls, client_cert_demanded);
        }
        if let Some(dns) = find::<Unresolved>(error) {
            return Cause::new(ErrorKind::Dns, dns.to_string())
                .with_remedy(format!("is the host in {} right?", self.address));
        }
        if client_cert_demanded && !self.has_client_cert {
            return self.client_certificate_demanded();
        }
        let cause = root_cause(error);
        if connecting {
            return Cause::new(ErrorKind::Connect, cause)
                .with_remedy(format!("is the server running, and is {} right?", self.address));
        }
        if let Some(http) = find::<hyper::Error>(error) {
            if http.is_parse_too_large() {
                return Cause::new(
                    ErrorKind::TooLarge,
                    format!("the head of its answer is too large to be HTTP of {}", self.server),
                )
                .with_remedy(format!("check {}", self.address));
            }
            if http.is_parse() {
                return Cause::new(ErrorKind::BadAnswer, format!("it is not HTTP: {cause}"))
                    .with_remedy(format!(
                        "check the port, and whether {} should begin with https://",
                        self.address
                    ));
            }
        }
        Cause::new(ErrorKind::Disconnected, cause)
    }

    /// Explains that no connection was made in time.
    pub fn no_connection_in_time(&self) -> Cause {
        Cause::new(ErrorKind::Timeout, "no connection within the time").with_remedy(format!(
            "is the address in {} reachable from here, or does a firewall drop the packets?",
            self.address
        ))
    }

    fn tls(&self, error: &rustls::Error, demanded: bool) -> Cause {
        use rustls::{AlertDescription, CertificateError, Error as Tls};
        let failed = |detail: String| Cause::new(ErrorKind::Tls, detail);
        let ca_key = self.section.key_and_variable("ca_cert_path");
        match error {
            Tls::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => failed("the server's certificate has expired".into())
                .with_remedy("renew it; is this machine's clock right?"),
            Tls::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => failed("the server's certificate is not valid yet".into())
                .with_remedy("is this machine's clock right?"),
            // A bad signature is that of another authority with the same name, a renewed one for example.
            Tls::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) if self.has_ca => failed(format!(
                "the server's certificate is self-signed or signed by an authority that {} does not \
                 hold",
                self.section.key("ca_cert_path")
            ))
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
            Tls::InvalidCertificate(CertificateError::Other(inner)) if inner.0.is::<SelfSigned>() => {
                self.self_signed()
            }
            Tls::InvalidCertificate(other) => {
                failed(format!("the server's certificate {}", in_words(other)))
                    .with_remedy(format!("check the certificate and {ca_key}"))
            }
            Tls::AlertReceived(AlertDescription::CertificateRequired) => {
                self.client_certificate_demanded()
            }
            Tls::AlertReceived(alert) if demanded && !self.has_client_cert => {
                let mut cause = self.client_certificate_demanded();
                cause.detail = format!("{} ({alert:?})", cause.detail);
                cause
            }
            Tls::AlertReceived(alert) if self.has_client_cert => {
                failed(format!("the server refused the handshake: {alert:?}")).with_remedy(format!(
                    "does it trust the certificate in {}, and has that expired?",
                    self.section.key("client_cert_path")
                ))
            }
            Tls::InvalidMessage(_) => failed("the server does not speak TLS on this port".into())
                .with_remedy(format!(
                    "check the port, and whether {} should begin with http://{}",
                    self.address, self.unencrypted
                )),
            other => failed(other.to_string()),
        }
    }

    fn self_signed(&self) -> Cause {
        let ca_key = self.section.key_and_variable("ca_cert_path");
        let unlisted = if self.has_ca {
            format!(" and not in {}", self.section.key("ca_cert_path"))
        } else {
            String::new()
        };
        Cause::new(ErrorKind::Tls, format!("the server's certificate is self-signed{unlisted}"))
            .with_remedy(format!(
                "add this certificate to the file of {ca_key}, or skip the check with {}",
                self.section.key_and_variable("tls_insecure_skip_verify")
            ))
    }

    fn wrong_name(&self, error: &rustls::Error) -> Cause {
        let asked = self.server_name.as_ref().unwrap_or(&self.host);
        let holds = match error {
            rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForNameContext { presented, .. },
            ) => {
                if presented.is_empty() {
                    return self.no_name(asked);
                }
                let names: Vec<&str> = presented.iter().map(|name| bare_name(name)).collect();
                format!("the server's certificate is for {}", quote(&names.join(", ")))
            }
            _ => "the server's certificate is for another name".to_owned(),
        };
        Cause::new(ErrorKind::Tls, format!("{holds}, not for {asked:?}")).with_remedy(format!(
            "set {} to a name that it holds, or correct {}",
            self.section.key_and_variable("server_name"),
            self.address
        ))
    }

    /// Explains a certificate with a common name only, as old tools make them.
    fn no_name(&self, asked: &str) -> Cause {
        Cause::new(
            ErrorKind::Tls,
            "the server's certificate holds no name that counts: it has no subjectAltName, and a \
             common name alone is not read",
        )
        .with_remedy(format!(
            "have it issued with the subjectAltName {asked:?}, or skip the check with {}",
            self.section.key_and_variable("tls_insecure_skip_verify")
        ))
    }

    fn client_certificate_demanded(&self) -> Cause {
        let [cert, key] = ["client_cert_path", "client_key_path"];
        let variables = match (self.section.variable(cert), self.section.variable(key)) {
            (Some(cert), Some(key)) => format!(" ({cert}, {key})"),
            _ => String::new(),
        };
        Cause::new(ErrorKind::Tls, "the server demands a client certificate").with_remedy(format!(
            "set {} and {}{variables}",
            self.section.key(cert),
            self.section.key(key)
        ))
    }
}

/// Returns the name in `DnsName("a.example")` or `IpAddress(127.0.0.1)`.
fn bare_name(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"')
}

/// Returns the first `T` among an error and its causes, also inside an `io::Error`, whose `source` hides it.
pub fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
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

/// Returns the message of the innermost cause.
pub fn root_cause(error: &(dyn Error + 'static)) -> String {
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
    fn a_cause_is_found_inside_an_io_error() {
        let tls = rustls::Error::General("x".into());
        let wrapped = io::Error::other(io::Error::other(tls));
        assert!(find::<rustls::Error>(&wrapped).is_some());
        assert!(find::<hyper::Error>(&wrapped).is_none());
    }
}
