// SPDX-License-Identifier: Apache-2.0
//! The file as a [`Backend`].

use std::io;
use std::path::PathBuf;

use collector::async_trait;
use collector::core::{
    Answer, Answers, Ask, Backend, BackendError, Check, CheckStatus, Clock, ErrorKind, KnownModel,
    ListAsk, ModelRef, Operation, Probe, ProbeAsk, Supports, Tick,
};
use tokio::fs::{self, File};
use tokio::io::AsyncReadExt;

use crate::document::{Document, Model};

pub(crate) const NAME: &str = "static-json";

/// The largest file that is read: some 20 000 replicas. More is a mistake, and must not be buffered.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// Reads models and replicas from a JSON file, again at each fetch.
#[derive(Clone, Debug)]
pub struct StaticJson {
    path: PathBuf,
}

/// The file as it was read.
struct Contents {
    document: Document,
    as_of: Tick,
    sampled_at: Tick,
}

impl StaticJson {
    /// A backend over the file at `path`, which is first read when somebody asks.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    async fn contents(
        &self,
        clock: &dyn Clock,
        operation: Operation,
    ) -> Result<Contents, BackendError> {
        let as_of = clock.now();
        let (text, modified) =
            self.read().await.map_err(|error| self.unreadable(&error, operation))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(self
                .error(ErrorKind::TooLarge, operation)
                .with_detail(format!("more than {MAX_BYTES} bytes")));
        }
        let document = Document::parse(&text).map_err(|invalid| {
            self.error(ErrorKind::BadAnswer, operation)
                .with_detail(invalid.to_string())
                .with_remedy("see the README of static-json-backend for the format")
        })?;
        // Only a duration crosses from the file's clock to ours. A file from the future is new.
        let since_written = clock.wall().duration_since(modified);
        let age = since_written.unwrap_or_default().saturating_add(document.age());
        Ok(Contents { document, as_of, sampled_at: as_of - age })
    }

    /// The file's content, at most one byte over the limit, and when it was written.
    async fn read(&self) -> io::Result<(Vec<u8>, std::time::SystemTime)> {
        // Asked before opening, because opening a pipe would wait for a writer.
        if !fs::metadata(&self.path).await?.is_file() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it is not a regular file"));
        }
        let file = File::open(&self.path).await?;
        let modified = file.metadata().await?.modified()?;
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut text).await?;
        Ok((text, modified))
    }

    fn unreadable(&self, error: &io::Error, operation: Operation) -> BackendError {
        let kind = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => ErrorKind::Configuration,
            _ => ErrorKind::ServerError,
        };
        self.error(kind, operation)
            .with_detail(error.to_string())
            .with_remedy("is the path right, and may the collector read the file?")
    }

    fn error(&self, kind: ErrorKind, operation: Operation) -> BackendError {
        BackendError::new(kind, NAME.into(), operation, self.path.to_string_lossy())
    }
}

#[async_trait]
impl Backend for StaticJson {
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
        let _permit = ask.permits.acquire().await?;
        let Contents { document, as_of, sampled_at } =
            self.contents(ask.clock, Operation::Fetch).await?;
        let answer = |model: &ModelRef| match document.model(model) {
            Some(found) => Answer::Found(found.sample(as_of, sampled_at)),
            None => Answer::Missing { as_of, last_seen: None },
        };
        Ok(ask.models.iter().map(|model| (model.clone(), answer(model))).collect())
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        let _permit = ask.permits.acquire().await?;
        let contents = self.contents(ask.clock, Operation::ListModels).await?;
        Ok(contents.document.models.iter().map(Model::known).collect())
    }

    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        let check = match self.contents(ask.clock, Operation::Probe).await {
            Ok(contents) => {
                let models = contents.document.models.len();
                let age = contents.sampled_at.age(contents.as_of);
                let detail = format!("{models} models, {} s old", age.as_secs());
                Check::new("connection.file", CheckStatus::Pass, detail)
            }
            Err(error) => Check::new("connection.file", CheckStatus::Fail, error.to_string())
                .with_remedy(error.remedy()),
        };
        Ok(Probe::new(vec![check]))
    }
}
