//! Everything that a user sets, and the composition of the parts.
//!
//! A [`Loader`] puts the layers over each other (defaults < file < environment < flags), checks the
//! whole and tells everything that is wrong with it; [`CollectorConfig::build`] makes the collector.

mod build;
mod document;
mod environment;
mod error;
mod file;
mod key;
mod layer;
mod load;
mod nearest;
mod origin;
mod reference;
mod schema;
mod validate;

pub use build::backends_compiled_in;
pub use collector_engine::{CacheConfig, VariantSpec};
pub use error::{ConfigError, ConfigErrors};
pub use key::{Key, Kind};
pub use load::{Loaded, Loader};
pub use origin::{Entry, Origin, Origins};
pub use reference::reference;
pub use schema::{
    CollectorConfig, LogConfig, LogFormat, LogLevel, ServerConfig, VARIANT_KEYS, keys,
};
