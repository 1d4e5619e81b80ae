// SPDX-License-Identifier: Apache-2.0
//! The credentials that a command of the kubeconfig prints (`users[].user.exec`). `kube` would run the command several times
//! for each client, on the thread of the caller, and wait for its end without a limit.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use collector_core::text::quote;
use collector_transport::command::{self, CommandError};
use jiff::Timestamp;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

/// How long the command may take. Those of the large clouds take up to some seconds.
const WITHIN: Duration = Duration::from_secs(10);
/// The most bytes that it may print.
const OUTPUT_MAX: usize = 1 << 20;

/// What the command prints.
#[derive(Deserialize)]
struct ExecCredential {
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<SecretString>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Puts what the command of a user prints in the place of the command; returns when that expires, if it says so.
///
/// # Errors
/// Why there are no credentials, in words.
pub(crate) async fn obtain(user: &mut AuthInfo) -> Result<Option<Timestamp>, String> {
    // A provider could be a command as well, and is no part of Kubernetes any more.
    if let Some(provider) = &user.auth_provider
        && provider.config.contains_key("cmd-path")
    {
        return Err(format!(
            "the kubeconfig has the auth-provider \"{}\", which runs a command: use users[].user.exec",
            quote(&provider.name)
        ));
    }
    // These take precedence.
    let has_password = user.username.is_some() && user.password.is_some();
    if has_password || user.token.is_some() || user.token_file.is_some() {
        return Ok(None);
    }
    let Some(exec) = user.exec.take() else { return Ok(None) };
    let name = quote(exec.command.as_deref().unwrap_or_default());
    let problem = |what: &str| {
        format!(
            "the command of the kubeconfig for credentials (\"{name}\") {what}; run it by hand to see why"
        )
    };
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err(problem("needs a terminal (interactiveMode: Always), and gets none"));
    }
    let printed = timeout(WITHIN, run(&exec)).await;
    let printed = printed.map_err(|_| {
        problem(&format!("has not ended within {} s and was stopped", WITHIN.as_secs()))
    })?;
    let printed = printed.map_err(|why| problem(&why))?;
    // An error would have what was printed.
    let credential: Result<ExecCredential, _> = serde_saphyr::from_slice(printed.expose_secret());
    let status =
        credential.map_err(|_| problem("has printed no ExecCredential with a status"))?.status;
    if let (Some(certificate), Some(key)) = (status.client_certificate_data, status.client_key_data)
    {
        user.client_certificate_data = Some(STANDARD.encode(certificate));
        user.client_key_data = Some(STANDARD.encode(key).into());
    } else if status.token.is_none() {
        return Err(problem("has printed neither a token nor a certificate with its key"));
    }
    user.token = status.token;
    let expires = status.expiration_timestamp.map(|time| time.parse()).transpose();
    expires.map_err(|_| problem("has printed an expirationTimestamp that is not a time"))
}

/// Runs the command; returns what it prints. Dropping the future kills it.
async fn run(exec: &ExecConfig) -> Result<SecretSlice<u8>, String> {
    let mut command = Command::new(exec.command.as_deref().unwrap_or_default());
    command.args(exec.args.iter().flatten());
    for variable in exec.env.iter().flatten() {
        if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
            command.env(name, value);
        }
    }
    let cluster = exec.cluster.as_ref().filter(|_| exec.provide_cluster_info);
    let info = json!({
        "kind": "ExecCredential",
        "apiVersion": exec.api_version,
        "spec": {"interactive": false, "cluster": cluster},
    });
    // What it writes to stderr is for people.
    command.env("KUBERNETES_EXEC_INFO", info.to_string());
    let output = command::output(&mut command, OUTPUT_MAX).await.map_err(|error| match error {
        CommandError::TooLong => format!("has printed more than {OUTPUT_MAX} bytes"),
        error => error.to_string(),
    })?;
    match output.status {
        status if status.success() => Ok(output.printed),
        status => Err(format!("has failed ({status})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn printed(script: &str) -> Result<(AuthInfo, Option<Timestamp>), String> {
        let exec = ExecConfig {
            command: Some("sh".to_owned()),
            args: Some(vec!["-c".to_owned(), script.to_owned()]),
            ..ExecConfig::default()
        };
        let mut user = AuthInfo { exec: Some(exec), ..AuthInfo::default() };
        let expires = obtain(&mut user).await?;
        Ok((user, expires))
    }

    #[tokio::test]
    async fn a_token_or_a_certificate_takes_the_place_of_the_command() {
        let token = "{status: {token: t, expirationTimestamp: '2026-01-01T00:00:00Z'}}";
        let (user, expires) = printed(&format!("echo \"{token}\"")).await.unwrap();
        assert!(user.exec.is_none() && user.token.is_some());
        assert_eq!(expires, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        let pair = "{\"status\": {\"clientCertificateData\": \"c\", \"clientKeyData\": \"k\"}}";
        let (user, expires) = printed(&format!("echo '{pair}'")).await.unwrap();
        assert_eq!(user.client_certificate_data.as_deref(), Some("Yw=="));
        assert!(user.client_key_data.is_some() && user.token.is_none() && expires.is_none());
        let info = "case $KUBERNETES_EXEC_INFO in *'\"interactive\":false'*) echo '{status: {token: t}}';; esac";
        printed(info).await.unwrap();
    }

    #[tokio::test]
    async fn an_error_has_nothing_that_the_command_was_given_or_has_printed() {
        for (script, says) in [
            ("echo tell-nobody; exit 3", "has failed (exit status: 3)"),
            ("echo tell-nobody", "has printed no ExecCredential"),
            ("echo '{status: {token: [tell-nobody]}}'", "has printed no ExecCredential"),
            ("echo '{status: {other: tell-nobody}}'", "neither a token nor a certificate"),
            (
                "echo '{status: {token: t, expirationTimestamp: tell-nobody}}'",
                "an expirationTimestamp that is not a time",
            ),
            ("head -c 1048577 /dev/zero", "more than 1048576 bytes"),
        ] {
            let error = printed(script).await.unwrap_err();
            assert!(error.contains(says) && !error.contains("tell-nobody"), "{error}");
            let begins = "the command of the kubeconfig for credentials (\"sh\") ";
            assert!(error.starts_with(begins), "{error}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_run_within_a_time_is_refused() {
        let exec = ExecConfig {
            command: Some("/absent".to_owned()),
            interactive_mode: Some(ExecInteractiveMode::Always),
            ..ExecConfig::default()
        };
        let mut user = AuthInfo { exec: Some(exec.clone()), ..AuthInfo::default() };
        assert!(obtain(&mut user).await.unwrap_err().contains("needs a terminal"));
        let exec = ExecConfig { interactive_mode: None, ..exec };
        let mut user = AuthInfo { exec: Some(exec), ..AuthInfo::default() };
        let token = AuthInfo { token: Some("t".to_owned().into()), ..user.clone() };
        assert!(obtain(&mut user).await.unwrap_err().contains("cannot be run: "));
        assert_eq!(obtain(&mut token.clone()).await, Ok(None), "the token takes precedence");
        let provider = kube::config::AuthProviderConfig {
            name: "gcp".to_owned(),
            config: [("cmd-path".to_owned(), "gcloud".to_owned())].into(),
            ..Default::default()
        };
        user.auth_provider = Some(provider);
        assert!(obtain(&mut user).await.unwrap_err().contains("use users[].user.exec"));
    }
}
