// SPDX-License-Identifier: Apache-2.0
//! The front proxy: the API server, which authenticates users and passes on who they are in headers. It shows a
//! certificate; the headers of anybody else mean nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use collector_core::duration;
use collector_core::text::quote;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, anchor_from_trusted_cert};

/// Groups, and values of other attributes, that a user may have.
const VALUES_MAX: usize = 1000;

/// Who the front proxy is and which headers it sends: the ConfigMap `kube-system/extension-apiserver-authentication`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FrontProxyConfig {
    /// Certificates (PEM) of the authorities that sign its certificate.
    pub authorities: Vec<u8>,
    /// The common names that its certificate may have; empty: any.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name, of which the first that is there counts.
    pub username_headers: Vec<String>,
    /// Headers with the user's UID, likewise.
    pub uid_headers: Vec<String>,
    /// Headers with the user's groups.
    pub group_headers: Vec<String>,
    /// What the names of headers with the user's other attributes begin with.
    pub extra_header_prefixes: Vec<String>,
}

impl FrontProxyConfig {
    /// The usual headers, and any name.
    pub fn new(authorities: Vec<u8>) -> Self {
        let one = |header: &str| vec![header.to_owned()];
        Self {
            authorities,
            allowed_names: Vec::new(),
            username_headers: one("x-remote-user"),
            uid_headers: one("x-remote-uid"),
            group_headers: one("x-remote-group"),
            extra_header_prefixes: one("x-remote-extra-"),
        }
    }
}

/// A user as the front proxy describes it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// The UID; empty if there is none.
    pub uid: String,
    /// The groups.
    pub groups: Vec<String>,
    /// Other attributes.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Why a client is not the front proxy, or names no user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stranger {
    NoCertificate,
    Expired(Duration),
    NotYetValid,
    UnknownAuthority,
    OtherName(String),
    Unusable(String),
    NoUser,
    TooManyGroups,
}

impl Stranger {
    /// The name in metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Expired(_) => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownAuthority => "unknown_authority",
            Self::OtherName(_) => "other_name",
            Self::Unusable(_) => "unusable",
            Self::NoUser | Self::TooManyGroups => "no_user",
        }
    }

    /// Whether other authorities or names may let the client in.
    pub(crate) fn may_be_outdated(&self) -> bool {
        matches!(self, Self::UnknownAuthority | Self::OtherName(_))
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::NoCertificate => {
                "the client shows no certificate: only the API server is served, so use kubectl get --raw".to_owned()
            }
            Self::Expired(since) => format!(
                "the front proxy's certificate expired {} ago: renew the API server's --proxy-client-cert-file",
                duration::format_seconds(*since)
            ),
            Self::NotYetValid => {
                "the front proxy's certificate is not valid yet: compare the clocks".to_owned()
            }
            Self::UnknownAuthority => {
                "the client's certificate is not signed by the front proxy's authority".to_owned()
            }
            Self::OtherName(name) => format!(
                "the client's certificate has the common name \"{}\", which is not one of the front proxy's",
                quote(name)
            ),
            Self::Unusable(error) => format!("the client's certificate cannot be used: {error}"),
            Self::NoUser => "the front proxy names no user".to_owned(),
            Self::TooManyGroups => {
                format!("the user has more than {VALUES_MAX} groups or attributes")
            }
        }
    }
}

/// The front proxy, ready to recognise it.
#[derive(Debug)]
pub(crate) struct FrontProxy {
    config: FrontProxyConfig,
    authorities: Vec<TrustAnchor<'static>>,
}

