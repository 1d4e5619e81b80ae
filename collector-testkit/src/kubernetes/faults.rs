// SPDX-License-Identifier: Apache-2.0
//! What a test breaks in the server while it runs.

use std::collections::HashMap;

use super::counters::Verb;
use super::kinds::Kind;

/// Which requests a [`Fault`] hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every request, discovery and access reviews included.
    Everything,
    /// Every request for a kind.
    Kind(Kind),
    /// One verb for a kind.
    Verb(Verb, Kind),
}

impl From<Kind> for Scope {
    fn from(kind: Kind) -> Self {
        Self::Kind(kind)
    }
}

/// How requests fail until the test clears the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// 401, whatever token the request has.
    Unauthorized,
    /// 403, although an access review says otherwise.
    Forbidden,
    /// 410, as for a resource version or a continue token that expired.
    Gone,
    /// 429 with this `Retry-After`.
    TooManyRequests {
        /// The value of the header, in seconds.
        retry_after_seconds: u32,
    },
    /// 500.
    InternalError,
    /// The request is read and never answered.
    NoAnswer,
    /// Watches send the head of their answer, then nothing: no event, no bookmark, no end. Open watches fall silent
    /// as well. Other requests are answered.
    SilentWatch,
    /// 200, and a body that is not JSON.
    Garbage,
    /// 200, and the connection breaks in the middle of the body. A watch sends half an event.
    HalfBody,
}

/// What happens to the open watches of a kind, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interruption {
    /// The server ends the stream, as it does after `timeoutSeconds`.
    End,
    /// An `ERROR` event with a `Status` of code 410, then the end.
    Gone,
    /// An `ERROR` event with a `Status` of code 500, then the end.
    InternalError,
    /// Half an event, then the connection breaks.
    HalfEvent,
    /// The connection breaks between two events.
    BrokenConnection,
    /// A line that is not JSON; the stream goes on.
    Garbage,
}

/// The faults that are set now.
#[derive(Debug, Default)]
pub(super) struct Faults(HashMap<Scope, Fault>);

impl Faults {
    pub(super) fn set(&mut self, scope: Scope, fault: Fault) {
        self.0.insert(scope, fault);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault of a request for a kind: the one with the narrowest scope.
    pub(super) fn of(&self, verb: Verb, kind: Kind) -> Option<Fault> {
        let scopes = [Scope::Verb(verb, kind), Scope::Kind(kind), Scope::Everything];
        scopes.iter().find_map(|scope| self.0.get(scope)).copied()
    }

    /// The fault of a request that belongs to no kind.
    pub(super) fn of_everything(&self) -> Option<Fault> {
        self.0.get(&Scope::Everything).copied()
    }
}
