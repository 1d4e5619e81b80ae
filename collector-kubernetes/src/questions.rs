// SPDX-License-Identifier: Apache-2.0
//! Questions to the API server beside the objects that are watched: what it is, what it serves, what we may do, and the
//! autoscalers as they are written. Each takes at most 5 s.

use std::time::SystemTime;

use bytes::Bytes;
use collector_core::{BackendError, ErrorKind, Namespace, Operation};
use http::Request;
use http::header::DATE;
use http::response::Parts;
use jiff::fmt::rfc2822;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::backend::error_of;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::kind::Kind;
use crate::objects::system_time;
use crate::pages::PageSource;
use crate::requests;
use crate::watches::Unheard;

/// Objects of a page of autoscalers, whose specifications are kept.
const PAGE: usize = 100;

/// What the API server says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ApiServer {
    /// Its version, as `v1.33.0`.
    pub version: String,
    /// Scheme, host and port, without credentials; `None` where only the given client knows it.
    pub address: Option<String>,
    /// Its clock when it answered, in whole seconds.
    pub time: Option<SystemTime>,
}

/// A kind of objects that is read where the API server has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ApiKind(Kind);

impl ApiKind {
    /// Every kind that is read.
    pub fn all() -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().map(Self)
    }

    /// The name in `kind`.
    pub fn kind(self) -> &'static str {
        self.0.as_str()
    }

    /// The name in paths and in roles.
    pub fn plural(self) -> &'static str {
        self.0.plural()
    }

    /// Whether every cluster has it.
    pub fn is_built_in(self) -> bool {
        self.0.is_built_in()
    }

    /// The groups of its API, the preferred one first; the core group is empty.
    pub fn groups(self) -> Vec<&'static str> {
        let mut groups: Vec<_> = self.0.paths().iter().map(|path| group_of(path)).collect();
        groups.dedup();
        groups
    }

    /// Whether it is listed and watched where these are the pages that are asked for.
    pub fn is_watched_for(self, pages: Option<&PageSource>) -> bool {
        self.0.is_watched_for(pages)
    }
}

/// The group in the path of a group and version; empty for the core group.
pub fn group_of(path: &str) -> &str {
    let path = path.strip_prefix("/apis/").unwrap_or_default();
    path.split('/').next().unwrap_or_default()
}

/// Something that the collector may be permitted to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Permission {
    /// As `list`.
    pub verb: &'static str,
    /// The group of the API; empty for the core group.
    pub group: &'static str,
    /// As `pods`.
    pub resource: &'static str,
    /// The namespace; `None`: all, or the kind has none.
    pub namespace: Option<Namespace>,
    /// The only object; `None`: all.
    pub name: Option<&'static str>,
}

/// Autoscalers as they are written, for the rules that check files of them.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Autoscalers {
    /// The objects, with `apiVersion` and `kind`.
    pub objects: Vec<Value>,
    /// Whether there are more than were asked for.
    pub has_more: bool,
}

