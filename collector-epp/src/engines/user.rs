//! What users say about engines: new ones, and other places for what the known ones tell.

use std::collections::BTreeMap;

use collector_core::EngineName;
use serde::{Deserialize, Serialize};

use super::quantity::Quantity;
use super::spec::SpecSyntaxError;

/// One engine as a user defines it: an entry of `[[epp.engines]]`.
///
/// ```toml
/// [[epp.engines]]
/// name = "acme"
/// base = "vllm"
/// metrics.waiting = "acme_requests{state=waiting}"
/// metrics.kv_cache_usage = ["acme_kv_ratio", "acme_kv_used / acme_kv_size"]
/// metrics.block_size = "16"
/// ```
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSpec {
    /// Its name, as in the pod label `llm-d.ai/engine-type`. That of a built-in engine overrides it.
    pub name: EngineName,
    /// The engine whose entries hold where this one has none: a built-in one, or one defined before.
    /// Default: the built-in engine of the same name, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<EngineName>,
    /// The label that holds the model's id. Default: that of the base, or `model_name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_label: Option<Box<str>>,
    /// The label that tells data-parallel ranks apart; `""`: there is none. Default: that of the
    /// base, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank_label: Option<Box<str>>,
    /// Where each quantity stands, in the syntax of [`Spec`](super::Spec). An empty list: nowhere.
    #[serde(default)]
    pub metrics: BTreeMap<Quantity, Aliases>,
}

/// The places where one quantity may stand; the first that is on a page counts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "a spec such as \"name{label=value}\", or a list of them")]
pub enum Aliases {
    /// The only one.
    One(String),
    /// Several, in order of preference.
    Several(Vec<String>),
}

impl Aliases {
    /// Each of them.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(spec) => std::slice::from_ref(spec),
            Self::Several(specs) => specs,
        }
    }
}

/// Engines that cannot be made out of what a user said.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// An entry without a name.
    #[error("engine {position}: its name is empty")]
    NoName {
        /// Its place in the list, from 1.
        position: usize,
    },
    /// The name is that of the Endpoint Picker.
    #[error("engine {engine:?}: this is the name of the Endpoint Picker, take another")]
    Reserved {
        /// The name.
        engine: EngineName,
    },
    /// Two entries of one name.
    #[error("engine {engine:?} is defined twice")]
    Twice {
        /// The name.
        engine: EngineName,
    },
    /// The base is not known where it is named.
    #[error(
        "engine {engine:?}: base {base:?} is not known: expected one of {known:?}, or an engine \
             that is defined before this one"
    )]
    UnknownBase {
        /// The engine.
        engine: EngineName,
        /// Its base.
        base: EngineName,
        /// What there is.
        known: Vec<EngineName>,
    },
    /// A spec that cannot be read.
    #[error("engine {engine:?}, metrics.{quantity}, {spec:?}: {error}")]
    Syntax {
        /// The engine.
        engine: EngineName,
        /// The quantity's key.
        quantity: &'static str,
        /// What was written.
        spec: String,
        /// What is wrong with it, and where.
        error: SpecSyntaxError,
    },
    /// Nothing would ever be read.
    #[error("engine {engine:?} reads no series: give it a base, or metrics of its own")]
    ReadsNothing {
        /// The engine.
        engine: EngineName,
    },
    /// More than the table holds.
    #[error("{what}: at most {limit} are possible")]
    TooMany {
        /// Of what.
        what: String,
        /// How many there may be.
        limit: usize,
    },
}
