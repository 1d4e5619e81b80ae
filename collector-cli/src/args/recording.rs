// SPDX-License-Identifier: Apache-2.0
//! The arguments of `record` and `replay`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use collector_core::duration;

use super::ModelArgs;

/// What to record.
#[derive(Args, Debug)]
#[command(
    after_help = "Answers are recorded each cache.fetch_interval, and each push of direct scraping; a recording that \
                  exists is\ncontinued. SIGTERM and SIGINT end it with exit 0. A full disk and --max-size end it \
                  with exit 1; what was\nrecorded before is kept. See `collector docs record-and-replay`.\n\n\
                  Examples:\n  collector --config collector.toml record incident.rec\n  \
                  collector record incident.rec -m org/model -n prod --duration 10m --anonymize"
)]
pub(crate) struct RecordArgs {
    /// File to write, or to continue
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Without a model, all models that the backends list are recorded.
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Stop after this time; without it, it records until it is stopped
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) duration: Option<Duration>,
    /// Replace all names and texts, so that the recording can be shared: needs a new file
    #[arg(long)]
    pub(crate) anonymize: bool,
    /// Greatest size of the file, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(crate) max_size: u64,
}

/// What to replay, and how.
#[derive(Args, Debug)]
#[command(
    after_help = "Serves what `collector serve` serves, configured as that is, from the recording. Ages count in the \
                  time of the\nrecording. Every other command reads it with --backend replay and \
                  COLLECTOR_REPLAY__PATH=FILE.\nSee `collector docs record-and-replay`.\n\n\
                  Examples:\n  collector replay incident.rec --speed 10x\n  \
                  collector replay incident.rec --watch --start 12m\n  \
                  collector replay incident.rec --once --start 12m -m org/model -n prod -o json"
)]
pub(crate) struct ReplayArgs {
    /// Recording to replay
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The model of --once
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// How fast time passes, 10x for example [default: 1x]
    #[arg(long, value_name = "FACTOR", value_parser = speed, conflicts_with = "once")]
    pub(crate) speed: Option<f64>,
    /// Where to begin, as the time since the recording began; by default once it has an answer and a list of
    /// models, and with --once at the end
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) start: Option<Duration>,
    /// Begin again at the end
    #[arg(long = "loop", conflicts_with = "once")]
    pub(crate) repeat: bool,
    /// Address and port to listen on [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR", conflicts_with_all = ["once", "watch"])]
    pub(crate) listen: Option<String>,
    /// Show the models as `collector demo` does, instead of serving them
    #[arg(long, conflicts_with = "once")]
    pub(crate) watch: bool,
    /// Print one reading as `collector get replicas` does, and exit
    #[arg(long)]
    pub(crate) once: bool,
}

/// `10x`, or `10`.
fn speed(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text).parse().ok();
    number
        .filter(|speed: &f64| *speed > 0.0 && speed.is_finite())
        .ok_or_else(|| "write a factor, 10x for example".to_owned())
}
