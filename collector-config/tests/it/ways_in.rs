// SPDX-License-Identifier: Apache-2.0
//! Credentials, headers, parameters and proxies of `[prometheus]`.

use collector_config::Loader;

use crate::{ConfigFile, URL, entry, variables};

/// The lines of the message about a TOML file, whose path shows as FILE.
#[track_caller]
fn check(toml: &str, expected: &[&str]) {
    let file = ConfigFile::toml(toml);
    let errors = file.loader().env(variables(&[URL])).load().unwrap_err().to_string();
    assert!(!errors.contains("hunter2"), "{errors}");
    let text = errors.replace(&file.path().display().to_string(), "FILE");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, expected);
}

#[test]
fn what_cannot_be_sent_is_refused_with_key_and_line() {
    check(
        "[prometheus]\nheaders = { \"X-A\" = \"hunter2\\nX-B: c\" }",
        &[
            "prometheus.headers: \"X-A\": its value holds a line break or other characters that an HTTP \
           header cannot (prometheus.headers is set in FILE:2)",
        ],
    );
    check(
        "[prometheus]\nheader_paths = { Host = \"/h\" }\nparameters = { query = \"up\" }",
        &[
            "prometheus.header_paths: \"Host\": this header is the client's own, or belongs to the \
             connection (prometheus.header_paths is set in FILE:2)",
            "prometheus.parameters: \"query\" is a parameter of each query already: choose other \
             names (prometheus.parameters is set in FILE:3)",
        ],
    );
    check(
        "[prometheus]\nbearer_token = \"Bearer hunter2\"",
        &[
            "prometheus.bearer_token: the token begins with \"Bearer \", which is put before it when it \
           is sent: leave that off (prometheus.bearer_token is set in FILE:2)",
        ],
    );
    check(
        "[prometheus]\nproxy = \"socks5://me:hunter2@p\"",
        &[
            "prometheus.proxy: it is not a proxy of a kind that can be used; write http://HOST:PORT, or \
           nothing to use no proxy (prometheus.proxy is set in FILE:2)",
        ],
    );
    check(
        "[prometheus]\nheaders = { a = 1 }\nparameters = \"x\"\ntoken_command = 3\n\
         [prometheus.sigv4]\nregio = \"x\"",
        &[
            "FILE:2: prometheus.headers: \"a\": expected text, found a number: put it in quotes",
            "FILE:3: prometheus.parameters: expected a table of names, each with a text; in the \
             environment as JSON, found text",
            "FILE:4: prometheus.token_command: expected text or a list of texts, found a number: put \
             it in quotes",
            "FILE:6: prometheus.sigv4.regio: unknown key; did you mean prometheus.sigv4.region?",
        ],
    );
}

#[test]
fn several_credentials_are_refused_with_the_place_of_each() {
    let file = ConfigFile::toml("[prometheus]\nusername = \"me\"\npassword = \"hunter2\"\n");
    let env = [URL, ("PROMETHEUS_TOKEN_PATH", "/token")];
    let errors = file.loader().env(variables(&env)).load().unwrap_err().to_string();
    let path = file.path().display().to_string();
    assert_eq!(
        errors,
        format!(
            "prometheus.token_path: several credentials are set (prometheus.token_path, \
             prometheus.username), and a request can have one: keep one of them \
             (prometheus.token_path is set in environment variable PROMETHEUS_TOKEN_PATH, \
             prometheus.username is set in {path}:2)"
        )
    );
}

#[test]
fn the_end_of_the_line_is_no_part_of_a_secret() {
    let config = |env: &[(&str, &str)]| {
        Loader::new().env(variables(&[&[URL], env].concat())).load().map(|loaded| loaded.config)
    };
    for end in ["\n", "\r\n"] {
        let token = format!("xyz{end}");
        assert!(config(&[("PROMETHEUS_BEARER_TOKEN", &token)]).is_ok());
        let password = format!("pass word{end}");
        let env = [
            ("COLLECTOR_PROMETHEUS__USERNAME", "me"),
            ("COLLECTOR_PROMETHEUS__PASSWORD", password.as_str()),
        ];
        assert!(config(&env).is_ok());
    }
    assert!(config(&[("PROMETHEUS_BEARER_TOKEN", "x\nyz")]).is_err());
}

