// SPDX-License-Identifier: Apache-2.0
//! Names: of models, namespaces, pods, variants, accelerators, engines, roles and backends.
//!
//! Each kind of name is its own type, so that a namespace is never passed for a model. Names are
//! shared text: cloning one copies a pointer.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text::shortened;

macro_rules! name {
    ($(#[$attribute:meta])* $Name:ident) => {
        $(#[$attribute])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $Name(Arc<str>);

        impl $Name {
            /// Takes the text as it is: whatever a server or a user calls the thing.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $Name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $Name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $Name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $Name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
    };
}

name! {
    /// The id a model server reports in the label `model_name`; may hold `/`, `:` and any other
    /// character.
    ModelId
}
name! {
    /// A Kubernetes namespace.
    Namespace
}
name! {
    /// The pod a replica runs in, unique within its namespace.
    PodName
}
name! {
    /// A VariantAutoscaling object: one model on one accelerator, with a scale target.
    VariantName
}
name! {
    /// An accelerator type, `H100` for example.
    AcceleratorName
}
name! {
    /// A kind of model server, `vllm` for example.
    EngineName
}
name! {
    /// What a pod does where a request is served by several: `prefill` or `decode`, for example.
    Role
}
name! {
    /// A source of metrics, `prometheus` for example.
    BackendName
}

/// A model in a namespace: what is asked for, cached and tracked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ModelRef {
    /// The namespace the model's pods run in.
    pub namespace: Namespace,
    /// The model's id.
    pub model: ModelId,
}

impl ModelRef {
    /// `model` in `namespace`.
    pub fn new(model: impl Into<ModelId>, namespace: impl Into<Namespace>) -> Self {
        Self { namespace: namespace.into(), model: model.into() }
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (model, namespace) =
            (shortened(self.model.as_str()), shortened(self.namespace.as_str()));
        write!(f, "model {model:?} in namespace {namespace:?}")
    }
}

/// A variant in a namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct VariantRef {
    /// The namespace of the variant and of its pods.
    pub namespace: Namespace,
    /// The variant's name.
    pub name: VariantName,
}

impl VariantRef {
    /// The variant `name` in `namespace`.
    pub fn new(name: impl Into<VariantName>, namespace: impl Into<Namespace>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for VariantRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, namespace) = (shortened(self.name.as_str()), shortened(self.namespace.as_str()));
        write!(f, "variant {name:?} in namespace {namespace:?}")
    }
}
