// SPDX-License-Identifier: Apache-2.0
//! How a request is sent again: by another method, to another path, with a new credential.

use std::sync::atomic::Ordering;

use collector_core::{Clock, ErrorKind};
use reqwest::Url;
use tokio::time::Instant;

use super::Client;
use crate::credentials::Sent;
use crate::failure::Failure;

/// Redirects that are followed within the server's own origin: ten requests with the first.
const REDIRECTS_MAX: usize = 9;

/// Why a request has to be sent again.
pub(super) enum Again {
    /// The server refuses POST.
    UseGet,
    Redirected(Url),
    /// 401.
    Unauthorized(Failure),
}

/// The URL of a request, and what was tried so far.
pub(super) struct Course {
    pub(super) url: Url,
    redirects: usize,
    renewed: bool,
}

impl Course {
    pub(super) fn new(url: Url) -> Self {
        Self { url, redirects: 0, renewed: false }
    }

    /// Prepares the next request. The error is final.
    pub(super) async fn follow(
        &mut self,
        again: Again,
        client: &Client,
        sent: &Sent,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<(), Failure> {
        match again {
            Again::UseGet => client.use_get.store(true, Ordering::Relaxed),
            Again::Unauthorized(failure) => {
                if std::mem::replace(&mut self.renewed, true)
                    || !client.credentials.renew(sent, clock, deadline).await?
                {
                    return Err(failure);
                }
            }
            Again::Redirected(_) if self.redirects == REDIRECTS_MAX => {
                let detail = format!("more than {REDIRECTS_MAX} redirects");
                return Err(Failure::new(ErrorKind::Redirected, detail)
                    .with_remedy("check the path in prometheus.url"));
            }
            Again::Redirected(next) => {
                self.redirects += 1;
                self.url = next;
            }
        }
        Ok(())
    }
}
