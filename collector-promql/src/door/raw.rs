//! What is passed without being judged: once for all who ask for the same at the same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::flight::Lane;
use super::{Shared, lock};
use crate::upstream::{Passed, Request, Unanswered};

/// How long an answer is given again.
const LASTS: Duration = Duration::from_secs(1);
/// Requests that are shared at a time; others are sent by themselves.
const SHARED_MAX: usize = 256;
/// Bytes of an answer that is kept.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Where those who ask for the same wait.
pub(super) type Passing = watch::Receiver<Option<Result<Passed, Unanswered>>>;

impl Shared {
    /// Passes a request, or waits with those who have sent the same.
    pub(super) async fn passed(self: &Arc<Self>, request: Request) -> Result<Passed, Unanswered> {
        let key = format!("{request:?}");
        let passing = {
            let mut all = lock(&self.passing);
            match all.get(&key) {
                Some(passing) => Some(passing.clone()),
                None if all.len() < SHARED_MAX => {
                    let passing = self.send(key.clone(), request.clone());
                    all.insert(key, passing.clone());
                    Some(passing)
                }
                None => None,
            }
        };
        let Some(mut passing) = passing else { return self.ask(request, Lane::Raw).await };
        match passing.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
            Ok(Some(ended)) => ended,
            _ => Err(Unanswered::new("the request ended without an answer")),
        }
    }

    /// Sends a request. Its answer is given again for a moment, unless it is large.
    fn send(self: &Arc<Self>, key: String, request: Request) -> Passing {
        let (ended, passing) = watch::channel(None);
        let shared = Arc::clone(self);
        let listed = Listed { shared: Arc::clone(self), key };
        tokio::spawn(async move {
            let _listed = listed;
            let answered = shared.ask(request, Lane::Raw).await;
            let is_large = answered.as_ref().is_ok_and(|it| it.body.len() > KEPT_BYTES_MAX);
            ended.send_replace(Some(answered));
            if !is_large {
                tokio::time::sleep(LASTS).await;
            }
        });
        passing
    }
}

/// What is passed, as long as others may join it.
struct Listed {
    shared: Arc<Shared>,
    key: String,
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.shared.passing).remove(&self.key);
    }
}
