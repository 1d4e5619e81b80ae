//! One page from a server, bounded in time, size and redirects.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{BackendError, CollectError, ErrorKind, Operation};
use collector_epp::EppConfig;
use collector_epp::scan::{PageTooLarge, Sample};
use collector_transport::{Section, Tls, TlsSettings, Wording, quote, root_cause};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION,
};
use reqwest::{Client, Response, StatusCode, Url};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use super::PATH_HINT;
use super::intake::Intake;
use super::source::Transfer;
use crate::exit::Failure;

/// For the page and all redirects on the way to it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;
/// The Python servers would answer in OpenMetrics if they were asked for it.
const ACCEPTED: &str = "text/plain;version=0.0.4";
/// The section of the backend that reads such pages.
const SECTION: Section = Section { name: "epp", variables: None };

/// Hands the page at a URL to `intake`.
///
/// A connection that breaks within the page is no error: the page was cut short.
pub(super) async fn page<Each: FnMut(&Sample<'_>)>(
    config: &EppConfig,
    url: &Url,
    content_type: Option<&str>,
    intake: &mut Intake<Each>,
) -> Result<Transfer, Failure> {
    let transfer = async {
        let mut response = answer(config, url.clone()).await?;
        let announced = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        intake.begin(content_type.or(announced));
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => intake.take(&chunk).map_err(|error| too_large(url, error))?,
                Ok(None) => return Ok(Transfer::Complete),
                Err(error) => return Ok(Transfer::CutShort(root_cause(&error))),
            }
        }
    };
    timeout(TIMEOUT, transfer).await.unwrap_or_else(|_| {
        let detail = format!("the page was not complete within {} s", TIMEOUT.as_secs());
        Err(failure(url, ErrorKind::Timeout, detail, "is the address reachable from here?"))
    })
}

/// A page over the limit.
pub(super) fn too_large(url: &Url, error: PageTooLarge) -> Failure {
    failure(url, ErrorKind::TooLarge, error.to_string(), "is this really a page of metrics?")
}

/// A URL as messages show it: without what may be secret.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    quote(url.as_str())
}

/// The answer that has the page, after any redirects.
async fn answer(config: &EppConfig, mut url: Url) -> Result<Response, Failure> {
    for _ in 0..=REDIRECTS_MAX {
        let response = get(config, &url).await?;
        match response.status() {
            StatusCode::OK => return decoded(&url, response),
            status if status.is_redirection() => url = next(&url, response.headers())?,
            status => return Err(refused(&url, status)),
        }
    }
    let detail = format!("more than {REDIRECTS_MAX} redirects");
    Err(failure(&url, ErrorKind::Redirected, detail, PATH_HINT))
}

async fn get(config: &EppConfig, url: &Url) -> Result<Response, Failure> {
    let tls = (url.scheme() == "https").then(|| Tls::new(&settings(config, url))).transpose();
    let tls = tls.map_err(Failure::usage)?;
    let tls_config = match &tls {
        Some(tls) => tls.config.clone(),
        None => no_tls().map_err(Failure::other)?,
    };
    let client = Client::builder()
        .user_agent(concat!("collector/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_gzip()
        .no_proxy()
        .tls_backend_preconfigured(tls_config)
        .build()
        .map_err(|error| Failure::other(format!("the HTTP client cannot be built: {error}")))?;
    let request = client.get(url.clone()).header(ACCEPT, ACCEPTED);
    request.header(ACCEPT_ENCODING, "identity").send().await.map_err(|error| {
        let demanded = tls.as_ref().is_some_and(Tls::take_client_cert_demanded);
        broken(config, url, error, demanded)
    })
}

/// Refuses a body in an encoding that was not asked for.
fn decoded(url: &Url, response: Response) -> Result<Response, Failure> {
    match response.headers().get(CONTENT_ENCODING) {
        Some(encoding) if encoding.as_bytes() != b"identity" => {
            let encoding = quote(&String::from_utf8_lossy(encoding.as_bytes()));
            let detail = format!("its encoding {encoding:?} is none that was asked for");
            Err(failure(url, ErrorKind::BadAnswer, detail, "does a proxy stand between?"))
        }
        _ => Ok(response),
    }
}

/// Where a redirect leads.
fn next(url: &Url, headers: &HeaderMap) -> Result<Url, Failure> {
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let next = location.and_then(|location| url.join(location).ok());
    next.filter(|next| matches!(next.scheme(), "http" | "https")).ok_or_else(|| {
        let detail = "to nowhere that can be followed";
        failure(url, ErrorKind::Redirected, detail, PATH_HINT)
    })
}

/// An answer with a status that is no success.
fn refused(url: &Url, status: StatusCode) -> Failure {
    let number = status.as_u16();
    let (kind, remedy) = match number {
        401 => (ErrorKind::Unauthorized, "it wants a credential: http://USER:PASSWORD@…"),
        403 => (ErrorKind::Forbidden, "may this credential read its metrics?"),
        404 => (ErrorKind::NotFound, PATH_HINT),
        429 => (ErrorKind::RateLimited, ""),
        503 => (ErrorKind::Overloaded, "is it still starting?"),
        500..=599 => (ErrorKind::ServerError, "what does its log say?"),
        400..=499 => (ErrorKind::Rejected, PATH_HINT),
        _ => (ErrorKind::BadAnswer, PATH_HINT),
    };
    failure(url, kind, format!("status {number}"), remedy)
}

/// A connection that did not come about, or broke before the answer began.
fn broken(
    config: &EppConfig,
    url: &Url,
    error: reqwest::Error,
    client_cert_demanded: bool,
) -> Failure {
    let error = error.without_url();
    let wording = Wording {
        section: SECTION,
        server: "a server of metrics",
        address: "the URL".into(),
        unencrypted: "",
        host: url.host_str().unwrap_or_default().to_owned(),
        server_name: config.server_name.clone(),
        has_ca: config.ca_cert_path.is_some(),
        has_client_cert: false,
    };
    let cause = wording.explain(&error, error.is_connect(), client_cert_demanded);
    failure(url, cause.kind, cause.detail, cause.remedy)
}

fn failure(
    url: &Url,
    kind: ErrorKind,
    detail: impl Into<Cow<'static, str>>,
    remedy: impl Into<Cow<'static, str>>,
) -> Failure {
    let error = BackendError::new(kind, SECTION.name.into(), Operation::Fetch, shown(url));
    CollectError::Backend(Arc::new(error.with_detail(detail).with_remedy(remedy))).into()
}

/// What the section of the backend says about TLS. Its token is for its own targets alone.
fn settings(config: &EppConfig, url: &Url) -> TlsSettings {
    TlsSettings {
        section: SECTION,
        server: shown(url),
        ca_cert_path: config.ca_cert_path.clone(),
        client_cert_path: None,
        client_key_path: None,
        server_name: config.server_name.clone(),
        tls_insecure_skip_verify: config.tls_insecure_skip_verify,
    }
}

/// For a connection without TLS: otherwise the HTTP client would load the system's authorities.
fn no_tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth())
}
