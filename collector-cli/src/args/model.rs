// SPDX-License-Identifier: Apache-2.0
//! Which models a command reads: from its arguments, and from the environment where these say nothing.

use std::env;

use clap::Args;
use clap::builder::NonEmptyStringValueParser as NonEmpty;
use collector_core::ModelRef;

use crate::exit::Failure;

/// Variables that stand for arguments which are not given.
pub(super) const MODEL: &str = "COLLECTOR_MODEL";
pub(super) const NAMESPACE: &str = "COLLECTOR_NAMESPACE";

/// An argument, else the variable. clap would take a variable for an argument that conflicts with others.
pub(super) fn given(argument: Option<&String>, variable: &str) -> Option<String> {
    let set = || env::var(variable).ok().filter(|value| !value.is_empty());
    argument.cloned().or_else(set)
}

/// One model.
#[derive(Args, Debug)]
pub(crate) struct ModelArgs {
    /// Model id: the value of the label `model_name` [env: COLLECTOR_MODEL=]
    #[arg(value_name = "MODEL", conflicts_with = "model", value_parser = NonEmpty::new())]
    positional: Option<String>,
    /// The same as an option
    #[arg(short, long, value_name = "MODEL", value_parser = NonEmpty::new())]
    model: Option<String>,
    /// Namespace its pods run in [env: COLLECTOR_NAMESPACE=]
    #[arg(short, long, value_name = "NAMESPACE", value_parser = NonEmpty::new())]
    namespace: Option<String>,
}

impl ModelArgs {
    /// The model.
    pub(crate) fn model(&self) -> Result<ModelRef, Failure> {
        match (self.name(), self.namespace()) {
            (Some(model), Some(namespace)) => Ok(ModelRef::new(model, namespace)),
            (None, Some(_)) => Err(without("model", MODEL, "MODEL")),
            (Some(_), None) => Err(without("namespace", NAMESPACE, "-n NAMESPACE")),
            (None, None) => Err(Failure::usage("no model is named: give MODEL -n NAMESPACE")),
        }
    }

    /// The model, if one is named. A namespace of the environment alone names none.
    pub(crate) fn optional_model(&self) -> Result<Option<ModelRef>, Failure> {
        if self.name().is_none() && self.namespace.is_none() {
            return Ok(None);
        }
        self.model().map(Some)
    }

    /// Whether an argument names a model or a namespace.
    #[cfg(feature = "record")]
    pub(crate) fn is_named(&self) -> bool {
        self.positional.is_some() || self.model.is_some() || self.namespace.is_some()
    }

    fn name(&self) -> Option<String> {
        given(self.positional.as_ref().or(self.model.as_ref()), MODEL)
    }

    fn namespace(&self) -> Option<String> {
        given(self.namespace.as_ref(), NAMESPACE)
    }
}

fn without(what: &str, variable: &str, argument: &str) -> Failure {
    Failure::usage(format!("no {what} is named: give {argument}, or set {variable}"))
}

/// One model, those of a namespace, or all.
#[derive(Args, Debug)]
pub(crate) struct SelectArgs {
    #[command(flatten)]
    one: ModelArgs,
    /// Read the model in every namespace that has it, or every model there is, whatever -n says
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// What to read.
pub(crate) enum Selection {
    /// One model, whether the backend lists it or not.
    One(ModelRef),
    /// The models that a backend lists: of this name, in this namespace.
    Listed { model: Option<String>, namespace: Option<String> },
}

impl SelectArgs {
    /// What to read; all there is, if nothing is named.
    #[cfg(feature = "tui")]
    pub(crate) fn selection_or_all(&self) -> Result<Selection, Failure> {
        if self.one.name().is_none() && self.one.namespace().is_none() {
            return Ok(Selection::Listed { model: None, namespace: None });
        }
        self.selection()
    }

    /// What to read.
    pub(crate) fn selection(&self) -> Result<Selection, Failure> {
        let model = self.one.name();
        if self.all_namespaces {
            return Ok(Selection::Listed { model, namespace: None });
        }
        match (model, self.one.namespace()) {
            (Some(model), Some(namespace)) => Ok(Selection::One(ModelRef::new(model, namespace))),
            (None, Some(namespace)) => {
                Ok(Selection::Listed { model: None, namespace: Some(namespace) })
            }
            (Some(_), None) => {
                Err(without("namespace", NAMESPACE, "-n NAMESPACE, -A for all of them"))
            }
            (None, None) => Err(Failure::usage(
                "nothing is named to read: give MODEL -n NAMESPACE, -n NAMESPACE for all its models, \
                 or -A for all there are",
            )),
        }
    }
}
