// SPDX-License-Identifier: Apache-2.0
//! The command line of `collector scaled-object`.

use clap::builder::{
    NonEmptyStringValueParser as NonEmpty, PossibleValuesParser, TypedValueParser,
};
use clap::{Args, ValueEnum};
use collector_keda::Signal;

/// Which ScaledObject to write.
#[derive(Args, Debug)]
#[command(
    after_help = "Exits with 3 when no backend knows the model, and with 5 when the backend fails.\n\n\
                  Examples:\n  \
                  collector scaled-object org/model -n prod --target model > scaledobject.yaml\n  \
                  collector scaled-object org/model -n prod --door keda --signal queue --signal kv-max"
)]
pub(crate) struct ScaledObjectArgs {
    /// Model id: the value of the label `model_name`
    #[arg(value_name = "MODEL", value_parser = NonEmpty::new())]
    pub(crate) model: String,
    /// Namespace its pods run in; without it the only one that has the model
    #[arg(short, long, value_name = "NAMESPACE", value_parser = NonEmpty::new())]
    pub(crate) namespace: Option<String>,
    /// Deployment to scale; without it a name made of the model's
    #[arg(long, value_name = "DEPLOYMENT", value_parser = NonEmpty::new())]
    pub(crate) target: Option<String>,
    /// Least number of replicas; 0 needs something that holds requests while there are none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) min: u32,
    /// Greatest number of replicas [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max: Option<u32>,
    /// How KEDA reads: by queries to the PromQL API, or from the external scaler
    #[arg(long, value_enum, default_value_t = Door::Promql)]
    pub(crate) door: Door,
    /// What to scale by; may be repeated, and the greatest demand counts. With --min 0, `running` is added. `collector docs
    /// keda` says what each is; the external scaler has all of these, and queries the first four
    #[arg(long = "signal", value_name = "SIGNAL", value_parser = signal())]
    signals: Vec<Signal>,
    /// Address of the collector for KEDA [default: http://collector.monitoring:9464, or collector.monitoring:9465 for
    /// the external scaler]
    #[arg(long, value_name = "ADDRESS", value_parser = NonEmpty::new())]
    pub(crate) address: Option<String>,
}

impl ScaledObjectArgs {
    /// The signals, each once: the queue if none is given. A queue is empty while requests run, so before the last
    /// replica is removed, these count too.
    pub(crate) fn signals(&self) -> Vec<Signal> {
        let mut signals = Vec::new();
        let default = self.signals.is_empty().then_some(Signal::Queue);
        let running = (self.min == 0).then_some(Signal::Running);
        for signal in self.signals.iter().cloned().chain(default).chain(running) {
            if !signals.contains(&signal) {
                signals.push(signal);
            }
        }
        signals
    }
}

/// How KEDA reads from a collector.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Door {
    /// Triggers of type `prometheus`, with queries
    Promql,
    /// Triggers of type `external`
    Keda,
}

/// Parses the name of a signal that needs no other keys.
fn signal() -> impl TypedValueParser<Value = Signal> {
    let names = Signal::PLAIN.map(|signal| signal.name());
    let parser = PossibleValuesParser::new(names);
    parser.map(|name| Signal::plain(&name).expect("a possible value is one of these names"))
}
