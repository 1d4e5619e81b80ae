// SPDX-License-Identifier: Apache-2.0
//! The table of engines: the built-in ones and those of the user, each with the settings that it inherits.

use std::collections::BTreeMap;
use std::sync::Arc;

use collector_core::{EngineName, ModelId};

use crate::ENDPOINT_PICKER;
use crate::builtin::{self, Builtin};
use crate::expression::{Expression, Series};
use crate::quantity::{ALTERNATIVES_MAX, Quantity};
use crate::user::{EngineSpec, SpecError};

/// Engines that users may define.
const ENGINES_MAX: usize = 64;

/// The series of one kind of model server and their meaning, in one spelling of their names.
///
/// An engine whose names changed, or may have lost their colon on the way, is in the table once for each spelling,
/// under the same name. All numbers of a server are read in one spelling, so old and new names are never summed.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Engine {
    /// Its name, in documents and in the pod label `llm-d.ai/engine-type`.
    pub name: EngineName,
    /// The prefix of its names; empty for none.
    pub prefix: Box<str>,
    /// The model of all of its servers, whatever their series name.
    pub model: Option<ModelId>,
    /// The labels that hold the model's id; the first one that a series has is used.
    pub model_labels: Vec<Box<str>>,
    /// Values of these labels that are no model's id: the model must be given.
    pub no_models: Vec<Box<str>>,
    /// Whether ids of models are compared without case.
    pub ignore_case: bool,
    /// Whether it counts the requests of servers behind it, which may be scraped as well.
    pub is_frontend: bool,
    /// The labels that hold the data-parallel rank; the first one that a series has is used.
    pub rank_labels: Vec<Box<str>>,
    /// The label that names a replica if one page or pod has several.
    pub replica_label: Option<Box<str>>,
    /// The label that names the role of a server, if several serve a request together.
    pub role_label: Option<Box<str>>,
    /// Sample names that every page of this engine has.
    pub required: Vec<Box<str>>,
    /// The series whose labels name its LoRA adapters.
    pub lora: Option<Box<str>>,
    metrics: BTreeMap<Quantity, Vec<Expression>>,
}

impl Engine {
    /// Returns the expressions that may supply a quantity, in order of preference.
    pub fn alternatives(&self, quantity: Quantity) -> &[Expression] {
        self.metrics.get(&quantity).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the quantities that it reports, each with its expressions.
    pub fn metrics(&self) -> impl Iterator<Item = (Quantity, &[Expression])> {
        self.metrics.iter().map(|(quantity, alternatives)| (*quantity, alternatives.as_slice()))
    }

    /// Returns the expression of a quantity that is used, given which series are present: the first that is complete,
    /// at the same position as that of its [partner](Quantity::partner).
    pub fn chosen(
        &self,
        quantity: Quantity,
        is_present: impl Fn(&Series) -> bool + Copy,
    ) -> Option<&Expression> {
        let index = self.chosen_index(quantity, is_present)?;
        self.alternatives(quantity).get(index)
    }

    /// Returns the position of [`chosen`](Self::chosen) among the alternatives.
    pub fn chosen_index(
        &self,
        quantity: Quantity,
        is_present: impl Fn(&Series) -> bool + Copy,
    ) -> Option<usize> {
        let complete = |quantity: Quantity, index: usize| {
            let alternative = self.alternatives(quantity).get(index);
            alternative.is_some_and(|expression| {
                expression.is_constant() || expression.is_complete(is_present)
            })
        };
        quantity.chosen_among(complete)
    }

    /// Returns the series of the buckets that belong to a count of latencies in its alternative at this position.
    ///
    /// `None` unless that count and the sum at the same position are plain series of one histogram: then its bounds are
    /// in the unit of the sum, and no part of it is missing.
    pub fn buckets(&self, count: Quantity, index: usize) -> Option<Series> {
        let plain = |quantity, suffix| match self.alternatives(quantity).get(index)? {
            Expression::Series { series, .. } if series.number_in.is_none() => {
                Some((series, series.name.strip_suffix(suffix)?))
            }
            _ => None,
        };
        let (of_count, name) = plain(count, "_count")?;
        let (of_sum, name_of_sum) = plain(count.partner()?, "_sum")?;
        let is_one = name == name_of_sum && of_count.matchers == of_sum.matchers;
        is_one.then(|| Series { name: format!("{name}_bucket").into(), ..of_count.clone() })
    }

    /// Whether a value of a model label names a model.
    pub fn names_model(&self, value: &str) -> bool {
        !value.is_empty() && !self.no_models.iter().any(|name| **name == *value)
    }

    /// Returns every sample name that it reads.
    pub fn sample_names(&self) -> impl Iterator<Item = &str> {
        let expressions = self.metrics.values().flatten();
        expressions.flat_map(Expression::series).map(|series| &*series.name)
    }

    /// The same engine with names that begin with another prefix.
    pub fn with_prefix(&self, prefix: &str) -> Self {
        let own = self.prefix.clone();
        let rename = |name: &str| match name.strip_prefix(&*own) {
            Some(rest) => format!("{prefix}{rest}").into(),
            None => name.into(),
        };
        Self { prefix: prefix.into(), ..self.renamed(rename) }
    }

    /// The same engine with `_` instead of `:` in names; `None` if nothing changes.
    pub fn without_colons(&self) -> Option<Self> {
        let has_colon = self.sample_names().any(|name| name.contains(':'));
        let rename = |name: &str| name.replace(':', "_").into();
        has_colon.then(|| Self { prefix: rename(&self.prefix), ..self.renamed(rename) })
    }

    fn renamed(&self, rename: impl Fn(&str) -> Box<str>) -> Self {
        let mut series = |series: &Series| Series { name: rename(&series.name), ..series.clone() };
        let metrics = self.metrics.iter().map(|(quantity, alternatives)| {
            (*quantity, alternatives.iter().map(|it| it.map(&mut series)).collect())
        });
        Self {
            metrics: metrics.collect(),
            required: self.required.iter().map(|name| rename(name)).collect(),
            lora: self.lora.as_deref().map(&rename),
            ..self.clone()
        }
    }
}

/// The table of engines. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engines {
    all: Arc<[Engine]>,
    /// How many of them the user defined.
    of_user: usize,
}

