// SPDX-License-Identifier: Apache-2.0
//! The settings of each request under `[prometheus]`: credentials, headers and parameters.

use std::borrow::Cow;

use collector_transport::ConfigError;
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::PrometheusConfig;
use crate::SECTION;

/// How requests are signed for services of AWS.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SigV4Config {
    /// The region of the service, `eu-west-1` for example. Requests are signed where it is set.
    pub region: Option<String>,
    /// The name of the service. Default `aps`, Amazon Managed Service for Prometheus.
    pub service: String,
    /// The profile of the AWS configuration that is used; default: `AWS_PROFILE`, else `default`.
    pub profile: Option<String>,
}

impl Default for SigV4Config {
    fn default() -> Self {
        Self { region: None, service: "aps".to_owned(), profile: None }
    }
}

/// Headers of a single connection, or that the client writes itself.
const HEADERS_OF_OURS: [&str; 19] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "date",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-amz-date",
];

/// Parameters of every query.
const PARAMETERS_OF_OURS: [&str; 4] = ["query", "time", "timeout", "nocache"];

impl PrometheusConfig {
    /// Validates credentials, headers and parameters.
    pub(super) fn check_access(&self, errors: &mut Vec<ConfigError>) {
        self.check_credentials(errors);
        if let Some(tenant) = &self.tenant
            && (tenant.is_empty() || HeaderValue::from_str(tenant).is_err())
        {
            errors.push(
                SECTION
                    .error("tenant", "it is empty or holds characters that an HTTP header cannot"),
            );
        }
        let values = self.headers.iter().map(|(name, value)| ("headers", name, Some(value)));
        let files = self.header_paths.keys().map(|name| ("header_paths", name, None));
        for (key, name, value) in values.chain(files) {
            if let Err(problem) = self.check_header(name, value) {
                errors.push(SECTION.error(key, format!("{:?}: {problem}", shown(name))));
            }
        }
        let in_both = self
            .header_paths
            .keys()
            .find(|name| self.headers.keys().any(|other| other.eq_ignore_ascii_case(name)));
        if let Some(name) = in_both {
            let problem = format!(
                "{:?} is also in prometheus.headers: give it in one of the two",
                shown(name)
            );
            errors.push(SECTION.error("header_paths", problem).with_keys(["headers"]));
        }
        for name in self.parameters.keys() {
            if name.is_empty() {
                errors.push(SECTION.error("parameters", "the name of a parameter is empty"));
            } else if PARAMETERS_OF_OURS.contains(&name.as_str()) {
                let problem =
                    format!("{name:?} is a parameter of each query already: choose other names");
                errors.push(SECTION.error("parameters", problem));
            }
        }
    }

    fn check_credentials(&self, errors: &mut Vec<ConfigError>) {
        errors.extend(SECTION.check_bearer_token(self.bearer_token.as_ref()));
        let mut refuse = |key, problem: &str| errors.push(SECTION.error(key, problem.to_owned()));
        match (&self.username, &self.password, &self.password_path) {
            (Some(_), None, None) => refuse(
                "username",
                "set without a password: set prometheus.password_path or prometheus.password",
            ),
            (None, Some(_), _) => {
                refuse("password", "set without prometheus.username: set both, or neither");
            }
            (None, None, Some(_)) => {
                refuse("password_path", "set without prometheus.username: set both, or neither");
            }
            _ => {}
        }
        if let Some(username) = &self.username
            && (username.contains(':') || username.contains(char::is_control))
        {
            refuse("username", "it holds a colon or a line break, which no user name of HTTP can");
        }
        if let Some(password) = &self.password
            && let Err(problem) = check_password(password.expose_secret())
        {
            refuse("password", &format!("the password {problem}"));
        }
        match self.token_command.as_slice() {
            [program] if program.contains(char::is_whitespace) => refuse(
                "token_command",
                "it is one text with blanks: write the program and each of its arguments as a text \
                 of its own, [\"gcloud\", \"auth\", \"print-access-token\"] for example",
            ),
            [program, ..] if program.is_empty() => {
                refuse("token_command", "the name of the program is empty");
            }
            _ => {}
        }
        if self.token_ttl.is_zero() {
            refuse("token_ttl", "0 cannot work; set it to 10m for example");
        }
        self.check_sigv4(&mut refuse);
        let ways = self.credentials();
        if let [first, others @ ..] = ways.as_slice()
            && !others.is_empty()
        {
            let named: Vec<String> = ways.iter().map(|key| SECTION.key(key)).collect();
            let problem = format!(
                "several credentials are set ({}), and a request can have one: keep one of them",
                named.join(", ")
            );
            errors.push(SECTION.error(first, problem).with_keys(others.iter().copied()));
        }
        if self.password.is_some() && self.password_path.is_some() {
            let error =
                SECTION.error("password", "prometheus.password_path is set too: keep one of them");
            errors.push(error.with_keys(["password_path"]));
        }
    }