#[test]
fn tables_of_two_layers_are_not_joined() {
    let file = ConfigFile::toml("[prometheus.parameters]\nnamespace = \"prod\"\ntenant = \"a\"\n");
    let loaded = file.loader().env(variables(&[URL])).load().unwrap();
    assert_eq!(entry(&loaded, "prometheus.parameters").value, "namespace=prod,tenant=a");
    let env = [URL, ("COLLECTOR_PROMETHEUS__PARAMETERS", r#"{"dedup": "true"}"#)];
    let loaded = file.loader().env(variables(&env)).load().unwrap();
    assert_eq!(entry(&loaded, "prometheus.parameters").value, "dedup=true");
    let config = format!("{:?}", loaded.config);
    assert!(config.contains(r#"parameters: {"dedup": "true"}"#), "{config}");
}

#[test]
fn headers_are_set_in_the_environment_and_never_shown() {
    let env = [URL, ("COLLECTOR_PROMETHEUS__HEADERS", r#"{"X-Key": "hunter2"}"#)];
    let loaded = Loader::new().env(variables(&env)).load().unwrap();
    assert_eq!(entry(&loaded, "prometheus.headers").value, "X-Key=***");
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let file = ConfigFile::toml("[prometheus]\nheader_paths = { \"X-Key\" = \"key\" }\n");
    let loaded = file.loader().env(variables(&[URL])).load().unwrap();
    let path = file.folder().join("key").display().to_string();
    assert_eq!(entry(&loaded, "prometheus.header_paths").value, format!("X-Key={path}"));
    let env = [URL, ("COLLECTOR_PROMETHEUS__HEADERS", "X-Key=hunter2")];
    let errors = Loader::new().env(variables(&env)).load().unwrap_err().to_string();
    assert!(!errors.contains("hunter2"), "{errors}");
    assert!(errors.contains("COLLECTOR_PROMETHEUS__HEADERS"), "{errors}");
}

#[test]
fn the_proxy_of_the_machine_is_the_lowest_layer() {
    let proxy = |loader: Loader, more: &[(&str, &str)]| {
        let machine = [URL, ("HTTPS_PROXY", "http://me:hunter2@proxy:3128")];
        let loaded = loader.env(variables(&[&machine, more].concat())).load().unwrap();
        assert!(!format!("{loaded:?}").contains("hunter2"));
        let entry = entry(&loaded, "prometheus.proxy");
        (entry.value, entry.origin)
    };
    let machine =
        ("http://***@proxy:3128".to_owned(), "environment variable HTTPS_PROXY".to_owned());
    assert_eq!(proxy(Loader::new(), &[]), machine);
    let file = ConfigFile::toml("[prometheus]\nproxy = \"other:1\"\n");
    let (value, origin) = proxy(file.loader(), &[]);
    assert_eq!((value.as_str(), origin), ("other:1", format!("{}:2", file.path().display())));
    let none = ConfigFile::toml("[prometheus]\nproxy = \"\"\n");
    assert_eq!(proxy(none.loader(), &[]).0, "");
    let except = [("NO_PROXY", "prometheus")];
    assert_eq!(proxy(Loader::new(), &except), (String::new(), "default".to_owned()));
    let other = [("COLLECTOR_PROMETHEUS__URL", "https://localhost:9090")];
    assert_eq!(proxy(Loader::new(), &other), (String::new(), "default".to_owned()));
}

#[test]
fn an_invalid_proxy_is_named_by_its_variable() {
    let env = [URL, ("https_proxy", "socks5://p:1080")];
    let errors = Loader::new().env(variables(&env)).load().unwrap_err().to_string();
    assert!(errors.starts_with("prometheus.proxy: \"socks5://p:1080\" is not a proxy"), "{errors}");
    assert!(errors.contains("environment variable https_proxy"), "{errors}");
}

#[test]
fn a_url_without_a_scheme_has_one_text() {
    for host in ["prometheus:9090", "10.0.0.1:9090"] {
        let env = [("PROMETHEUS_BASE_URL", host)];
        let errors = Loader::new().env(variables(&env)).load().unwrap_err().to_string();
        assert_eq!(
            errors,
            format!(
                "prometheus.url: \"{host}\" has no scheme: write https://{host}, or http://{host} \
                 with prometheus.allow_http = true (PROMETHEUS_ALLOW_HTTP=true) if the server does \
                 not speak TLS (prometheus.url is set in environment variable PROMETHEUS_BASE_URL)"
            )
        );
    }
}