impl Engines {
    /// Returns the built-in engines.
    #[expect(clippy::missing_panics_doc, reason = "the built-in table is the same in every build")]
    pub fn builtin() -> Self {
        Self::new(&[]).expect("the built-in table can be read")
    }

    /// The built-in engines, and those of a user.
    ///
    /// # Errors
    /// The first invalid setting, with the engine, the key and the position.
    pub fn new(specs: &[EngineSpec]) -> Result<Self, SpecError> {
        if specs.len() > ENGINES_MAX {
            return Err(SpecError::TooMany { what: "engines".to_owned(), limit: ENGINES_MAX });
        }
        let mut builtin = builtin()?;
        let mut users: Vec<Engine> = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            if spec.name.as_str().is_empty() {
                return Err(SpecError::NoName { position: index + 1 });
            }
            if spec.name.as_str() == ENDPOINT_PICKER {
                return Err(SpecError::Reserved { engine: spec.name.clone() });
            }
            if users.iter().any(|user| user.name == spec.name) {
                return Err(SpecError::Twice { engine: spec.name.clone() });
            }
            users.push(inherit(spec, specs, users.iter().chain(&builtin))?);
        }
        builtin.retain(|builtin| !users.iter().any(|user| user.name == builtin.name));
        let spellings = |engine: Engine| {
            let without_colons = engine.without_colons();
            std::iter::once(engine).chain(without_colons)
        };
        let users: Vec<Engine> = users.into_iter().flat_map(spellings).collect();
        let of_user = users.len();
        let all: Vec<Engine> =
            users.into_iter().chain(builtin.into_iter().flat_map(spellings)).collect();
        Ok(Self { all: all.into(), of_user })
    }

    /// The engines, those of the user first, each followed by its other spellings.
    pub fn iter(&self) -> impl Iterator<Item = &Engine> {
        self.all.iter()
    }

    /// How many engines there are, each spelling counted.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The engines that a user defined, each followed by its other spellings.
    pub fn of_user(&self) -> &[Engine] {
        &self.all[..self.of_user]
    }

    /// The names, each once.
    pub fn names(&self) -> Vec<EngineName> {
        let mut names: Vec<EngineName> = Vec::new();
        for engine in self.iter() {
            if !names.contains(&engine.name) {
                names.push(engine.name.clone());
            }
        }
        names
    }

    /// Returns the router or gateway that exports this series; `None` if model servers may have it.
    pub fn router_of(name: &str) -> Option<&'static str> {
        builtin::ROUTERS.iter().find(|(series, _)| *series == name).map(|(_, router)| *router)
    }

    /// Returns the series by which routers and gateways are recognised.
    pub fn router_names() -> impl Iterator<Item = &'static str> {
        builtin::ROUTERS.iter().map(|(series, _)| *series)
    }
}

fn builtin() -> Result<Vec<Engine>, SpecError> {
    let mut all: Vec<Engine> = Vec::new();
    for entry in &builtin::ENGINES {
        let engine = of_builtin(entry, &all)?;
        all.push(engine);
    }
    Ok(all)
}

