// SPDX-License-Identifier: Apache-2.0
//! Passed requests: identical ones that are in flight at the same time share one request to the server.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::evaluate::Purpose;
use super::{Shared, lock};
use crate::upstream::{Passed, Request, Unanswered};

/// How long an answer is returned again.
const TTL: Duration = Duration::from_secs(1);
/// Requests that can be shared at a time; others are sent on their own.
const SHARED_MAX: usize = 256;
/// The largest answer that is kept for [`TTL`], in bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// A request in flight: its callers wait for the answer.
pub(super) type InFlight = watch::Receiver<Option<Result<Passed, Unanswered>>>;

impl Shared {
    /// Passes a request, or joins an identical one.
    pub(super) async fn passed(self: &Arc<Self>, request: Request) -> Result<Passed, Unanswered> {
        let key = format!("{request:?}");
        let in_flight = {
            let mut all = lock(&self.passed);
            match all.get(&key) {
                Some(in_flight) => Some(in_flight.clone()),
                None if all.len() < SHARED_MAX => {
                    let in_flight = self.send_shared(key.clone(), request.clone());
                    all.insert(key, in_flight.clone());
                    Some(in_flight)
                }
                None => None,
            }
        };
        let Some(mut in_flight) = in_flight else {
            return self.send(request, Purpose::Passed).await;
        };
        match in_flight.wait_for(Option::is_some).await.map(|answered| answered.clone()) {
            Ok(Some(answered)) => answered,
            _ => Err(Unanswered::new("the request ended without an answer")),
        }
    }

    fn send_shared(self: &Arc<Self>, key: String, request: Request) -> InFlight {
        let (sender, in_flight) = watch::channel(None);
        let registered = Registered { shared: Arc::clone(self), key };
        tokio::spawn(async move {
            let answered = registered.shared.send(request, Purpose::Passed).await;
            let is_large = answered.as_ref().is_ok_and(|it| it.body.len() > KEPT_BYTES_MAX);
            sender.send_replace(Some(answered));
            if !is_large {
                tokio::time::sleep(TTL).await;
            }
        });
        in_flight
    }
}

/// A request that others can join until this is dropped, also by a panic.
struct Registered {
    shared: Arc<Shared>,
    key: String,
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.shared.passed).remove(&self.key);
    }
}
