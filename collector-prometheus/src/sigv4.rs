// SPDX-License-Identifier: Apache-2.0
//! Signs requests for services of AWS (Signature Version 4).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use collector_core::ErrorKind;
use collector_transport::{ConfigError, Tls, TlsSettings, quote};
use reqsign_aws_v4::{DefaultCredentialProvider, RequestSigner};
use reqsign_core::{Context, Env, Error, FileRead, HttpSend, OsEnv, hash};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};

use crate::SECTION;
use crate::config::PrometheusConfig;
use crate::failure::{Failure, Stage};

/// Most bytes of a credentials file, or of an answer with credentials.
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

/// Signs requests with credentials from AWS's usual places: variables, files, the identity of a pod or a
/// machine.
pub(crate) struct Signer {
    signs: reqsign_core::Signer<reqsign_aws_v4::Credential>,
    region: String,
    timeout: Duration,
    /// The session token of the last signature with temporary credentials: AWS quotes what it refuses.
    session: Mutex<Option<SecretString>>,
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
        let signs = reqsign_core::Signer::new(context, provider.no_process().build(), signing);
        Ok(Self {
            signs,
            region: region.to_owned(),
            timeout: config.timeout,
            session: Mutex::new(None),
        })
    }

    /// Returns the headers that sign a request with this body.
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
        match tokio::time::timeout(self.timeout, self.signs.sign(&mut parts, None)).await {
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
        if let Some(token) = headers.get_mut("x-amz-security-token") {
            token.set_sensitive(true);
            let session = token.to_str().ok().map(SecretString::from);
            *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
        }
        Ok(headers)
    }

    /// Removes the session token from a text of the server.
    pub(crate) fn redact(&self, text: &str) -> String {
        match &*self.session.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(session) => text.replace(session.expose_secret(), "[token]"),
            None => text.to_owned(),
        }
    }

    /// Describes what was sent, for messages.
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

/// Requests credentials from AWS: from the services of a machine or a pod, and from the one for roles.
#[derive(Debug)]
struct Http(reqwest::Client);

impl Http {
    fn new(timeout: Duration) -> Result<Self, ConfigError> {
        let tls = Tls::new(&TlsSettings::new(SECTION, "the services of AWS"))?;
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
            Error::unexpected("a service of AWS does not respond").with_source(error.without_url())
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
        answer
            .body(body.into())
            .map_err(|error| Error::unexpected("unexpected response of AWS").with_source(error))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::fmt::Write as _;
    use std::sync::{Arc, Mutex};

    use collector_core::{ManualClock, Unlimited};
    use reqsign_core::StaticEnv;
    use ring::{digest, hmac};
    use tokio::time::Instant;
    use wiremock::matchers::any;
    use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

    use super::*;
    use crate::client::{Client, Query, RequestBudget};
    use crate::config::SigV4Config;
    use crate::credentials::Credentials;
    use crate::plan::QueryKind;

    const SECRET: &str = "hunter2/SecretAccessKey";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Encodes like AWS: all but letters, digits and `-._~`.
    fn encoded(text: &str) -> String {
        text.bytes().fold(String::new(), |mut text, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(byte.into());
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
            text
        })
    }

    /// A gateway that computes each signature itself, as AWS documents it, and rejects all others.
    struct Gateway {
        /// What was wrong with a request.
        wrong: Arc<Mutex<Vec<String>>>,
    }

    impl Gateway {
        fn check(request: &Request) -> Result<(), String> {
            let header = |name: &str| {
                let value = request.headers.get(name).ok_or(format!("no {name}"))?;
                Ok::<_, String>(value.to_str().unwrap().to_owned())
            };
            let authorization = header("authorization")?;
            let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another scheme")?;
            let parts: HashMap<&str, &str> =
                rest.split(", ").filter_map(|part| part.split_once('=')).collect();
            let date = header("x-amz-date")?;
            let scope = format!("{}/eu-west-1/aps/aws4_request", &date[..8]);
            if parts["Credential"] != format!("AKIDEXAMPLE/{scope}") {
                return Err(format!("the scope {}", parts["Credential"]));
            }
            let body_hash = hex(digest::digest(&digest::SHA256, &request.body).as_ref());
            if header("x-amz-content-sha256")? != body_hash {
                return Err("the hash of the body".into());
            }
            let names: Vec<&str> = parts["SignedHeaders"].split(';').collect();
            for name in ["host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"] {
                if !names.contains(&name) {
                    return Err(format!("{name} is not signed"));
                }
            }
            let mut headers = String::new();
            for name in &names {
                let _ = writeln!(headers, "{name}:{}", header(name)?.trim());
            }
            let pairs: BTreeMap<String, String> = request
                .url
                .query_pairs()
                .map(|(name, value)| (encoded(&name), encoded(&value)))
                .collect();
            let query: Vec<String> =
                pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let canonical = format!(
                "{}\n{}\n{}\n{headers}\n{}\n{body_hash}",
                request.method,
                request.url.path(),
                query.join("&"),
                names.join(";")
            );
            let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
            let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
            let sign = |key: &[u8], text: &str| {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
            };
            let mut key = format!("AWS4{SECRET}").into_bytes();
            for part in scope.split('/') {
                key = sign(&key, part).as_ref().to_vec();
            }
            let expected = hex(sign(&key, &text).as_ref());
            let signature = parts["Signature"];
            if signature == expected {
                Ok(())
            } else {
                Err(format!("the signature of {canonical}"))
            }
        }
    }

