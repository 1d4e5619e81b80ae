// SPDX-License-Identifier: Apache-2.0
//! The command line.

mod form;
mod model;
#[cfg(feature = "record")]
mod recording;
#[cfg(all(feature = "keda", feature = "promql"))]
mod scaled_object;

#[cfg(feature = "sim")]
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser as NonEmpty;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
#[cfg(feature = "sim")]
use collector_config::address;
use collector_core::{ModelRef, duration};

use crate::exit::Failure;
use crate::output::Colours;

use self::form::FormParser;
pub(crate) use self::form::{Form, Format};
#[cfg(feature = "kubernetes")]
use self::model::MODEL;
pub(crate) use self::model::{ModelArgs, SelectArgs, Selection};
use self::model::{NAMESPACE, given};
#[cfg(feature = "record")]
pub(crate) use self::recording::{RecordArgs, ReplayArgs};
#[cfg(all(feature = "keda", feature = "promql"))]
pub(crate) use self::scaled_object::{Door, ScaledObjectArgs};

#[cfg(feature = "sim")]
const DEMO: &str = "\n  collector demo";
#[cfg(not(feature = "sim"))]
const DEMO: &str = "";

const EXAMPLES: &str = "
  PROMETHEUS_BASE_URL=http://localhost:9090 PROMETHEUS_ALLOW_HTTP=true \\
    collector get replicas -m meta-llama/Llama-3.1-8B-Instruct -n prod
  collector check -m meta-llama/Llama-3.1-8B-Instruct -n prod
  collector --config collector.toml serve

Exit codes:
  0 found, all good      1 another failure, or a failed check   2 usage or configuration error
  3 metrics missing      4 metrics too old to be used           5 the backend failed";

/// Reads the load of LLM-inference fleets, always with its true age.
#[derive(Parser, Debug)]
#[command(
    name = "collector",
    version,
    propagate_version = true,
    after_help = format!("Examples:{DEMO}{EXAMPLES}"),
    arg_required_else_help = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct GlobalArgs {
    /// Configuration file: .yaml and .yml are YAML, everything else is TOML
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "COLLECTOR_CONFIG",
        hide_env_values = true
    )]
    pub(crate) config: Option<PathBuf>,
    /// Backend to read from; several, separated by commas, in order of preference
    #[arg(long, global = true, value_name = "NAME", value_parser = NonEmpty::new())]
    pub(crate) backend: Option<String>,
    /// Least severity that is logged; `RUST_LOG` takes precedence
    #[arg(long, global = true, value_name = "LEVEL",
          value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    pub(crate) log_level: Option<String>,
    /// Form of the log on stderr
    #[arg(long, global = true, value_name = "FORMAT", value_parser = ["text", "json"])]
    pub(crate) log_format: Option<String>,
    /// Form of the result on stdout. Not every command has each form; custom-columns takes titles and fields, as
    /// JSON names them: custom-columns=POD:.podName,WAITING:.queueLength
    #[arg(short, long, global = true, value_name = "FORMAT", value_parser = FormParser)]
    pub(crate) output: Option<Form>,
    /// Whether to print in colours: auto does on a terminal, unless `NO_COLOR` is set
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Colours::Auto)]
    pub(crate) color: Colours,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Simulate a fleet on this machine and collect from it: no cluster, no configuration
    #[cfg(feature = "sim")]
    Demo(DemoArgs),
    /// Print readings
    #[command(subcommand)]
    Get(GetCommand),
    /// Print a line for each change of a model's readings
    Watch(WatchArgs),
    /// Show models and their pods on the whole screen, and keep them current
    #[cfg(feature = "tui")]
    Top(TopArgs),
    /// Check the configuration, the backend and a model, each with cause and remedy
    Check(CheckArgs),
    /// Show for each value of a reading which backend and series it came from, and its age
    #[command(after_help = "Exits as `collector get replicas` does.\n\n\
                  Example:\n  collector explain -m org/model -n prod -o wide")]
    Explain(ModelArgs),
    /// Check configuration files without using the network
    Validate(ValidateArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Refresh in the background and answer over HTTP
    Serve(ServeArgs),
    /// Record what the backends answer, for `collector replay`
    #[cfg(feature = "record")]
    Record(RecordArgs),
    /// Serve a recording as if its backends answered now
    #[cfg(feature = "record")]
    Replay(ReplayArgs),
    /// Read one page of metrics and show what is taken from it
    #[cfg(feature = "epp")]
    Scrape(ScrapeArgs),
    /// Write a ScaledObject of KEDA for a model
    #[cfg(all(feature = "keda", feature = "promql"))]
    ScaledObject(ScaledObjectArgs),
    /// Simulate the model servers of a described fleet, for tests of programs that read their metrics
    #[cfg(feature = "sim")]
    Sim(SimArgs),
    /// Say that this build has no simulator
    #[cfg(not(feature = "sim"))]
    #[command(name = "demo", alias = "sim", hide = true)]
    NoSimulator {
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
    /// Print a page of the documentation
    Docs(DocsArgs),
    /// Print the version, the commit and the features that it was built with
    Version,
    /// Print the script that completes command lines in a shell
    #[command(
        after_help = "Examples:\n  collector completions bash > /etc/bash_completion.d/collector\n  \
                  collector completions zsh > \"${fpath[1]}/_collector\"\n  \
                  collector completions fish > ~/.config/fish/completions/collector.fish"
    )]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL", value_enum)]
        shell: Shell,
    },
    /// Print a manual page, in roff
    #[command(
        after_help = "Examples:\n  collector man | man -l -\n  collector man get replicas > collector-get-replicas.1"
    )]
    Man(ManArgs),
}

