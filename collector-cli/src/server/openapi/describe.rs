// SPDX-License-Identifier: Apache-2.0
//! Makes the OpenAPI document, and compares it with the one in docs.

use std::path::Path;
use std::{env, fs};

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::output::{
    AllocationDocument, ErrorDocument, ListDocument, ModelItem, PaceDocument, ReadingItem,
    RemovedDocument, ReplicasDocument,
};
use crate::server::read::ReadRequest;
use crate::server::{HealthDocument, ModelEvent, ReadinessDocument, RemovedEvent, ResetEvent};

type ReplicasItem = ReadingItem<'static, ReplicasDocument<'static>>;
type AllocationItem = ReadingItem<'static, AllocationDocument<'static>>;

/// Set it to write the document instead of comparing it.
const UPDATE: &str = "UPDATE_SCHEMAS";

/// The errors: status, name, and description.
const ERRORS: [(&str, &str, &str); 11] = [
    ("400", "BadRequest", "a parameter or the body is wrong; the message says which"),
    ("401", "Unauthorized", "`server.read_token_path` is set, and the token is missing or wrong"),
    ("403", "Forbidden", "the host is not a name of this machine, or the admin token is missing"),
    (
        "404",
        "NotFound",
        "no such model (`MetricsMissing`), with the nearest names, or no such path",
    ),
    ("405", "MethodNotAllowed", "the header `Allow` says what works"),
    ("408", "Timeout", "the body did not arrive in time"),
    ("413", "TooLarge", "the body is too large, or has too many readings"),
    ("415", "UnsupportedMediaType", "the body is not JSON"),
    (
        "429",
        "TooMany",
        "too many models are tracked, or too many requests run; later it may succeed",
    ),
    ("500", "Internal", "a defect of the collector"),
    (
        "503",
        "Unavailable",
        "the reading is too old to be used (`MetricsStale`), or there is none because the backend failed",
    ),
];

struct Schemas {
    /// Of what is written, where a field that is always there is required.
    answers: SchemaGenerator,
    /// Of what is read, where one that may be left out is not.
    requests: SchemaGenerator,
}

impl Schemas {
    fn new() -> Self {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        let answers = settings.clone().for_serialize().into_generator();
        Self { answers, requests: settings.into_generator() }
    }

    fn of<T: JsonSchema>(&mut self) -> Value {
        self.answers.subschema_for::<T>().into()
    }

    fn of_request<T: JsonSchema>(&mut self) -> Value {
        self.requests.subschema_for::<T>().into()
    }

    fn definitions(mut self) -> Map<String, Value> {
        let mut all = self.answers.take_definitions(true);
        all.append(&mut self.requests.take_definitions(true));
        all
    }
}

fn parameter(name: &str, description: &str) -> Value {
    let is_path = name == "name";
    let schema = match name {
        "limit" => json!({"type": "integer", "minimum": 1, "maximum": 10_000}),
        _ => json!({"type": "string", "minLength": 1, "maxLength": 4096}),
    };
    json!({
        "name": name, "in": if is_path { "path" } else { "query" }, "required": is_path,
        "description": description, "schema": schema,
    })
}

fn required(name: &str, description: &str) -> Value {
    let mut parameter = parameter(name, description);
    parameter["required"] = true.into();
    parameter
}

fn header(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "header", "required": false, "description": description, "schema": {"type": "string"}})
}

/// One operation: what it is called and does, its parameters, its answer, and the errors besides those of all.
fn operation(id: &str, summary: &str, parameters: &[Value], ok: Value, errors: &[&str]) -> Value {
    let mut responses = Map::new();
    responses.insert("200".to_owned(), ok);
    let of_all = ["400", "401", "403"];
    for (status, name, _) in ERRORS {
        if of_all.contains(&status) || errors.contains(&status) {
            let reference = format!("#/components/responses/{name}");
            responses.insert(status.to_owned(), json!({"$ref": reference}));
        }
    }
    if errors.contains(&"304") {
        let text = "there is no newer sample, and the status is the same: `If-None-Match` names this `ETag`";
        responses.insert("304".to_owned(), json!({"description": text}));
    }
    // The connection itself answers these, without a document.
    for status in ["414", "431"] {
        let text =
            "the request line and headers have more than 16 KiB (80 KiB with `promql.enabled`)";
        responses.insert(status.to_owned(), json!({"description": text}));
    }
    json!({"operationId": id, "summary": summary, "parameters": parameters, "responses": responses})
}