    impl Respond for Gateway {
        fn respond(&self, request: &Request) -> ResponseTemplate {
            if request.url.path().contains("refuse") {
                return ResponseTemplate::new(403).set_body_string("not a-session in this region");
            }
            match Self::check(request) {
                Ok(())
                    if request.method.as_str() == "POST" && request.url.path().contains("get") =>
                {
                    ResponseTemplate::new(405)
                }
                Ok(()) => ResponseTemplate::new(200).set_body_string(
                    r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
                ),
                Err(wrong) => {
                    self.wrong.lock().unwrap().push(wrong);
                    ResponseTemplate::new(403)
                }
            }
        }
    }

    fn config(url: String) -> PrometheusConfig {
        PrometheusConfig {
            url,
            allow_http: true,
            timeout: Duration::from_secs(20),
            sigv4: SigV4Config { region: Some("eu-west-1".into()), ..SigV4Config::default() },
            parameters: [("b c".to_owned(), "ä+/".to_owned()), ("a".into(), "1".into())].into(),
            tenant: Some("team".into()),
            ..PrometheusConfig::default()
        }
    }

    fn client(url: String, variables: &[(&str, &str)]) -> Client {
        let envs = variables.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
        let env = StaticEnv { home_dir: None, envs };
        let config = config(url);
        let signer = Signer::with_env(&config, "eu-west-1", env).unwrap();
        let credentials = Credentials::signed(&config, signer).unwrap();
        Client::with_credentials(&config, credentials).unwrap()
    }

    async fn ask(client: &Client) -> Result<(), Failure> {
        let clock = ManualClock::new();
        let budget = RequestBudget {
            permits: &Unlimited,
            deadline: Instant::now() + Duration::from_secs(60),
            waiting: true,
            clock: &clock,
        };
        let text = "up{a=\"b/c d\"}";
        let query = Query { kind: QueryKind::ServerTime, text, time: None };
        client.query(query, budget, &mut |_| {}).await.map(|_| ())
    }

    const KEYS: [(&str, &str); 3] = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", "a-session"),
    ];

    #[tokio::test]
    async fn a_gateway_that_computes_the_signature_itself_lets_requests_pass() {
        let server = MockServer::start().await;
        let wrong = Arc::default();
        let gateway = Gateway { wrong: Arc::clone(&wrong) };
        Mock::given(any()).respond_with(gateway).mount(&server).await;
        for path in ["/workspaces/ws-1", "/get"] {
            let asked = ask(&client(format!("{}{path}", server.uri()), &KEYS)).await;
            let wrong = std::mem::take(&mut *wrong.lock().unwrap());
            assert!(asked.is_ok(), "{asked:?} {wrong:#?}");
        }
        let requests = server.received_requests().await.unwrap();
        let methods: Vec<&str> = requests.iter().map(|it| it.method.as_str()).collect();
        assert_eq!(methods, ["POST", "POST", "GET"]);
        assert!(requests.iter().all(|it| it.headers["x-amz-security-token"] == "a-session"));

        // The gateway rejects another secret.
        let other = [KEYS[0], ("AWS_SECRET_ACCESS_KEY", "other"), KEYS[2]];
        let failure = ask(&client(server.uri(), &other)).await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Forbidden);
        assert!(wrong.lock().unwrap()[0].starts_with("the signature of POST"));
        let failure = ask(&client(format!("{}/refuse", server.uri()), &KEYS)).await.unwrap_err();
        let expected = "a signature for eu-west-1 (prometheus.sigv4) was sent; the server said: \
                        \"not [token] in this region\"";
        assert_eq!(failure.detail, expected);
    }

    #[tokio::test]
    async fn without_credentials_nothing_is_sent() {
        let server = MockServer::start().await;
        let nowhere = [
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/does/not/exist"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/does/not/exist"),
        ];
        let failure = ask(&client(server.uri(), &nowhere)).await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Configuration, "{failure:?}");
        assert!(failure.detail.contains("prometheus.sigv4"), "{failure:?}");
        assert!(failure.remedy.contains("AWS_ACCESS_KEY_ID"), "{failure:?}");
        assert!(server.received_requests().await.unwrap().is_empty());
    }
}
