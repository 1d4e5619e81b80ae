//! A PromQL API in front of a PromQL server, which never says 0 where nothing is known.
//!
//! Autoscalers take an empty answer for 0, an error inside of a 200 for 0, and scale a running model down. A
//! [`Door`] asks two things at once: the query itself, and whether each of its selectors matches anything and how
//! old that is. What is missing or too old is an error; what is known to be empty is 0. While the server does not
//! answer, the last good answer is given for [`Settings::max_stale`], with its age, and then an error, at once.
//!
//! `limits` refuses what would cost too much to parse, `query` finds what an answer needs, `anchor` knows which
//! series prove that silence is idleness, `probe` asks, `verdict` judges, and `door` does all of it for many
//! callers at once.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod anchor;
mod answer;
mod door;
mod limits;
mod memory;
mod probe;
mod query;
mod refusal;
mod selector;
mod upstream;
mod verdict;

pub use anchor::{Anchor, Anchors, Strength};
pub use door::{Door, Empty, Found, InstantQuery, Models, Reply, Settings};
pub use limits::Limits;
pub use query::{Described, Kind, describe};
pub use refusal::{Reason, Refusal};
pub use upstream::{Passed, Request, Unanswered, Upstream};