/// What to read.
#[derive(Subcommand, Debug)]
pub(crate) enum GetCommand {
    /// The replicas of one model, or of several
    #[command(
        visible_alias = "replica",
        after_help = "Examples:\n  \
                  collector get replicas org/model -n prod -o wide\n  \
                  collector get replicas -A --sort-by=-queueLength\n  \
                  collector get replicas org/model -n prod -o custom-columns=POD:.podName,WAITING:.queueLength\n  \
                  collector get replicas org/model -n prod --watch"
    )]
    Replicas(ReplicasArgs),
    /// The allocation of one variant of a model, or of all its variants
    #[command(
        visible_alias = "allocations",
        after_help = "Examples:\n  collector get allocation org/model -n prod --variant model-h100\n  \
                  collector get allocations -A -o csv"
    )]
    Allocation(AllocationArgs),
    /// The models that the backend knows
    #[command(
        visible_alias = "model",
        after_help = "Example:\n  collector get models -n prod -o json"
    )]
    Models(ListArgs),
    /// The variants of the configuration, and those that objects of a cluster describe
    #[command(
        visible_alias = "variant",
        after_help = "With kubernetes.enabled = true it shows what each variant scales, and its pods: wanted, ready, starting. \
                  That is for a build with the cargo feature kubernetes.\n\n\
                  Example:\n  collector get variants -n prod -o wide"
    )]
    Variants(ListArgs),
    /// The pods that serve models, as a cluster sees them, and whether they answer
    #[command(
        visible_alias = "pod",
        after_help = "It needs kubernetes.enabled = true, and a build with the cargo feature kubernetes.\n\n\
                  Examples:\n  collector get pods -m org/model -n prod\n  \
                  collector get pods -A --sort-by=state"
    )]
    Pods(PodsArgs),
}

/// Which replicas to print.
#[derive(Args, Debug)]
pub(crate) struct ReplicasArgs {
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) rows: RowArgs,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
    /// Print a line for each change until stopped, as `collector watch` does
    #[arg(short, long, conflicts_with_all = ["sort_by", "no_headers"])]
    pub(crate) watch: bool,
}

/// Which allocations to print.
#[derive(Args, Debug)]
pub(crate) struct AllocationArgs {
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    #[command(flatten)]
    pub(crate) which: VariantArgs,
    #[command(flatten)]
    pub(crate) rows: RowArgs,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// A variant, by its name or by its accelerator; without one, all of them.
#[derive(Args, Debug)]
#[group(multiple = false)]
pub(crate) struct VariantArgs {
    /// Name of the variant
    #[arg(long, value_name = "NAME", conflicts_with = "all_namespaces", value_parser = NonEmpty::new())]
    pub(crate) variant: Option<String>,
    /// Accelerator of the variant, where only one variant of the model has it
    #[arg(long, value_name = "ACCELERATOR", conflicts_with = "all_namespaces", value_parser = NonEmpty::new())]
    pub(crate) accelerator: Option<String>,
}

/// A namespace, or all of them.
#[derive(Args, Debug)]
pub(crate) struct PlaceArgs {
    /// Only those of this namespace [env: COLLECTOR_NAMESPACE=]
    #[arg(short, long, value_name = "NAMESPACE", value_parser = NonEmpty::new())]
    namespace: Option<String>,
    /// Those of all namespaces, whatever -n and COLLECTOR_NAMESPACE say
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

impl PlaceArgs {
    /// The only namespace that is wanted.
    fn namespace(&self) -> Option<String> {
        given(self.namespace.as_ref(), NAMESPACE).filter(|_| !self.all_namespaces)
    }
}

/// A list, of one namespace or of all.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    pub(crate) rows: RowArgs,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

impl ListArgs {
    /// The only namespace that is wanted.
    pub(crate) fn namespace(&self) -> Option<String> {
        self.place.namespace()
    }
}

/// Some of the pods.
#[derive(Args, Debug)]
pub(crate) struct PodsArgs {
    /// Only those of this model [env: COLLECTOR_MODEL=]
    #[arg(short, long, value_name = "MODEL", value_parser = NonEmpty::new())]
    model: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    pub(crate) rows: RowArgs,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

#[cfg(feature = "kubernetes")]
impl PodsArgs {
    /// The only model that is wanted.
    pub(crate) fn model(&self) -> Option<String> {
        given(self.model.as_ref(), MODEL)
    }

