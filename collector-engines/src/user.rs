// SPDX-License-Identifier: Apache-2.0
//! Engines as users define them: new ones, and other series for the built-in ones.

use std::collections::BTreeMap;

use collector_core::{EngineName, ModelId};
use serde::{Deserialize, Serialize};

use crate::parse::ExpressionError;
use crate::quantity::Quantity;

/// One engine as a user defines it: an entry of `[[engines]]`.
///
/// ```toml
/// [[engines]]
/// name = "acme"
/// base = "vllm"
/// prefix = "acme_vllm:"
/// metrics.waiting = "acme_requests{state=waiting} + acme_held?"
/// metrics.kv_cache_usage = ["acme_kv_ratio", "acme_kv_used / acme_kv_size"]
/// metrics.block_size = "16"
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSpec {
    /// Its name, as in the pod label `llm-d.ai/engine-type`. The name of a built-in engine overrides that engine.
    pub name: EngineName,
    /// The engine whose entries are used if this one has none: a built-in one, or one defined before. Default: the
    /// built-in engine of the same name, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<EngineName>,
    /// Replaces the prefix of the base's names: `ray_vllm_` for `vllm:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Box<str>>,
    /// The model of all of its servers, whatever their series name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelId>,
    /// The label that holds the model's id, or several of which the first one present is used. Default: those of the
    /// base, or `model_name`.
    #[serde(default, alias = "model_label", skip_serializing_if = "Option::is_none")]
    pub model_labels: Option<Labels>,
    /// The label that holds the data-parallel rank, or several; `""`: there is none. Default: those of the base, or
    /// none.
    #[serde(default, alias = "rank_label", skip_serializing_if = "Option::is_none")]
    pub rank_labels: Option<Labels>,
    /// The expressions of each quantity. An empty list: the engine does not report it.
    #[serde(default)]
    pub metrics: BTreeMap<Quantity, Aliases>,
    /// The series whose labels name its LoRA adapters, in the form of `vllm:lora_requests_info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<Box<str>>,
}

/// The expressions that may supply one quantity, in order of preference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "an expression such as \"name{label=value}\", or a list of them")]
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
            Self::One(expression) => std::slice::from_ref(expression),
            Self::Several(expressions) => expressions,
        }
    }
}

/// Labels of which the first one that a series has is used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "the name of a label, or a list of names")]
pub enum Labels {
    /// The only one; empty for none.
    One(Box<str>),
    /// Several, in order of preference.
    Several(Vec<Box<str>>),
}

impl Labels {
    /// The names, without empty ones.
    pub fn names(&self) -> Vec<Box<str>> {
        let all = match self {
            Self::One(label) => std::slice::from_ref(label),
            Self::Several(labels) => labels,
        };
        all.iter().filter(|label| !label.is_empty()).cloned().collect()
    }
}

/// An invalid definition of engines.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// An entry without a name.
    #[error("engine {position}: its name is empty")]
    NoName {
        /// Its place in the list, from 1.
        position: usize,
    },
    /// The name is that of endpoint pickers.
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
    /// The base is unknown.
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
    /// The base is defined later, so the two might be based on each other.
    #[error("engine {engine:?}: base {base:?} is defined after it, or is itself: define it before")]
    LaterBase {
        /// The engine.
        engine: EngineName,
        /// Its base.
        base: EngineName,
    },
    /// A prefix without a base whose prefix it replaces.
    #[error("engine {engine:?}: prefix replaces that of a base: name a base")]
    PrefixWithoutBase {
        /// The engine.
        engine: EngineName,
    },
    /// An expression that cannot be read.
    #[error("engine {engine:?}, metrics.{quantity}, {expression:?}: {error}")]
    Syntax {
        /// The engine.
        engine: EngineName,
        /// The quantity's key.
        quantity: &'static str,
        /// What was written.
        expression: String,
        /// What is wrong with it, and where.
        error: ExpressionError,
    },
    /// A counter that is not a sum of counters, so restarts would not be detected.
    #[error(
        "engine {engine:?}, metrics.{quantity}, {expression:?}: a counter may be a sum or difference \
             of series, times or over a number"
    )]
    NotLinear {
        /// The engine.
        engine: EngineName,
        /// The quantity's key.
        quantity: &'static str,
        /// What was written.
        expression: String,
    },
    /// The engine has no metrics.
    #[error("engine {engine:?} reads no series: give it a base, or metrics of its own")]
    ReadsNothing {
        /// The engine.
        engine: EngineName,
    },
    /// A limit is exceeded.
    #[error("{what}: at most {limit} are possible")]
    TooMany {
        /// Of what.
        what: String,
        /// How many there may be.
        limit: usize,
    },
}
