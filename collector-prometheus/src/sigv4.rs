//! Signs requests for services of AWS (Signature Version 4).

use std::time::Duration;

use collector_core::ErrorKind;
use collector_transport::{ConfigError, quote};
use reqsign_aws_v4::{DefaultCredentialProvider, RequestSigner};
use reqsign_core::{Context, Env, Error, FileRead, HttpSend, OsEnv, hash};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};

use crate::SECTION;
use crate::config::PrometheusConfig;
use crate::failure::{Failure, Stage};

/// Bytes of a file of credentials, or of an answer that holds some.
const CREDENTIAL_BYTES_MAX: usize = 1 << 20;
/// The hash of the body, which the signature covers.
const CONTENT_SHA256: &str = "x-amz-content-sha256";
/// The headers that a signature adds.
const ADDED: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static(CONTENT_SHA256),
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-security-token"),
];

/// Signs requests with credentials that AWS's usual places hold: variables, files, the identity of a pod
/// or a machine.
pub(crate) struct Signer {
    signer: reqsign_core::Signer<reqsign_aws_v4::Credential>,
    region: String,
    timeout: Duration,
}

impl Signer {
    pub(crate) fn new(config: &PrometheusConfig, region: &str) -> Result<Self, ConfigError> {
        Self::with_env(config, region, OsEnv)
    }

    fn with_env(
        config: &PrometheusConfig,
        region: &str,
        env: impl Env,
    ) -> Result<Self, ConfigError> {
        let http = Http::new(config.timeout)?;
        let context = Context::new().with_file_read(Files).with_http_send(http).with_env(env);
        let mut provider = DefaultCredentialProvider::builder();
        if let Some(profile) = &config.sigv4.profile {
            provider = provider.with_profile(profile);
        }
        let signing = RequestSigner::new(&config.sigv4.service, region);
        // No program is run for credentials: that is `prometheus.token_command`.
        let signer = reqsign_core::Signer::new(context, provider.no_process().build(), signing);
        Ok(Self { signer, region: region.to_owned(), timeout: config.timeout })
    }

    /// The headers that sign a request with this body.
    pub(crate) async fn sign(
        &self,
        method: &Method,
        url: &Url,
        body: &str,
    ) -> Result<HeaderMap, Failure> {
        let failed = |problem: &str| {
            Failure::new(ErrorKind::Configuration, format!("prometheus.sigv4: {problem}"))
                .with_remedy(
                    "does this machine have credentials of AWS: AWS_ACCESS_KEY_ID with \
                     AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, or the role of a pod or an instance?",
                )
                .at(Stage::Unsent)
        };
        let mut request = http::Request::builder().method(method.clone()).uri(url.as_str());
        request = request.header(CONTENT_SHA256, hash::hex_sha256(body.as_bytes()));
        let (mut parts, ()) = request
            .body(())
            .map_err(|error| failed("the request cannot be signed").with_source(error))?
            .into_parts();
        match tokio::time::timeout(self.timeout, self.signer.sign(&mut parts, None)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(failed(&quote(&error.to_string()))),
            Err(_) => return Err(failed("the credentials did not come within prometheus.timeout")),
        }
        let mut headers = HeaderMap::new();
        for name in ADDED {
            if let Some(value) = parts.headers.remove(&name) {
                headers.insert(name, value);
            }
        }
        if !headers.contains_key(AUTHORIZATION) {
            return Err(failed("no credentials were found"));
        }
        if let Some(token) = headers.get_mut("x-amz-security-token") {
            HeaderValue::set_sensitive(token, true);
        }
        Ok(headers)
    }

    /// What was sent, for messages.
    pub(crate) fn describe(&self) -> String {
        format!("a signature for {} (prometheus.sigv4) was sent", self.region)
    }
}

/// Reads files of credentials.
#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        use tokio::io::AsyncReadExt as _;
        let failed = |error| Error::unexpected("a file cannot be read").with_source(error);
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let mut bytes = Vec::new();
        file.take(CREDENTIAL_BYTES_MAX as u64).read_to_end(&mut bytes).await.map_err(failed)?;
        Ok(bytes)
    }
}

/// Asks AWS for credentials: the services of a machine or a pod, and the one that gives roles.
#[derive(Debug)]
struct Http(reqwest::Client);

impl Http {
    fn new(timeout: Duration) -> Result<Self, ConfigError> {
        let tls = collector_transport::Tls::new(&collector_transport::TlsSettings {
            section: SECTION,
            server: "the services of AWS".to_owned(),
            ca_cert_path: None,
            client_cert_path: None,
            client_key_path: None,
            server_name: None,
            tls_insecure_skip_verify: false,
        })?;
        reqwest::Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tls_backend_preconfigured(tls.config)
            .build()
            .map(Self)
            .map_err(|error| {
                SECTION.error("sigv4.region", "the HTTP client cannot be built").with_source(error)
            })
    }
}

impl HttpSend for Http {
    async fn http_send(
        &self,
        request: http::Request<bytes::Bytes>,
    ) -> reqsign_core::Result<http::Response<bytes::Bytes>> {
        let failed = |error: reqwest::Error| {
            Error::unexpected("a service of AWS does not answer").with_source(error.without_url())
        };
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let mut response = self.0.execute(request).await.map_err(failed)?;
        let mut answer = http::Response::builder().status(response.status());
        if let Some(headers) = answer.headers_mut() {
            *headers = response.headers().clone();
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > CREDENTIAL_BYTES_MAX {
                return Err(Error::unexpected("the answer of a service of AWS is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        answer.body(body.into()).map_err(|error| {
            Error::unexpected("an answer of AWS makes no sense").with_source(error)
        })
    }
}
