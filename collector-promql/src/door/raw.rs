//! What is passed without being judged: once for all who ask for the same at the same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

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
            let now = self.clock.now();
            let mut all = lock(&self.passing);
            let is_of_use = |passing: &Passing| match passing.has_changed() {
                Ok(_) => true,
                // It has ended; an answer that is too large for memory is not given again.
                Err(_) => passing.borrow().as_ref().is_some_and(|ended| match ended {
                    Ok(passed) => passed.body.len() <= KEPT_BYTES_MAX,
                    Err(_) => true,
                }),
            };
            all.retain(|_, (passing, at)| at.age(now) < LASTS && is_of_use(passing));
            match all.get(&key) {
                Some((passing, _)) => Some(passing.clone()),
                None if all.len() < SHARED_MAX => {
                    let passing = self.send(request.clone());
                    all.insert(key, (passing.clone(), now));
                    Some(passing)
                }
                None => None,
            }
        };
        let Some(mut passing) = passing else { return self.ask(request).await };
        match passing.wait_for(Option::is_some).await.map(|ended| ended.clone()) {
            Ok(Some(ended)) => ended,
            _ => Err(Unanswered::new("the request ended without an answer")),
        }
    }

    fn send(self: &Arc<Self>, request: Request) -> Passing {
        let (ended, passing) = watch::channel(None);
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let answered = shared.ask(request).await;
            ended.send_replace(Some(answered));
        });
        passing
    }
}