fn of_builtin(entry: &Builtin, known: &[Engine]) -> Result<Engine, SpecError> {
    let texts = |texts: &[&str]| texts.iter().map(|text| Box::from(*text)).collect::<Vec<_>>();
    let base = entry.base.and_then(|base| known.iter().find(|it| it.name.as_str() == base));
    let mut engine = Engine {
        name: entry.name.into(),
        prefix: entry.prefix.into(),
        model: None,
        model_labels: texts(entry.model_labels),
        no_models: texts(entry.no_models),
        ignore_case: entry.ignore_case,
        is_frontend: entry.is_frontend,
        rank_labels: texts(entry.rank_labels),
        replica_label: entry.replica_label.map(Box::from),
        role_label: entry.role_label.map(Box::from),
        required: texts(entry.required),
        lora: entry.lora.map(Box::from),
        metrics: base.map(|base| base.with_prefix(entry.prefix).metrics).unwrap_or_default(),
    };
    for (quantity, alternatives) in entry.metrics {
        let alternatives: Vec<String> = alternatives.iter().map(|it| (*it).to_owned()).collect();
        engine.metrics.insert(*quantity, parse(&engine.name, *quantity, &alternatives)?);
    }
    Ok(engine)
}

fn inherit<'a>(
    spec: &EngineSpec,
    specs: &[EngineSpec],
    known: impl Iterator<Item = &'a Engine> + Clone,
) -> Result<Engine, SpecError> {
    let base_name = spec.base.as_ref().unwrap_or(&spec.name);
    let base = known.clone().find(|known| known.name == *base_name);
    if let (Some(base), None) = (&spec.base, base) {
        let engine = spec.name.clone();
        if specs.iter().any(|other| other.name == *base) {
            return Err(SpecError::LaterBase { engine, base: base.clone() });
        }
        let mut names: Vec<EngineName> = known.map(|known| known.name.clone()).collect();
        names.dedup();
        return Err(SpecError::UnknownBase { engine, base: base.clone(), known: names });
    }
    let mut engine = match (base, &spec.prefix) {
        (Some(base), Some(prefix)) => base.with_prefix(prefix),
        (Some(base), None) => base.clone(),
        (None, Some(_)) => {
            return Err(SpecError::PrefixWithoutBase { engine: spec.name.clone() });
        }
        (None, None) => Engine {
            name: spec.name.clone(),
            prefix: Box::default(),
            model: None,
            model_labels: vec!["model_name".into()],
            no_models: Vec::new(),
            ignore_case: false,
            is_frontend: false,
            rank_labels: Vec::new(),
            replica_label: None,
            role_label: None,
            required: Vec::new(),
            lora: None,
            metrics: BTreeMap::new(),
        },
    };
    engine.name = spec.name.clone();
    if spec.model.is_some() {
        engine.model.clone_from(&spec.model);
    }
    if let Some(labels) = &spec.model_labels {
        engine.model_labels = labels.names();
    }
    if let Some(labels) = &spec.rank_labels {
        engine.rank_labels = labels.names();
    }
    if let Some(series) = &spec.lora {
        engine.lora = Some(series.clone()).filter(|series| !series.is_empty());
    }
    for (quantity, alternatives) in &spec.metrics {
        let alternatives = parse(&spec.name, *quantity, alternatives.as_slice())?;
        engine.metrics.insert(*quantity, alternatives);
        // The base may require series that this engine has replaced.
        engine.required.clear();
    }
    if engine.metrics.values().flatten().all(Expression::is_constant) {
        return Err(SpecError::ReadsNothing { engine: spec.name.clone() });
    }
    Ok(engine)
}

fn parse(
    engine: &EngineName,
    quantity: Quantity,
    alternatives: &[String],
) -> Result<Vec<Expression>, SpecError> {
    if alternatives.len() > ALTERNATIVES_MAX {
        let what = format!("engine {engine:?}, metrics.{}, alternatives", quantity.key());
        return Err(SpecError::TooMany { what, limit: ALTERNATIVES_MAX });
    }
    let parse = |text: &String| {
        let expression: Expression = text.parse().map_err(|error| SpecError::Syntax {
            engine: engine.clone(),
            quantity: quantity.key(),
            expression: text.clone(),
            error,
        })?;
        if quantity.is_counter() && !expression.is_linear() {
            return Err(SpecError::NotLinear {
                engine: engine.clone(),
                quantity: quantity.key(),
                expression: text.clone(),
            });
        }
        Ok(expression)
    };
    alternatives.iter().map(parse).collect()
}

#[cfg(test)]
mod tests;
