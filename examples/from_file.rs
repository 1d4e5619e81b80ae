// SPDX-License-Identifier: Apache-2.0
//! Reads every model that is known, as a configuration file and the environment say.
//!
//! ```text
//! cargo run -p inference-collector --features config,epp --example from_file -- collector.toml
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it reads")]

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

use collector::config::Loader;
use collector::prelude::*;

/// What the configured backends know, as text.
pub(crate) async fn read(settings: Loader) -> Result<String, Box<dyn Error>> {
    // The error lists everything that is wrong, each with its place.
    let loaded = settings.load()?;
    let mut text = String::new();
    for warning in &loaded.warnings {
        writeln!(text, "warning: {warning}")?;
    }
    // `builder` in place of `build` takes a cache or a directory of your own.
    let collector = loaded.config.build(Arc::new(SystemClock::new()))?;

    let known = collector.list_models().await?;
    let models: Vec<ModelRef> = known.into_iter().map(|known| known.model).collect();
    // One request to the backend for all that are not cached.
    for (model, reading) in models.iter().zip(collector.collect_many(&models).await) {
        match reading {
            Ok(reading) => {
                let replicas = reading.value().replicas.len();
                writeln!(text, "{model}: {replicas} replicas, {}", reading.freshness())?;
            }
            Err(error) => writeln!(text, "{model}: {error}")?,
        }
    }
    Ok(text)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args().nth(1).ok_or("usage: from_file FILE")?;
    // Defaults < file < environment < flags.
    let loader = Loader::new().file(file).env(env::vars());
    print!("{}", read(loader).await?);
    Ok(())
}
