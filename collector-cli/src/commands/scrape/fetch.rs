// SPDX-License-Identifier: Apache-2.0
//! One page from a server, fetched as the daemon fetches its targets.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{BackendError, CollectError, ErrorKind, Operation, SystemClock, duration};
use collector_epp::discover::Target;
use collector_epp::{
    Credential, EppConfig, ExpositionClient, FetchError, FetchedExposition, shown, target_at,
};
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout};
use url::Url;

use super::cut_short;
use crate::exit::Failure;

/// The name of the backend that reads such pages.
const BACKEND: &str = "epp";

/// The target of the configuration whose page is at a URL.
pub(super) async fn target(config: &EppConfig, url: &Url) -> Option<Target> {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    let found = timeout(config.effective_timeout(), target_at(config, &url)).await;
    match found {
        Ok(Ok(target)) => target,
        Ok(Err(error)) => {
            tracing::warn!(%error, "It cannot be told whether the URL is a target");
            None
        }
        Err(_) => {
            tracing::warn!("It cannot be told in time whether the URL is a target");
            None
        }
    }
}

/// Fetches the page at a URL, within `limit` where it is given, else within the daemon's deadline.
pub(super) async fn page(
    config: &EppConfig,
    url: &Url,
    is_target: bool,
    limit: Option<Duration>,
) -> Result<FetchedExposition, Failure> {
    let client =
        ExpositionClient::new(&needed(config, url, is_target), Arc::new(SystemClock::new()))
            .map_err(|error| Failure::usage(config.with_section(&error.to_string())))?;
    let deadline = config.effective_timeout();
    let began = Instant::now();
    let credential = credential(url, is_target);
    let limit = limit.unwrap_or(deadline);
    let fetched = client.fetch(url, credential, limit).await;
    let took = began.elapsed();
    match fetched {
        Ok(page) => {
            if took > deadline {
                tracing::warn!(
                    took = %duration::format(milliseconds(took)),
                    deadline = %duration::format(deadline),
                    "The page took longer than the daemon waits: {}", keys(config)
                );
            }
            Ok(page)
        }
        Err(FetchError::CutShort(cause)) => {
            Err(cut_short(format!("{}: the page was cut short: {}", shown(url), cause.detail)))
        }
        Err(FetchError::Failed(mut cause)) => {
            if cause.kind == ErrorKind::Timeout {
                cause.remedy =
                    format!("{}; --timeout lets this command wait longer", cause.remedy).into();
            }
            let error = BackendError::new(cause.kind, BACKEND.into(), Operation::Fetch, shown(url))
                .with_detail(config.with_section(&cause.detail))
                .with_remedy(config.with_section(&cause.remedy));
            Err(CollectError::Backend(Arc::new(error)).into())
        }
    }
}

/// A user's own name and password, else what a target gets.
fn credential(url: &Url, is_target: bool) -> Credential {
    let decoded = |part| percent_decode_str(part).decode_utf8_lossy();
    if !url.username().is_empty() || url.password().is_some() {
        Credential::basic(&decoded(url.username()), &decoded(url.password().unwrap_or_default()))
    } else if is_target {
        Credential::Token
    } else {
        Credential::NoTarget
    }
}

/// The settings without the files that this page does not need: they may be missing here.
fn needed(config: &EppConfig, url: &Url, is_target: bool) -> EppConfig {
    let mut config = config.clone();
    if !is_target {
        config.bearer_token = None;
        config.token_path = None;
    }
    if url.scheme() == "http" {
        config.ca_cert_path = None;
    }
    config
}

fn keys(config: &EppConfig) -> String {
    config.with_section(match config.timeout {
        Some(_) => "raise epp.timeout, and epp.scrape_interval above it",
        None => "raise epp.scrape_interval, of which a scrape may take nine tenths",
    })
}

/// Without what nobody wants to read.
fn milliseconds(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