fn ok(description: &str, kind: &str, schema: &Value) -> Value {
    json!({"description": description, "content": {kind: {"schema": schema}}})
}

fn ok_json(description: &str, schema: &Value) -> Value {
    ok(description, "application/json", schema)
}

/// The parameters of lists alone.
fn of_lists() -> [Value; 3] {
    [
        parameter(
            "accelerator",
            "Lists: what is on this accelerator. What has no reading is not left out.",
        ),
        parameter(
            "limit",
            "Lists: at most so many items; `after` in the answer leads to the rest.",
        ),
        parameter("after", "Lists: what the page before gave as `after`."),
    ]
}

fn paths(schemas: &mut Schemas) -> Value {
    let text = || json!({"type": "string"});
    let model = || parameter("model", "The id of a model, with `namespace`. Without it: a list.");
    let namespace =
        || parameter("namespace", "The namespace of the model, or that of the models of the list.");
    let fields = || {
        parameter(
            "fields",
            "The fields that are wanted, separated by commas, those within one with a dot: `sampledAt,replicas.queueLength`.",
        )
    };
    let if_none_match =
        || header("If-None-Match", "The `ETag` of an answer: 304 if nothing is newer.");
    let both =
        || [required("model", "The id of the model."), required("namespace", "Its namespace.")];
    let one_or_list = |one: Value, list: Value| {
        let mut answer =
            ok_json("fresh or stale: `status` says which", &json!({"anyOf": [one, list]}));
        let tag = json!({"description": "changes with each newer sample and with the status", "schema": text()});
        answer["headers"] = json!({"ETag": tag});
        answer
    };
    let reading_errors = ["304", "404", "429", "503"];
    let replicas_list = schemas.of::<ListDocument<ReplicasItem>>();
    let allocation_list = schemas.of::<ListDocument<AllocationItem>>();
    let of_replicas = one_or_list(schemas.of::<ReplicasDocument<'_>>(), replicas_list);
    let of_allocation = one_or_list(schemas.of::<AllocationDocument<'_>>(), allocation_list);
    let of_read = schemas.of::<ListDocument<ReadItem>>();
    let variant = parameter(
        "variant",
        "One variant of the model; without it, the list of all of them. Lists: the variants of this name.",
    );
    let has_variant = parameter(
        "variant",
        "Lists: the models that have a variant of this name. What has no reading is not left out.",
    );
    let replicas = [
        vec![model(), namespace(), has_variant],
        of_lists().to_vec(),
        vec![fields(), if_none_match()],
    ]
    .concat();
    let allocation =
        [vec![model(), namespace(), variant], of_lists().to_vec(), vec![fields(), if_none_match()]];
    let events = [
        parameter(
            "from",
            "The id of the last event that is known: what has changed since follows.",
        ),
        header("Last-Event-ID", "The same; it comes before `from`."),
    ];
    let mut read = operation(
        "readMany",
        "Many readings in one request, each with its own status or error, in the order of the request",
        &[],
        ok_json("in the order of the request", &of_read),
        &["408", "413", "415", "429", "503"],
    );
    read["requestBody"] = json!({
        "required": true, "content": {"application/json": {"schema": schemas.of_request::<ReadRequest>()}},
    });
    let metrics = ok("Prometheus' text format", "text/plain", &text());
    let stream = ok(
        "events `reset` (ResetEvent), `model` (ModelEvent) and `removed` (RemovedEvent); the comment `:` comes every 15 s",
        "text/event-stream",
        &text(),
    );
    let any = || json!({"type": "object"});
    let ready = schemas.of::<ReadinessDocument>();
    let mut readiness = operation(
        "ready",
        "Whether it is ready, and how its backends are",
        &[],
        ok_json("ready", &ready),
        &[],
    );
    readiness["responses"]["503"] = ok_json("not ready", &ready);
    let name = parameter("name", "The name of a schema in this document.");
    json!({
        "/healthz": {"get": operation("alive", "Whether it is alive", &[], ok_json("alive", &schemas.of::<HealthDocument>()), &[])},
        "/readyz": {"get": readiness},
        "/metrics": {"get": operation("metrics", "Its own metrics, and all readings", &[], metrics, &[])},
        "/api/openapi.json": {"get": operation("openapi", "This document", &[], ok_json("OpenAPI 3.1", &any()), &[])},
        "/api/schemas/{name}": {"get": operation("schema", "A JSON schema", &[name], ok_json("a schema of draft 2020-12", &any()), &["404", "500"])},
        "/api/v1/allocation": {"get": operation("allocation", "The allocation of a variant, or of many", &allocation.concat(), of_allocation, &reading_errors)},
        "/api/v1/cache": {"delete": operation("dropEntries", "Drops the entries of a model, for loopback or with the admin token", &both(), ok_json("how many there were", &schemas.of::<RemovedDocument>()), &[])},
        "/api/v1/events": {"get": operation("events", "All readings, and each change of them, as server-sent events", &events, stream, &["429"])},
        "/api/v1/models": {"get": operation("models", "The models that the backends know, tracked or not", &[], ok_json("in order", &schemas.of::<ListDocument<ModelItem>>()), &["404", "429", "503"])},
        "/api/v1/pace": {"get": operation("pace", "How often a model is refreshed, and why", &both(), ok_json("its ttl", &schemas.of::<PaceDocument>()), &[])},
        "/api/v1/read": {"post": read},
        "/api/v1/replicas": {"get": operation("replicas", "The replicas of a model, or of many", &replicas, of_replicas, &reading_errors)},
    })
}

/// An answer of `read`.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum ReadItem {
    Replicas(ReplicasItem),
    Allocation(AllocationItem),
}

/// Shorter names, for those who generate code. Generated Go has a `Configuration` of its own.
const NAMES: [(&str, &str); 4] = [
    ("ConfigurationDocument", "RunningConfiguration"),
    ("DocumentItemList", "List"),
    ("ItemList", "List"),
    ("Document", ""),
];

/// Formats that generators do not know, which would take numbers of 32 bits for them.
const UNKNOWN_FORMATS: [&str; 3] = ["uint", "uint32", "uint64"];

fn document() -> String {
    let mut schemas = Schemas::new();
    let paths = paths(&mut schemas);
    let error = schemas.of::<ErrorDocument>();
    schemas.of::<ModelEvent<'_>>();
    schemas.of::<RemovedEvent<'_>>();
    schemas.of::<ResetEvent>();
    let responses: Map<String, Value> = ERRORS
        .iter()
        .map(|(status, name, description)| {
            let mut response = ok_json(description, &error);
            if ["429", "503"].contains(status) {
                let after =
                    json!({"description": "seconds", "schema": {"type": "integer", "minimum": 1}});
                response["headers"] = json!({"Retry-After": after});
            }
            ((*name).to_owned(), response)
        })
        .collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Inference collector",
            "version": "1",
            "description": "Readings of LLM-inference fleets, each with its age and freshness. Within version 1 documents only \
                            grow: ignore fields that you do not know. An unmeasured value is null, never 0, with its reason in \
                            `reasons` or `failed`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:9464"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions(),
            "responses": responses,
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer",
                "description": "the token of `server.read_token_path`, or that of `server.admin_token_path` to change something",
            }},
        },
    });
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    let text = NAMES.iter().fold(text, |text, (long, short)| text.replace(long, short));
    let format = |name: &str| format!("\"format\": \"{name}\"");
    UNKNOWN_FORMATS.iter().fold(text, |text, name| text.replace(&format(name), &format("int64")))
}

#[test]
fn the_published_openapi_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let text = document();
    if env::var_os(UPDATE).is_some() {
        return fs::write(&path, text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == text,
        "docs/openapi.json is out of date: run this test with {UPDATE}=1 and look at what changed; within a schema \
         version documents only grow"
    );
}

#[test]
fn every_path_is_described() {
    let document: Value = serde_json::from_str(&document()).unwrap();
    let described: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    let mut served = crate::server::routes::routes().map(|(path, _)| path);
    served.sort_unstable();
    assert_eq!(described, served);
}
