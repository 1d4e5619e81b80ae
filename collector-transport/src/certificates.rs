// SPDX-License-Identifier: Apache-2.0
//! Self-signed server certificates, and descriptions of problems with a certificate.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerified;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, OtherError};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// The server's certificate is signed by its own key, and is not one of the trusted ones.
#[derive(Debug)]
pub(crate) struct SelfSigned;

impl fmt::Display for SelfSigned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate is self-signed")
    }
}

impl std::error::Error for SelfSigned {}

/// Accepts a certificate that is itself one of the trusted ones, for the names that it holds.
///
/// `error` is what the usual verification found. It refuses the certificate of an authority as a
/// server's, which is what `openssl req -x509` makes; every other error stands. The period of validity
/// is checked before that, so that an expired certificate never gets here as an authority's.
pub(crate) fn accept_listed(
    error: Error,
    end_entity: &CertificateDer<'_>,
    name: &ServerName<'_>,
) -> Result<ServerCertVerified, Error> {
    if !is_authority(&error) {
        return Err(error);
    }
    verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
    Ok(ServerCertVerified::assertion())
}

/// Returns the same error, or that the certificate is self-signed if it was refused for that.
pub(crate) fn explain_refusal(
    error: Error,
    end_entity: &CertificateDer<'_>,
    now: UnixTime,
    provider: &CryptoProvider,
) -> Error {
    let unknown = matches!(
        error,
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)
    );
    if (unknown || is_authority(&error)) && is_self_signed(end_entity, now, provider) {
        return CertificateError::Other(OtherError(Arc::new(SelfSigned))).into();
    }
    error
}

/// Whether a certificate was refused because it is that of an authority.
fn is_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(inner)) = error else { return false };
    matches!(inner.0.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

fn is_self_signed(
    end_entity: &CertificateDer<'_>,
    now: UnixTime,
    provider: &CryptoProvider,
) -> bool {
    let (Ok(certificate), Ok(anchor)) =
        (EndEntityCert::try_from(end_entity), anchor_from_trusted_cert(end_entity))
    else {
        return false;
    };
    if certificate.issuer() != certificate.subject() {
        return false;
    }
    // Its own key verifies its signature; that of an authority is not even tried as a server's.
    let algorithms = provider.signature_verification_algorithms.all;
    let usage = KeyUsage::server_auth();
    let anchors = [anchor];
    let verified = certificate.verify_for_usage(algorithms, &anchors, &[], now, usage, None, None);
    matches!(verified, Ok(_) | Err(webpki::Error::CaUsedAsEndEntity))
}

/// Describes why a certificate of a file cannot be used, to follow "a certificate that".
pub(crate) fn unusable(error: &Error) -> &'static str {
    match error {
        Error::InvalidCertificate(error) => in_words(error),
        _ => "cannot be used",
    }
}

/// Describes the problem with a certificate, to follow "the server's certificate".
pub(crate) fn in_words(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::BadEncoding => "is not well-formed",
        CertificateError::Revoked => "has been revoked",
        CertificateError::UnhandledCriticalExtension => {
            "has an extension, marked as critical, that is not known here"
        }
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => {
            "may have been revoked: there is no current list that says so"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not meant for a server (extended key usage)"
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed in a way that is not accepted"
        }
        CertificateError::Other(inner) => match inner.0.downcast_ref() {
            Some(webpki::Error::CaUsedAsEndEntity) => {
                "is that of an authority, which a server must not use as its own"
            }
            Some(webpki::Error::UnsupportedCertVersion) => "is of an old version: only 3 counts",
            Some(webpki::Error::NameConstraintViolation) => {
                "holds a name that its authority may not sign for"
            }
            _ => "cannot be verified",
        },
        _ => "cannot be verified",
    }
}