    /// The only namespace that is wanted.
    pub(crate) fn namespace(&self) -> Option<String> {
        self.place.namespace()
    }
}

/// How rows are printed.
#[derive(Args, Debug, Default)]
pub(crate) struct RowArgs {
    /// Print rows without the line of titles and what stands around them
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// Field to order rows by, as JSON names it: queueLength; -queueLength begins with the greatest. What
    /// was not measured comes last
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true, value_parser = NonEmpty::new())]
    pub(crate) sort_by: Option<String>,
}

/// How the backend is read.
#[derive(Args, Debug)]
pub(crate) struct ReadArgs {
    /// Time over which peaks and rates are taken, instead of the configured window
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) window: Option<Duration>,
    /// Longest time to wait for the result: if it is not there by then, the command exits with 5
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
}

/// What to watch.
#[derive(Args, Debug)]
#[command(
    after_help = "A line has the time, the namespace, the model, its status, and what changed. With -o json each \
                  line is the\ndocument of `get replicas -o json`, and an error is a document too. It ends with 0 when it is stopped.\n\n\
                  Examples:\n  collector watch org/model -n prod\n  collector watch -A -o json | jq -c .status"
)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    /// Time over which peaks and rates are taken, instead of the configured window
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) window: Option<Duration>,
    /// Exit with 0 after this time
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
}

/// What to show.
#[cfg(feature = "tui")]
#[derive(Args, Debug)]
#[command(
    after_help = "Without a model and a namespace it shows all there are. ? shows its keys.\n\n\
                  Examples:\n  collector top\n  collector top -n prod"
)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) select: SelectArgs,
    /// Time over which peaks and rates are taken, instead of the configured window
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) window: Option<Duration>,
}

/// What to check.
#[derive(Args, Debug)]
#[command(
    after_help = "With kubernetes.enabled = true it checks the cluster, too. That is for a build with the cargo \
                  feature kubernetes.\n\n\
                  Exits with 0 when nothing failed and with 1 otherwise.\n\n\
                  Examples:\n  collector check -m org/model -n prod --wait 60s\n  \
                  kubectl get scaledobject -A -o yaml | collector check --scaled-object -\n  \
                  collector check --hpa hpa.yaml --fix > fixed.yaml"
)]
#[cfg_attr(feature = "promql", command(group = clap::ArgGroup::new("objects").multiple(true).args(["scaled_object", "hpa"])))]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Repeat until nothing fails, at most for this time; stderr shows what failed
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) wait: Option<Duration>,
    /// Check the KEDA ScaledObjects in this YAML file (`-`: standard input), and run the queries of their triggers;
    /// may be repeated
    #[cfg(feature = "promql")]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "positional"])]
    pub(crate) scaled_object: Vec<PathBuf>,
    /// Likewise for HorizontalPodAutoscalers, with metrics as prometheus-adapter would query them
    #[cfg(feature = "promql")]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "positional"])]
    pub(crate) hpa: Vec<PathBuf>,
    /// Print the files with corrected objects on stdout, and the checks of these on stderr; what only you can know stays
    #[cfg(feature = "promql")]
    #[arg(long, requires = "objects", conflicts_with = "wait")]
    pub(crate) fix: bool,
}

impl CheckArgs {
    /// The model to check for, if one is named.
    pub(crate) fn model(&self) -> Result<Option<ModelRef>, Failure> {
        #[cfg(feature = "promql")]
        if !self.scaled_object.is_empty() || !self.hpa.is_empty() {
            return Ok(None);
        }
        self.model.optional_model()
    }
}

/// What to validate.
#[derive(Args, Debug)]
#[command(
    after_help = "Checks each file as `serve --config FILE` would read it, environment variables \
                  and the files it names included:\ncertificates, tokens, targets, and the directory \
                  of the snapshot.\n\n\
                  Examples:\n  collector validate collector.toml\n  \
                  collector validate --no-files collector.toml"
)]
pub(crate) struct ValidateArgs {
    /// Configuration files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Do not check the files that the configuration names, where they are on another machine
    #[arg(long)]
    pub(crate) no_files: bool,
}

/// Which page to print.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  collector docs\n  collector docs checks connection")]
pub(crate) struct DocsArgs {
    /// Name of the page; without it the pages are listed
    #[arg(value_name = "PAGE", value_parser = NonEmpty::new())]
    pub(crate) page: Option<String>,
    /// Heading of the section to print; without it the complete page
    #[arg(value_name = "SECTION", requires = "page", value_parser = NonEmpty::new())]
    pub(crate) section: Option<String>,
}

