//! The arguments of `record` and `replay`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser as NonEmpty;
use collector_core::{ModelRef, duration};

use super::ModelArgs;

/// What to record.
#[derive(Args, Debug)]
#[command(
    after_help = "Answers are recorded each cache.fetch_interval, and each push of direct scraping. An existing \
                  recording is continued.\nStops at SIGTERM and SIGINT (exit 0). A full disk or a reached \
                  --max-size ends it with exit 1; what was recorded is kept.\n\n\
                  Examples:\n  collector --config collector.toml record incident.rec\n  \
                  collector record incident.rec -m org/model -n prod --duration 10m --anonymize"
)]
pub(crate) struct RecordArgs {
    /// File to write
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Only this model: the value of the label `model_name`; without it all models that the backends list
    #[arg(short, long, value_name = "MODEL", requires = "namespace", value_parser = NonEmpty::new())]
    model: Option<String>,
    /// Namespace its pods run in
    #[arg(short, long, value_name = "NAMESPACE", requires = "model", value_parser = NonEmpty::new())]
    namespace: Option<String>,
    /// Stop after this time; without it it records until it is stopped
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) duration: Option<Duration>,
    /// Replace all names and texts, so that the recording can be shared: needs a new file
    #[arg(long)]
    pub(crate) anonymize: bool,
    /// Greatest size of the file, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(crate) max_size: u64,
}

impl RecordArgs {
    /// The only model to record.
    pub(crate) fn model(&self) -> Option<ModelRef> {
        let (model, namespace) = (self.model.as_deref()?, self.namespace.as_deref()?);
        Some(ModelRef::new(model, namespace))
    }
}

/// What to replay, and how.
#[derive(Args, Debug)]
#[command(
    after_help = "Serves what `collector serve` serves, from the recording, and configured as that is. \
                  Ages count in the\ntime of the recording.\n\n\
                  Examples:\n  collector replay incident.rec --speed 10x\n  \
                  collector replay incident.rec --once -m org/model -n prod -o json\n\n\
                  Any other command reads a recording with --backend replay and COLLECTOR_REPLAY__PATH."
)]
pub(crate) struct ReplayArgs {
    /// Recording to replay
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// How fast time passes, 10x for example [default: 1x]
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    pub(crate) speed: Option<f64>,
    /// Where to begin, as the time since the recording began; without it at the first answer, and with --once at the end
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) start: Option<Duration>,
    /// Begin again at the end
    #[arg(long = "loop", conflicts_with = "once")]
    pub(crate) repeat: bool,
    /// IP address and port to listen on [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR", conflicts_with = "once")]
    pub(crate) listen: Option<String>,
    /// Print one reading and exit, as `collector get replicas` does
    #[arg(long, requires = "model")]
    pub(crate) once: bool,
    /// Model id to read
    #[arg(short, long, value_name = "MODEL", requires_all = ["once", "namespace"], value_parser = NonEmpty::new())]
    model: Option<String>,
    /// Namespace its pods run in
    #[arg(short, long, value_name = "NAMESPACE", requires_all = ["once", "model"], value_parser = NonEmpty::new())]
    namespace: Option<String>,
}

impl ReplayArgs {
    /// The model to read.
    pub(crate) fn model(&self) -> Option<ModelArgs> {
        let (model, namespace) = (self.model.clone()?, self.namespace.clone()?);
        Some(ModelArgs { model, namespace })
    }
}

/// `10x`, or `10`.
fn speed(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('x').unwrap_or(text).parse().ok();
    number
        .filter(|speed: &f64| *speed > 0.0 && speed.is_finite())
        .ok_or_else(|| "write a factor, 10x for example".to_owned())
}
