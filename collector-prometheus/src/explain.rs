//! Errors of the transport in words: what happened, and which key changes it.

use std::error::Error;
use std::io;

use collector_core::ErrorKind;

use crate::failure::{Failure, Stage, quote};
use crate::resolver::Unresolved;

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
        if let Some(dns) = find::<Unresolved>(error) {
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
    fn a_cause_is_found_inside_an_io_error() {
        let tls = rustls::Error::General("x".into());
        let wrapped = io::Error::other(io::Error::other(tls));
        assert!(find::<rustls::Error>(&wrapped).is_some());
        assert!(find::<hyper::Error>(&wrapped).is_none());
    }
}
