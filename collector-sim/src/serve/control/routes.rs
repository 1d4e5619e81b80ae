// SPDX-License-Identifier: Apache-2.0
//! The routes of the control endpoint.

use hyper::Method;
use percent_encoding::percent_decode_str;

/// All paths, for a request of `/`.
pub(super) const PATHS: [&str; 9] = [
    "GET /state",
    "GET /targets",
    "POST /variants/{namespace}/{variant}/load",
    "POST /variants/{namespace}/{variant}/pods",
    "POST /pods/{namespace}/{pod} {\"action\": \"kill\" or \"restart\"}",
    "DELETE /pods/{namespace}/{pod}",
    "PUT, DELETE /pods/{namespace}/{pod}/faults",
    "PUT, DELETE /faults",
    "GET /",
];

/// A parsed request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Index,
    State,
    Targets,
    SetLoad(Name),
    AddPod(Name),
    Order(Name),
    DeletePod(Name),
    SetFaults(Name),
    ClearFaults(Name),
    SetAllFaults,
    ClearAllFaults,
}

/// A variant or pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Why a request has no route.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRoute {
    Path,
    /// The methods of the path.
    Method(&'static str),
}

impl Route {
    pub(super) fn of(method: &Method, path: &str) -> Result<Self, NoRoute> {
        let segments = path.trim_start_matches('/').split('/');
        let segments: Option<Vec<String>> = segments
            .map(|segment| Some(percent_decode_str(segment).decode_utf8().ok()?.into_owned()))
            .collect();
        let segments = segments.ok_or(NoRoute::Path)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let name = |namespace: &str, name: &str| Name {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        match (segments.as_slice(), method) {
            ([""], &Method::GET) => Ok(Self::Index),
            (["state"], &Method::GET) => Ok(Self::State),
            (["targets"], &Method::GET) => Ok(Self::Targets),
            (["" | "state" | "targets"], _) => Err(NoRoute::Method("GET")),
            (["variants", ns, of, "load"], &Method::POST) => Ok(Self::SetLoad(name(ns, of))),
            (["variants", ns, of, "pods"], &Method::POST) => Ok(Self::AddPod(name(ns, of))),
            (["variants", _, _, "load" | "pods"], _) => Err(NoRoute::Method("POST")),
            (["pods", ns, pod], &Method::POST) => Ok(Self::Order(name(ns, pod))),
            (["pods", ns, pod], &Method::DELETE) => Ok(Self::DeletePod(name(ns, pod))),
            (["pods", _, _], _) => Err(NoRoute::Method("POST, DELETE")),
            (["pods", ns, pod, "faults"], &Method::PUT) => Ok(Self::SetFaults(name(ns, pod))),
            (["pods", ns, pod, "faults"], &Method::DELETE) => Ok(Self::ClearFaults(name(ns, pod))),
            (["faults"], &Method::PUT) => Ok(Self::SetAllFaults),
            (["faults"], &Method::DELETE) => Ok(Self::ClearAllFaults),
            (["pods", _, _, "faults"] | ["faults"], _) => Err(NoRoute::Method("PUT, DELETE")),
            _ => Err(NoRoute::Path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(method: &Method, path: &str, expected: &Result<Route, NoRoute>) {
        assert_eq!(&Route::of(method, path), expected, "{method} {path}");
    }

    #[test]
    fn wrong_methods_are_refused_with_the_allowed_ones() {
        let name =
            |namespace: &str, name: &str| Name { namespace: namespace.into(), name: name.into() };
        check(&Method::GET, "/", &Ok(Route::Index));
        check(&Method::GET, "/state", &Ok(Route::State));
        check(&Method::POST, "/state", &Err(NoRoute::Method("GET")));
        check(&Method::POST, "/variants/ns/a%2Fb/load", &Ok(Route::SetLoad(name("ns", "a/b"))));
        check(&Method::DELETE, "/pods/ns/v-0", &Ok(Route::DeletePod(name("ns", "v-0"))));
        check(&Method::GET, "/pods/ns/v-0", &Err(NoRoute::Method("POST, DELETE")));
        check(&Method::PUT, "/pods/ns/v-0/faults", &Ok(Route::SetFaults(name("ns", "v-0"))));
        check(&Method::PUT, "/faults", &Ok(Route::SetAllFaults));
        for path in ["/nothing", "/pods/ns", "/pods/ns/v-0/", "/pods/ns/%ff", "/pods/ns/v-0/x"] {
            check(&Method::PUT, path, &Err(NoRoute::Path));
        }
    }
}
