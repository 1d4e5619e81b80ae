// SPDX-License-Identifier: Apache-2.0
//! What a cluster lists, as a signal and as a reason.

use collector_core::Supplied;

use super::{Measured, Unknown, View};

impl<'a> View<'a> {
    pub(super) fn why_no_pod_is_seen(self) -> Unknown {
        let supplied = self.replicas.supplied(self.variant);
        let counts = supplied.map(Supplied::counts).filter(|counts| counts.all() > 0);
        counts.map_or(Unknown::NoPodSeen, Unknown::PodsListed)
    }

    /// A count of what the cluster lists, as old as the list.
    pub(super) fn supply(
        self,
        count: impl Fn(Supplied<'a>) -> Option<u32>,
    ) -> Result<Measured, Unknown> {
        let Some(supplied) = self.replicas.supplied(self.variant) else {
            let asked = self.replicas.supply.is_some();
            return Err(if asked { Unknown::NoWorkload } else { Unknown::NoSupply });
        };
        let value = f64::from(count(supplied).ok_or(Unknown::NotWanted)?);
        let pods = usize::try_from(supplied.counts().all()).unwrap_or(usize::MAX);
        Ok(Measured { value, sampled_at: supplied.as_of(), pods })
    }
}
