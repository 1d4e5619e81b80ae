// SPDX-License-Identifier: Apache-2.0
//! The server as a [`Backend`].

use async_trait::async_trait;
use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, Check, CheckStatus, KnownModel, ListAsk, ModelRef,
    Operation, Probe, ProbeAsk, Supports,
};

use crate::client::{Answered, Call, Client, InvalidToken};
use crate::document::Model;

pub(crate) const NAME: &str = "http-json";

/// Asks an HTTP server for all models at once, at each fetch.
#[derive(Clone, Debug)]
pub struct HttpJson {
    client: Client,
}

impl HttpJson {
    /// A backend for the server at `url`, which is first asked when somebody reads; with the bearer token that
    /// it wants.
    ///
    /// # Errors
    /// When the token has characters that no header may have.
    pub fn new(url: impl Into<String>, token: Option<&str>) -> Result<Self, InvalidToken> {
        Ok(Self { client: Client::new(url.into(), token)? })
    }
}

#[async_trait]
impl Backend for HttpJson {
    fn name(&self) -> &str {
        NAME
    }

    fn supports(&self) -> Supports {
        Supports::ALL
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        if ask.models.is_empty() {
            return Ok(Answers::new());
        }
        let Ask { clock, time_left, permits, .. } = ask;
        let call = Call { operation: Operation::Fetch, clock, time_left, permits };
        let Answered { document, as_of, sampled_at } = self.client.get(call).await?;
        let answer = |model: &ModelRef| match document.model(model) {
            Some(found) => Answer::Found(found.sample(as_of, sampled_at)),
            None => Answer::Missing { as_of, last_seen: None },
        };
        Ok(ask.models.iter().map(|model| (model.clone(), answer(model))).collect())
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        let ListAsk { clock, time_left, permits, .. } = ask;
        let call = Call { operation: Operation::ListModels, clock, time_left, permits };
        let answered = self.client.get(call).await?;
        Ok(answered.document.models.iter().map(Model::known).collect())
    }

    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        let ProbeAsk { clock, time_left, permits, .. } = ask;
        let call = Call { operation: Operation::Probe, clock, time_left, permits };
        let check = match self.client.get(call).await {
            Ok(answered) => {
                let models = answered.document.models.len();
                let age = answered.sampled_at.age(answered.as_of);
                let detail = format!("{models} models, {} s old", age.as_secs());
                Check::new("connection.server", CheckStatus::Pass, detail)
            }
            Err(error) => Check::new("connection.server", CheckStatus::Fail, error.to_string())
                .with_remedy(error.remedy()),
        };
        Ok(Probe::new(vec![check]))
    }
}
