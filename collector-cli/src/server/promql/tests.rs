// SPDX-License-Identifier: Apache-2.0
//! Paths and times as clients write them.

use super::*;

#[test]
fn a_path_is_guarded_passed_on_or_not_found() {
    let passed = |path: &str| Some(Route::Passed(path.to_owned()));
    for (path, expected) in [
        ("/api/v1/query", Some(Route::Guarded)),
        ("//api/v1/query", Some(Route::Guarded)),
        ("/api/v1/query/", Some(Route::Guarded)),
        ("/prometheus/api/v1/query", Some(Route::Guarded)),
        ("/raw/api/v1/query", passed("api/v1/query")),
        ("/prometheus/raw/api/v1/query", passed("api/v1/query")),
        ("/raw//api/v1/query_range", passed("api/v1/query_range")),
        ("/api/v1/series", passed("api/v1/series")),
        ("/prometheus/api/v1/status/buildinfo", passed("api/v1/status/buildinfo")),
        ("/api/v1/label/model_name/values", passed("api/v1/label/model_name/values")),
        ("/api/v1/label//values", None),
        ("/api/v1/label/../values", None),
        ("/raw/api/v1/label/a/../../admin/values", Some(Route::NotFound)),
        ("/raw/api/v1/admin/tsdb/delete_series", Some(Route::NotFound)),
        ("/raw/api/v1/status/config", Some(Route::NotFound)),
        ("/raw/-/reload", Some(Route::NotFound)),
        ("/api/v1/write", None),
        ("/api/v1/replicas", None),
        ("/metrics", None),
        ("/rawest", None),
    ] {
        assert_eq!(route(path), expected, "{path}");
    }
}

#[test]
fn a_time_is_unix_seconds_or_rfc_3339() {
    assert_eq!(seconds("1795948417.25"), Some(1_795_948_417.25));
    assert_eq!(seconds("1970-01-01T00:01:00Z"), Some(60.0));
    assert_eq!(seconds("1970-01-01T01:00:30+01:00"), Some(30.0));
    for text in ["", "soon", "NaN", "inf"] {
        assert_eq!(seconds(text), None, "{text}");
    }
}