impl Cluster {
    /// Asks the API server for its version and its time.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses.
    pub async fn api_server(&self) -> Result<ApiServer, BackendError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        let (head, text) = self.get("/version").await?;
        let version: Version = read(&text, "its version")?;
        let date = head.headers.get(DATE).and_then(|date| date.to_str().ok());
        let time = date.and_then(|date| rfc2822::parse(date).ok());
        Ok(ApiServer {
            version: version.git_version,
            address: self.shared.connection.address().await,
            time: time.and_then(|time| system_time(time.timestamp())),
        })
    }

    /// The path of the group and version in which the API server has a kind; `None` if it has none that is understood.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn served(&self, kind: ApiKind) -> Result<Option<&'static str>, BackendError> {
        #[derive(Deserialize)]
        struct Resources {
            resources: Vec<Resource>,
        }
        #[derive(Deserialize)]
        struct Resource {
            name: String,
        }
        for path in kind.0.paths() {
            let text = match self.get(path).await {
                Ok((_, text)) => text,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let found: Resources = read(&text, "a group of its API")?;
            if found.resources.iter().any(|resource| resource.name == kind.plural()) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Whether a kind is listed and watched.
    pub fn watches(&self, kind: ApiKind) -> bool {
        kind.is_watched_for(self.shared.pages.as_ref())
    }

    /// The namespaces that are watched; empty: all.
    pub fn namespaces(&self) -> &[Namespace] {
        &self.shared.namespaces
    }

    /// Asks the API server whether we are permitted something (`SelfSubjectAccessReview`).
    ///
    /// # Errors
    /// When it does not say.
    pub async fn may(&self, permission: &Permission) -> Result<bool, BackendError> {
        #[derive(Deserialize)]
        struct Review {
            status: Status,
        }
        #[derive(Deserialize)]
        struct Status {
            allowed: bool,
        }
        let Permission { verb, group, resource, namespace, name } = permission;
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "verb": verb,
                "group": group,
                "resource": resource,
                "namespace": namespace.as_ref().map_or("", Namespace::as_str),
                "name": name.unwrap_or_default(),
            }}
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let text = self.post(path, &review).await.map_err(failed)?;
        Ok(read::<Review>(&text, "its access review")?.status.allowed)
    }

    /// Reads HorizontalPodAutoscalers (`false`) or ScaledObjects (`true`) of the watched namespaces, at most so many.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn autoscalers(
        &self,
        scaled_objects: bool,
        at_most: usize,
    ) -> Result<Autoscalers, BackendError> {
        let (kind, api_version) = if scaled_objects {
            (Kind::ScaledObject, "keda.sh/v1alpha1")
        } else {
            (Kind::HorizontalPodAutoscaler, "autoscaling/v2")
        };
        let mut found = Autoscalers { objects: Vec::new(), has_more: false };
        let base = kind.paths().first().copied().unwrap_or_default();
        let paths: Vec<String> = match self.namespaces() {
            [] => vec![format!("{base}/{}", kind.plural())],
            names => names
                .iter()
                .map(|name| format!("{base}/namespaces/{name}/{}", kind.plural()))
                .collect(),
        };
        for path in paths {
            let mut next = String::new();
            loop {
                let left = at_most - found.objects.len();
                if left == 0 {
                    found.has_more = true;
                    return Ok(found);
                }
                let limit = left.min(PAGE);
                let page = match self.get(&format!("{path}?limit={limit}&continue={next}")).await {
                    Ok((_, text)) => read::<Page>(&text, "a list of autoscalers")?,
                    Err(error) if error.kind() == ErrorKind::NotFound => break,
                    Err(error) => return Err(error),
                };
                for mut object in page.items.into_iter().take(left) {
                    // Items of lists of built-in kinds have neither.
                    object.insert("apiVersion".to_owned(), api_version.into());
                    object.insert("kind".to_owned(), kind.as_str().into());
                    found.objects.push(Value::Object(object));
                }
                next = page.metadata.next;
                if next.is_empty() {
                    break;
                }
                if !is_token(&next) {
                    return Err(failed(Failure::new(
                        ErrorKind::BadAnswer,
                        "its continue token is not a token",
                    )));
                }
            }
        }
        Ok(found)
    }

    async fn get(&self, path: &str) -> Result<(Parts, Bytes), BackendError> {
        self.ask_for(path).await.map_err(failed)
    }

    /// Asks the API server for the object at a path.
    pub(crate) async fn ask_for(&self, path: &str) -> Result<(Parts, Bytes), Failure> {
        self.ask(Request::get(path).body(Vec::new())).await
    }

    /// Asks the API server to make an object, which it answers with one.
    pub(crate) async fn post(&self, path: &str, object: &impl Serialize) -> Result<Bytes, Failure> {
        let text = serde_json::to_vec(object)
            .map_err(|error| Failure::new(ErrorKind::Configuration, error.to_string()))?;
        let request = Request::post(path).header("Content-Type", "application/json");
        Ok(self.ask(request.body(text)).await?.1)
    }

    async fn ask(
        &self,
        request: Result<Request<Vec<u8>>, http::Error>,
    ) -> Result<(Parts, Bytes), Failure> {
        let request =
            request.map_err(|error| Failure::new(ErrorKind::Configuration, error.to_string()))?;
        let connection = &self.shared.connection;
        let answer = requests::ask(&connection.client().await?, request).await;
        if let Err(failure) = &answer {
            // The next question has the new ones.
            connection.renew_after(failure).await?;
        }
        answer
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    #[serde(default)]
    items: Vec<Map<String, Value>>,
}

#[derive(Deserialize, Default)]
struct PageMetadata {
    #[serde(rename = "continue", default)]
    next: String,
}

/// Whether this can be a part of a path as it is.
fn is_token(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~=%".contains(&byte))
}

fn read<'a, T: Deserialize<'a>>(text: &'a [u8], what: &str) -> Result<T, BackendError> {
    serde_json::from_slice(text).map_err(|error| {
        failed(Failure::new(ErrorKind::BadAnswer, format!("{what} cannot be read: {error}")))
    })
}

fn failed(failure: Failure) -> BackendError {
    error_of(Unheard { kind: failure.kind, why: failure.why }, Operation::Probe)
}
