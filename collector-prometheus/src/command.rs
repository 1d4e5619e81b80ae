// SPDX-License-Identifier: Apache-2.0
//! Runs `prometheus.token_command` for a bearer token, and keeps the token for `token_ttl`.

use std::process::Stdio;
use std::time::Duration;

use collector_core::{Clock, ErrorKind, Tick};
use collector_transport::command::{self, CommandError, Output};
use collector_transport::{check_token, quote};
use secrecy::{ExposeSecret, SecretString};
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::failure::{Failure, Stage};

/// Time limit for one run of the command.
const RUN_TIME_MAX: Duration = Duration::from_secs(10);
/// Most bytes of output for a token.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// A command that prints a bearer token.
pub(crate) struct TokenCommand {
    command: Vec<String>,
    ttl: Duration,
    current: Mutex<Option<PrintedToken>>,
    /// The last printed token, for `redact`.
    last: std::sync::Mutex<Option<SecretString>>,
}

/// A token, and the run of the command that printed it.
#[derive(Clone, Debug)]
pub(crate) struct PrintedToken {
    pub(crate) token: SecretString,
    /// Number of the run, so that several requests with a refused token cause one run.
    run: u64,
    ran_at: Tick,
}

impl TokenCommand {
    pub(crate) fn new(command: &[String], ttl: Duration) -> Self {
        Self {
            command: command.to_vec(),
            ttl,
            current: Mutex::new(None),
            last: std::sync::Mutex::new(None),
        }
    }

    /// Returns the token. Runs the command if there is none yet or the ttl is over. While the command fails,
    /// its last token is used.
    ///
    /// # Cancel safety
    /// A cancelled run is killed, and the last token stays in place.
    pub(crate) async fn token(
        &self,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<PrintedToken, Failure> {
        let mut current = self.lock(deadline).await?;
        let now = clock.now();
        if let Some(known) = &mut *current {
            if known.ran_at.age(now) < self.ttl {
                return Ok(known.clone());
            }
            match self.run(deadline).await {
                Ok(token) => *known = PrintedToken { token, run: known.run + 1, ran_at: now },
                Err(failure) => {
                    tracing::warn!(
                        error = failure.detail,
                        "The token command failed; its last token is kept"
                    );
                    // Tried again after another ttl, or when the server refuses the token.
                    known.ran_at = now;
                }
            }
            return Ok(known.clone());
        }
        let known = PrintedToken { token: self.run(deadline).await?, run: 1, ran_at: now };
        Ok(current.insert(known).clone())
    }

    /// Runs the command after the server refused `sent`, unless another request did so already. Returns
    /// whether there is another token now.
    pub(crate) async fn renew(
        &self,
        sent: &PrintedToken,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<bool, Failure> {
        let mut current = self.lock(deadline).await?;
        let run = current.as_ref().map_or(0, |known| known.run);
        if run == sent.run {
            let token = self.run(deadline).await?;
            *current = Some(PrintedToken { token, run: run + 1, ran_at: clock.now() });
        }
        let known = current.as_ref().map(|known| known.token.expose_secret());
        Ok(known != Some(sent.token.expose_secret()))
    }

    /// Returns the last printed token.
    pub(crate) fn last(&self) -> Option<SecretString> {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    async fn lock(
        &self,
        deadline: Instant,
    ) -> Result<MutexGuard<'_, Option<PrintedToken>>, Failure> {
        tokio::time::timeout_at(deadline, self.current.lock()).await.map_err(|_| {
            Failure::timeout("another request is still waiting for the token command")
                .at(Stage::Unsent)
        })
    }

    async fn run(&self, deadline: Instant) -> Result<SecretString, Failure> {
        let now = Instant::now();
        let deadline = deadline.min(now + RUN_TIME_MAX);
        let token = match tokio::time::timeout_at(deadline, self.output()).await {
            Ok(output) => output.and_then(|output| self.token_of(&output)),
            Err(_) => Err(self.failure(&format!(
                "did not end within {:.1}s and was killed",
                deadline.duration_since(now).as_secs_f64()
            ))),
        }?;
        let last = Some(token.clone());
        *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = last;
        Ok(token)
    }

    async fn output(&self) -> Result<Output, Failure> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(self.failure("names no program"));
        };
        let mut command = Command::new(program);
        command.args(arguments).stderr(Stdio::piped());
        command::output(&mut command, OUTPUT_BYTES_MAX).await.map_err(|error| match error {
            CommandError::TooLong => self.failure("prints more than 64 KiB, which is not a token"),
            error => self.failure(&error.to_string()).with_source(error),
        })
    }

    fn token_of(&self, output: &Output) -> Result<SecretString, Failure> {
        let printed = String::from_utf8_lossy(output.printed.expose_secret());
        let token = printed.trim();
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.errors);
            // Some programs show what they were about to print.
            let last = self.last();
            let last = last.as_ref().map(ExposeSecret::expose_secret);
            let secrets = token.lines().map(str::trim).chain(last).filter(|it| !it.is_empty());
            let text =
                secrets.fold(text.into_owned(), |text, secret| text.replace(secret, "[token]"));
            let said = match quote(&text) {
                said if said.is_empty() => "and said nothing about it".to_owned(),
                said => format!("and said: {said:?}"),
            };
            return Err(self.failure(&format!("failed ({}), {said}", output.status)));
        }
        if token.is_empty() {
            return Err(self.failure("printed nothing, where a token was expected"));
        }
        check_token(token)
            .map_err(|problem| self.failure(&format!("printed a token that {problem}")))?;
        Ok(token.into())
    }

    /// A failure of the command. Its arguments may hold secrets, so only the program is named.
    fn failure(&self, problem: &str) -> Failure {
        let program = quote(self.command.first().map_or("", String::as_str));
        Failure::new(
            ErrorKind::Configuration,
            format!("prometheus.token_command: {program:?} {problem}"),
        )
        .with_remedy("run it by hand, as the user and with the environment of the collector")
        .at(Stage::Unsent)
    }
}

#[cfg(test)]
mod tests {
    use collector_core::ManualClock;

    use super::*;

    #[tokio::test]
    async fn concurrent_refusals_cause_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        let script = format!("echo run >> {0}; wc -l < {0}", runs.display());
        let words = ["sh", "-c", &script].map(str::to_owned);
        let command = TokenCommand::new(&words, Duration::from_secs(600));
        let (clock, deadline) = (ManualClock::new(), Instant::now() + Duration::from_secs(60));
        let sent = command.token(&clock, deadline).await.unwrap();
        assert_eq!(sent.token.expose_secret(), "1");
        let renewed = tokio::join!(
            command.renew(&sent, &clock, deadline),
            command.renew(&sent, &clock, deadline),
        );
        assert!(renewed.0.unwrap() && renewed.1.unwrap());
        let token = command.token(&clock, deadline).await.unwrap().token;
        assert_eq!(token.expose_secret(), "2");
    }
}
