//! What the pages of each kind of model server mean.

mod spec;

pub use spec::{Found, Operand, Operator, Series, Spec, SpecSyntaxError};
