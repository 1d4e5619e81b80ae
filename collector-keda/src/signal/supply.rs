// SPDX-License-Identifier: Apache-2.0
//! What a cluster lists, as a signal and as a reason.

use collector_core::{Supplied, Tick};

use super::{Measured, Unknown, View};

impl<'a> View<'a> {
    pub(super) fn why_no_pod_is_seen(self) -> Unknown {
        let supplied = self.replicas.supplied(self.variant);
        let counts = supplied.map(Supplied::counts).filter(|counts| counts.all() > 0);
        counts.map_or(Unknown::NoPodSeen, Unknown::PodsListed)
    }

    /// When the cluster last confirmed that the variant has no pod and wants none; `None` if that is not known.
    pub(super) fn known_empty(self) -> Option<Tick> {
        self.replicas.known_empty(self.variant?)
    }

    /// The value of a signal of supply: a count of what the cluster lists, as old as the list.
    pub(super) fn supply(
        self,
        count: impl Fn(Supplied<'a>) -> Result<u32, Unknown>,
    ) -> Result<Measured, Unknown> {
        let Some(supplied) = self.replicas.supplied(self.variant) else {
            let asked = self.replicas.supply.is_some();
            return Err(if asked { Unknown::NoWorkload } else { Unknown::NoSupply });
        };
        let value = f64::from(count(supplied)?);
        let pods = usize::try_from(supplied.counts().all()).unwrap_or(usize::MAX);
        Ok(Measured { value, sampled_at: supplied.as_of(), pods })
    }
}

/// The replicas that are wanted.
pub(super) fn wanted(supplied: Supplied<'_>) -> Result<u32, Unknown> {
    supplied.wanted().ok_or(Unknown::NotWanted)
}

/// A number of pods, unless it is a 0 that more pods may hide behind.
pub(super) fn known(supplied: Supplied<'_>, count: u32) -> Result<u32, Unknown> {
    supplied.known(count).ok_or(Unknown::PodsUnlisted)
}

/// The replicas that are wanted and not Ready.
pub(super) fn shortfall(supplied: Supplied<'_>) -> Result<u32, Unknown> {
    match wanted(supplied)? {
        0 => Ok(0),
        wanted => Ok(wanted.saturating_sub(known(supplied, supplied.counts().ready)?)),
    }
}