    fn check_sigv4(&self, refuse: &mut impl FnMut(&'static str, &str)) {
        let SigV4Config { region, service, profile } = &self.sigv4;
        let is_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
        };
        if !is_name(service) {
            refuse("sigv4.service", "not the name of a service, such as aps");
        }
        match region {
            Some(region) if !is_name(region) => {
                refuse("sigv4.region", "not the name of a region, such as eu-west-1");
            }
            Some(_) if cfg!(not(feature = "sigv4")) => refuse(
                "sigv4.region",
                "this build cannot sign requests: build it with the cargo feature `sigv4`",
            ),
            None if self.sigv4 != SigV4Config::default() => refuse(
                "sigv4.region",
                "not set, and other keys of prometheus.sigv4 are: set it, to eu-west-1 for example",
            ),
            _ => {}
        }
        if profile.as_ref().is_some_and(String::is_empty) {
            refuse("sigv4.profile", "it is empty; leave it out");
        }
    }

    /// Returns the keys of the credentials that are set, one for each kind.
    fn credentials(&self) -> Vec<&'static str> {
        let token = match (&self.bearer_token, &self.token_path) {
            (Some(_), _) => Some("bearer_token"),
            (None, Some(_)) => Some("token_path"),
            (None, None) => None,
        };
        let others = [
            ("username", self.username.is_some()),
            ("token_command", !self.token_command.is_empty()),
            ("sigv4.region", self.sigv4.region.is_some()),
        ];
        let others = others.into_iter().filter(|(_, set)| *set).map(|(key, _)| key);
        token.into_iter().chain(others).collect()
    }

    fn check_header(
        &self,
        name: &str,
        value: Option<&SecretString>,
    ) -> Result<(), Cow<'static, str>> {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err("not the name of an HTTP header".into());
        }
        let lower = name.to_ascii_lowercase();
        if lower == "authorization" {
            return Err("credentials have keys of their own: prometheus.username, \
                        prometheus.bearer_token, prometheus.token_path, prometheus.token_command"
                .into());
        }
        if lower == "x-scope-orgid" && self.tenant.is_some() {
            return Err("prometheus.tenant is sent in this header: leave one of them out".into());
        }
        if HEADERS_OF_OURS.contains(&lower.as_str()) {
            return Err("this header is the client's own, or belongs to the connection".into());
        }
        match value {
            Some(value) => check_header_value(value.expose_secret()).map_err(Into::into),
            None => Ok(()),
        }
    }
}

/// Validates the value of a header; the error follows the word "value".
pub(crate) fn check_header_value(value: &str) -> Result<(), &'static str> {
    if value.is_empty() {
        Err("its value is empty")
    } else if HeaderValue::from_str(value).is_err() {
        Err("its value holds a line break or other characters that an HTTP header cannot")
    } else {
        Ok(())
    }
}

/// Validates a password; the error follows the word "password".
pub(crate) fn check_password(password: &str) -> Result<(), &'static str> {
    if password.is_empty() {
        Err("is empty")
    } else if password.contains(char::is_control) {
        Err("holds a line break or another control character")
    } else {
        Ok(())
    }
}

