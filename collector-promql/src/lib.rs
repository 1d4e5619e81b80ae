// SPDX-License-Identifier: Apache-2.0
//! A PromQL API in front of a PromQL server that never answers 0 for missing data.
//!
//! Autoscalers read an empty answer, and an error inside of a 200, as 0, and scale a running model down. A [`Guard`]
//! sends two queries at once: the client's, and a probe that returns which of its selectors match series, and how
//! old their newest samples are. Missing or old data is an error; data that is known to be empty is 0. While the
//! server does not respond, the last answer is returned with its age for [`Settings::max_stale`], and an error after
//! that.
//!
//! Queries over series that the program holds itself need no server: see `local`, and [`HeldSeries`].
//!
//! `limits` rejects queries that are expensive to parse, `query` determines what an answer needs, `anchor` lists the
//! series that prove that an exporter is up, `probe` writes and reads the probe, `verdict` decides, and `guard` does
//! all of it for concurrent callers.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod anchor;
mod answer;
mod guard;
mod limits;
mod local;
mod memory;
mod probe;
mod query;
mod raw;
mod refusal;
mod selector;
mod upstream;
mod verdict;

pub use anchor::{Anchors, Strength};
pub use guard::{Empty, Found, Guard, InstantQuery, Models, Partial, Reply, Settings};
pub use limits::Limits;
pub use local::{Gap, Held, HeldSample, HeldSeries, KnownEmpty, KnownLabels, Labels, Part, Wanted};
pub use query::{Described, Kind, describe};
pub use refusal::{Reason, Refusal};
pub use upstream::{Passed, Request, Unanswered, Upstream};
