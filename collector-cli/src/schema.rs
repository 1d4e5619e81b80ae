// SPDX-License-Identifier: Apache-2.0
//! The published schemas in `docs/schema` are those of the documents, or this test says so.

use std::path::Path;
use std::{env, fs};

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

#[cfg(feature = "epp")]
use crate::commands::{SamplesDocument, ScrapeDocument};
#[cfg(feature = "kubernetes")]
use crate::output::PodsDocument;
use crate::output::{
    AllocationDocument, CheckDocument, ConfigDocument, ErrorDocument, ExplainDocument,
    ListDocument, ModelItem, PaceDocument, ReadingItem, RemovedDocument, ReplicasDocument,
    ValidationDocument, VariantsDocument, VersionDocument,
};
use crate::server::{HealthDocument, ModelEvent, ReadinessDocument, RemovedEvent, ResetEvent};

/// Set it to write the schemas instead of comparing them.
const UPDATE: &str = "UPDATE_SCHEMAS";

fn of<T: JsonSchema>() -> Schema {
    // As written, not as read: a field that is always there is required.
    let settings = SchemaSettings::draft2020_12().for_serialize();
    settings.into_generator().into_root_schema_for::<T>()
}

#[test]
fn the_published_schemas_are_up_to_date() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let schemas = [
        ("replicas", of::<ReplicasDocument<'static>>()),
        ("allocation", of::<AllocationDocument<'static>>()),
        ("replicas-list", of::<ListDocument<ReadingItem<'static, ReplicasDocument<'static>>>>()),
        (
            "allocation-list",
            of::<ListDocument<ReadingItem<'static, AllocationDocument<'static>>>>(),
        ),
        ("event-model", of::<ModelEvent<'static>>()),
        ("event-removed", of::<RemovedEvent<'static>>()),
        ("event-reset", of::<ResetEvent>()),
        ("models", of::<ListDocument<ModelItem>>()),
        ("error", of::<ErrorDocument>()),
        ("variants", of::<VariantsDocument<'static>>()),
        #[cfg(feature = "kubernetes")]
        ("pods", of::<PodsDocument<'static>>()),
        ("pace", of::<PaceDocument>()),
        ("explain", of::<ExplainDocument<'static>>()),
        ("check", of::<CheckDocument<'static>>()),
        ("config", of::<ConfigDocument>()),
        ("validation", of::<ValidationDocument<'static>>()),
        ("version", of::<VersionDocument<'static>>()),
        ("removed", of::<RemovedDocument>()),
        ("health", of::<HealthDocument>()),
        ("readiness", of::<ReadinessDocument>()),
        #[cfg(feature = "epp")]
        ("scrape", of::<ScrapeDocument<'static>>()),
        #[cfg(feature = "epp")]
        ("samples", of::<SamplesDocument<'static>>()),
    ];
    for (name, schema) in schemas {
        let path = folder.join(format!("{name}.json"));
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if env::var_os(UPDATE).is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, text).unwrap();
            continue;
        }
        let published = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            published == text,
            "docs/schema/{name}.json is out of date: run this test with {UPDATE}=1 and look at \
             what changed; within a schema version documents only grow"
        );
    }
}
