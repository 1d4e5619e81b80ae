// SPDX-License-Identifier: Apache-2.0
//! When a certificate expires, for metrics about it.

use std::time::Duration;

use rustls::pki_types::UnixTime;
use webpki::{EndEntityCert, Error, KeyUsage};

use crate::files::NamedFile;
use crate::tls::certificates;

/// The first second of the year 10 000: no certificate can be valid then.
const NEVER_VALID: Duration = Duration::from_secs(253_402_300_800);

/// Returns when the first certificate of a chain in a PEM file expires, in Unix seconds; `None` if the file cannot be
/// read or has a certificate that cannot be used. It reads the file, so it blocks.
pub fn certificate_expiry(file: &NamedFile) -> Option<u64> {
    let chain = certificates(file).ok()?;
    let expiries = chain.iter().map(|certificate| {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let time = UnixTime::since_unix_epoch(NEVER_VALID);
        let usage = KeyUsage::server_auth();
        // The period of validity is checked first, and the error has its end.
        match certificate.verify_for_usage(&[], &[], &[], time, usage, None, None) {
            Err(Error::CertExpired { not_after, .. }) => Some(not_after.as_secs()),
            _ => None,
        }
    });
    expiries.collect::<Option<Vec<_>>>()?.into_iter().min()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    use super::*;
    use crate::error::Section;

    fn pem(year: i32, is_ca: IsCa) -> String {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        params.is_ca = is_ca;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn the_expiry_of_a_chain_is_that_of_its_first_certificate_to_expire() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chain.pem");
        let of = |text: &str| {
            fs::write(&path, text).unwrap();
            let section = Section { name: "server", variables: None };
            certificate_expiry(&NamedFile::new(section, "tls_cert_path", &path))
        };
        let (of_2030, of_2040) = (1_893_456_000, 2_208_988_800);
        let authority = || IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(of(&pem(2040, IsCa::NoCa)), Some(of_2040));
        assert_eq!(of(&(pem(2040, IsCa::NoCa) + &pem(2030, authority()))), Some(of_2030));
        // One that has expired, and one of an authority.
        assert_eq!(of(&pem(2001, IsCa::NoCa)), Some(978_307_200));
        assert_eq!(of(&pem(2040, authority())), Some(of_2040));
        assert_eq!(of("no certificate"), None);
        fs::remove_file(&path).unwrap();
    }
}