/// A name from outside, safe for a message.
fn shown(name: &str) -> String {
    collector_transport::quote(name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{config, refused};
    use super::*;

    fn base() -> PrometheusConfig {
        config("https://h")
    }

    fn with_header(name: &str, value: &str) -> PrometheusConfig {
        PrometheusConfig { headers: [(name.to_owned(), value.into())].into(), ..base() }
    }

    #[test]
    fn headers_that_cannot_be_sent_are_refused_by_their_names() {
        assert!(with_header("X-Tenant", "a").validate().is_ok());
        assert!(with_header("X-Scope-OrgID", "a").validate().is_ok());
        refused(
            &with_header("X-A", "hunter2\nX-B: c"),
            &["prometheus.headers: \"X-A\"", "line break"],
        );
        refused(&with_header("X-A", ""), &["\"X-A\"", "empty"]);
        refused(&with_header("X A\n", "a"), &["\"X A\"", "not the name"]);
        for name in ["Connection", "te", "HOST", "Content-Length", "Accept-Encoding", "Upgrade"] {
            refused(&with_header(name, "a"), &["prometheus.headers", name, "client's own"]);
        }
        refused(&with_header("authorization", "Bearer hunter2"), &["prometheus.token_path"]);
        let tenant =
            PrometheusConfig { tenant: Some("a".into()), ..with_header("x-scope-orgid", "b") };
        refused(&tenant, &["prometheus.tenant"]);
        let both = PrometheusConfig {
            header_paths: [("x-tenant".to_owned(), "/t".into())].into(),
            ..with_header("X-Tenant", "a")
        };
        refused(&both, &["prometheus.header_paths", "\"x-tenant\"", "prometheus.headers"]);
        let path = |name: &str| PrometheusConfig {
            header_paths: [(name.to_owned(), "/t".into())].into(),
            ..base()
        };
        refused(&path("Host"), &["prometheus.header_paths: \"Host\""]);
    }

    #[test]
    fn parameters_of_each_query_are_refused() {
        let with = |name: &str| PrometheusConfig {
            parameters: [(name.to_owned(), "a".to_owned())].into(),
            ..base()
        };
        assert!(with("namespace").validate().is_ok());
        for name in ["query", "time", "timeout"] {
            refused(&with(name), &["prometheus.parameters", name]);
        }
        refused(&with(""), &["prometheus.parameters", "empty"]);
    }

    #[test]
    fn credentials_are_complete_and_of_one_kind() {
        let user = || Some("me".to_owned());
        let with_password =
            || PrometheusConfig { username: user(), password: Some("hunter2".into()), ..base() };
        assert!(with_password().validate().is_ok());
        refused(
            &PrometheusConfig { username: user(), ..base() },
            &["prometheus.username", "password_path"],
        );
        let no_user = PrometheusConfig { username: None, ..with_password() };
        refused(&no_user, &["prometheus.password", "prometheus.username"]);
        let no_user = PrometheusConfig { password_path: Some("/p".into()), ..base() };
        refused(&no_user, &["prometheus.password_path", "prometheus.username"]);
        let twice = PrometheusConfig { password_path: Some("/p".into()), ..with_password() };
        refused(&twice, &["prometheus.password: prometheus.password_path is set too"]);
        let colon = PrometheusConfig { username: Some("a:b".into()), ..with_password() };
        refused(&colon, &["prometheus.username", "colon"]);
        let broken = PrometheusConfig { password: Some("hunter2\nx".into()), ..with_password() };
        refused(&broken, &["prometheus.password: the password holds a line break"]);
        let command = || vec!["echo".to_owned(), "x".to_owned()];
        for (config, keys) in [
            (
                PrometheusConfig { token_path: Some("/t".into()), ..with_password() },
                ["token_path", "username"],
            ),
            (
                PrometheusConfig { bearer_token: Some("t".into()), ..with_password() },
                ["bearer_token", "username"],
            ),
            (
                PrometheusConfig { token_command: command(), ..with_password() },
                ["username", "token_command"],
            ),
        ] {
            let errors = config.validate().unwrap_err();
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert_eq!(errors[0].keys().collect::<Vec<_>>(), keys);
            refused(&config, &["several credentials", keys[0], keys[1]]);
        }
        let old = PrometheusConfig {
            bearer_token: Some("t".into()),
            token_path: Some("/t".into()),
            ..base()
        };
        assert!(old.validate().is_ok(), "the token beats its file, as it always has");
    }

    #[test]
    fn a_token_that_begins_with_its_scheme_is_refused() {
        let token = |token: &str| PrometheusConfig { bearer_token: Some(token.into()), ..base() };
        refused(&token("Bearer hunter2"), &["prometheus.bearer_token", "leave that off"]);
        refused(&token("Basic hunter2"), &["prometheus.bearer_token", "user name"]);
        assert!(token("Bearerhunter2").validate().is_ok());
    }

    #[test]
    fn a_token_command_is_a_program_and_its_arguments() {
        let command = |words: &[&str]| PrometheusConfig {
            token_command: words.iter().map(ToString::to_string).collect(),
            ..base()
        };
        assert!(command(&["gcloud", "auth", "print-access-token"]).validate().is_ok());
        refused(&command(&["gcloud auth"]), &["prometheus.token_command", "[\"gcloud\", \"auth\""]);
        let zero = PrometheusConfig { token_ttl: Duration::ZERO, ..command(&["x"]) };
        refused(&zero, &["prometheus.token_ttl"]);
    }

    #[test]
    fn requests_are_signed_for_a_region_that_is_named() {
        let sigv4 = |region: Option<&str>, service: &str| PrometheusConfig {
            sigv4: SigV4Config {
                region: region.map(str::to_owned),
                service: service.to_owned(),
                profile: None,
            },
            ..base()
        };
        refused(&sigv4(None, "other"), &["prometheus.sigv4.region: not set"]);
        refused(&sigv4(Some("a b"), "aps"), &["prometheus.sigv4.region", "eu-west-1"]);
        refused(&sigv4(Some("eu-west-1"), ""), &["prometheus.sigv4.service"]);
        if cfg!(feature = "sigv4") {
            assert!(sigv4(Some("eu-west-1"), "aps").validate().is_ok());
        } else {
            refused(&sigv4(Some("eu-west-1"), "aps"), &["cargo feature `sigv4`"]);
        }
    }
}
