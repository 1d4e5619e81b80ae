// SPDX-License-Identifier: Apache-2.0
//! Authorities, and the certificates that they sign.

#[cfg(feature = "epp")]
use collector_testkit::certificates::rcgen::{CertificateParams, DnType};
pub(crate) use collector_testkit::certificates::{Authority, Pair};

/// A certificate that has a name only where nobody looks any more.
#[cfg(feature = "epp")]
pub(crate) fn of_common_name(name: &str) -> Pair {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    Pair::self_signed_params(&params)
}