impl FrontProxy {
    /// # Errors
    /// There is no usable certificate of an authority, or no header with the user's name.
    pub(crate) fn new(config: FrontProxyConfig) -> Result<Self, String> {
        let mut authorities = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&config.authorities) {
            let unusable = |error: &dyn std::fmt::Display| {
                format!("a certificate of the front proxy's authorities cannot be used: {error}")
            };
            let certificate = certificate.map_err(|error| unusable(&error))?;
            let anchor =
                anchor_from_trusted_cert(&certificate).map_err(|error| unusable(&error))?;
            authorities.push(anchor.to_owned());
        }
        if authorities.is_empty() {
            return Err("there is no certificate (PEM) of the front proxy's authority".to_owned());
        }
        if config.username_headers.is_empty() {
            return Err("no header has the name of the user".to_owned());
        }
        Ok(Self { config, authorities })
    }

    pub(crate) fn config(&self) -> &FrontProxyConfig {
        &self.config
    }

    /// Checks that a client is the front proxy, by the certificates that it has shown, its own first.
    pub(crate) fn recognise(
        &self,
        certificates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Stranger> {
        let Some((own, intermediates)) = certificates.split_first() else {
            return Err(Stranger::NoCertificate);
        };
        let unusable = |error: &Error| Stranger::Unusable(error.to_string());
        let own = EndEntityCert::try_from(own).map_err(|error| unusable(&error))?;
        let algorithms = ring::default_provider().signature_verification_algorithms.all;
        let usage = KeyUsage::client_auth();
        own.verify_for_usage(algorithms, &self.authorities, intermediates, now, usage, None, None)
            .map_err(|error| match error {
                Error::CertExpired { time, not_after } => Stranger::Expired(Duration::from_secs(
                    time.as_secs().saturating_sub(not_after.as_secs()),
                )),
                Error::CertNotValidYet { .. } => Stranger::NotYetValid,
                Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => {
                    Stranger::UnknownAuthority
                }
                error => unusable(&error),
            })?;
        let allowed = &self.config.allowed_names;
        let name = common_name(own.subject()).unwrap_or_default();
        if allowed.is_empty() || allowed.iter().any(|it| it.as_bytes() == name) {
            return Ok(());
        }
        Err(Stranger::OtherName(String::from_utf8_lossy(name).into_owned()))
    }

    /// The user that the front proxy names. Only for a client that [is](Self::recognise) the front proxy.
    pub(crate) fn user(&self, headers: &HeaderMap) -> Result<User, Stranger> {
        let first = |names: &[String]| {
            let mut values = names.iter().filter_map(|name| text(headers.get(name)?));
            values.find(|value| !value.is_empty())
        };
        let name = first(&self.config.username_headers).ok_or(Stranger::NoUser)?;
        let groups = self.config.group_headers.iter().flat_map(|name| headers.get_all(name));
        let groups: Vec<_> = groups
            .filter_map(text)
            .filter(|group| !group.is_empty())
            .take(VALUES_MAX + 1)
            .collect();
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut values = 0;
        for prefix in &self.config.extra_header_prefixes {
            let prefix = prefix.to_ascii_lowercase();
            for (header, value) in headers {
                let Some(key) = header.as_str().strip_prefix(&prefix) else { continue };
                let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
                extra.entry(key).or_default().extend(text(value));
                values += 1;
            }
        }
        if groups.len() > VALUES_MAX || values > VALUES_MAX {
            return Err(Stranger::TooManyGroups);
        }
        let uid = first(&self.config.uid_headers).unwrap_or_default();
        Ok(User { name, uid, groups, extra })
    }
}

fn text(value: &http::HeaderValue) -> Option<String> {
    String::from_utf8(value.as_bytes().to_vec()).ok()
}

/// The last common name of a certificate's subject (DER, without its outer tag). The certificate is one that was verified.
fn common_name(mut subject: &[u8]) -> Option<&[u8]> {
    /// 2.5.4.3, as its bytes.
    const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    /// UTF8String, PrintableString and IA5String.
    const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16];
    let mut name = None;
    while let Some((SET, mut set, rest)) = element(subject) {
        subject = rest;
        while let Some((SEQUENCE, attribute, rest)) = element(set) {
            set = rest;
            if let Some((OBJECT_IDENTIFIER, kind, value)) = element(attribute)
                && kind == COMMON_NAME
                && let Some((tag, text, _)) = element(value)
                && TEXTS.contains(&tag)
            {
                name = Some(text);
            }
        }
    }
    name
}

/// The first element of DER: its tag, its content and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (usize::from(*rest.first()?) << 8 | usize::from(*rest.get(1)?), &rest[2..]),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests;