/// Whose manual page to print.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Command; without it the page of the program
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// What to do with the configuration.
#[derive(Subcommand, Debug)]
pub(crate) enum ConfigCommand {
    /// Print each key with its value
    #[command(after_help = "Example:\n  collector --config collector.toml config show --origin")]
    Show(ConfigShowArgs),
}

/// What to print of the configuration.
#[derive(Args, Debug)]
pub(crate) struct ConfigShowArgs {
    /// Print where each value comes from: file and line, variable, flag or default
    #[arg(long)]
    pub(crate) origin: bool,
    /// Print the defaults instead of what is set
    #[arg(long, conflicts_with = "origin")]
    pub(crate) defaults: bool,
}

/// How to serve.
#[derive(Args, Debug)]
#[command(after_help = "Paths:\n  \
                  /api/v1/replicas?model=&namespace=            one reading, or all tracked\n  \
                  /api/v1/allocation?model=&namespace=&variant= likewise\n  \
                  /api/v1/models                                models known\n  \
                  /healthz, /readyz, /metrics, /                health, metrics, live page\n\n\
                  Example:\n  collector --config collector.toml serve --listen 127.0.0.1:9464")]
pub(crate) struct ServeArgs {
    /// IP address and port to listen on [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
}

/// Which page to read, and how.
#[cfg(feature = "epp")]
#[derive(Args, Debug)]
#[command(
    after_help = "A URL is read as the daemon reads it: within its deadline (nine tenths of \
                  scrape.scrape_interval, or\nscrape.timeout), with its token where the URL is one of its \
                  targets, its certificates and its limits.\nA file whose name ends in .gz is \
                  decompressed.\n\n\
                  Examples:\n  \
                  collector scrape http://10.0.0.7:8000/metrics\n  \
                  collector scrape http://10.0.0.7:8000/metrics --timeout 10s\n  \
                  kubectl exec m-0 -- curl -s localhost:8000/metrics | collector scrape - -o json\n  \
                  collector scrape metrics.txt --engine sglang\n  \
                  collector scrape metrics.txt --raw --name up --name http_requests_total -o json"
)]
pub(crate) struct ScrapeArgs {
    /// Page to read: a URL, a file, or - for what comes on stdin
    #[arg(value_name = "URL|FILE|-", value_parser = NonEmpty::new())]
    pub(crate) page: String,
    /// Engine that wrote the page; without it the engine is recognised by the page
    #[arg(long, value_name = "NAME", conflicts_with = "raw", value_parser = NonEmpty::new())]
    pub(crate) engine: Option<String>,
    /// Show samples as they stand on the page, of whatever server it is
    #[arg(long)]
    pub(crate) raw: bool,
    /// Complete name of the samples to show, may be repeated; without it those that any engine has, or all
    /// if the page is of none
    #[arg(long = "name", value_name = "NAME", requires = "raw", value_parser = NonEmpty::new())]
    pub(crate) names: Vec<String>,
    /// Read it as if it came with this Content-Type: application/openmetrics-text, for example
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// How long to wait for the page of a URL; without it as long as the daemon does
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) timeout: Option<Duration>,
}

/// How long to show the demo.
#[cfg(feature = "sim")]
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  collector demo --once -o json")]
pub(crate) struct DemoArgs {
    /// Exit after this time; without it the demo runs until it is stopped
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "once")]
    pub(crate) duration: Option<Duration>,
    /// Print one reading of every model and exit
    #[arg(long)]
    pub(crate) once: bool,
}

/// Which fleet to simulate.
#[cfg(feature = "sim")]
#[derive(Args, Debug)]
#[command(
    after_help = "The control endpoint answers GET /state and /targets, and changes loads, pods and \
                  faults while\nthe fleet runs: see `collector docs simulator`.\n\n\
                  Example:\n  collector sim --fleet examples/fleet.toml --targets targets.json"
)]
pub(crate) struct SimArgs {
    /// Description of the fleet: .yaml and .yml are YAML, everything else is TOML
    #[arg(long, value_name = "FILE")]
    pub(crate) fleet: PathBuf,
    /// Loopback address of the control endpoint; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9470", value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// Port of the first pod, from which on the others follow; without it, any free ones
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Write the targets in Prometheus' file_sd form, and again whenever pods come or go
    #[arg(long, value_name = "FILE")]
    pub(crate) targets: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_subcommand() {
        for line in [
            "collector -o json --backend prometheus get models",
            "collector get -o json models --backend prometheus",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.output.map(|form| form.format), Some(Format::Json), "{line}");
            assert_eq!(cli.global.backend.as_deref(), Some("prometheus"), "{line}");
        }
    }
}
