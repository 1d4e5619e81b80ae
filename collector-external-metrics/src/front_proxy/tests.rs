// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use collector_testkit::certificates::Authority;
use collector_testkit::certificates::rcgen::{
    self, CertificateParams, DnType, ExtendedKeyUsagePurpose, date_time_ymd,
};
use http::{HeaderName, HeaderValue};

use super::*;

/// The first second of 2026.
const NOW: u64 = 1_767_225_600;

fn client(
    authority: &Authority,
    change: impl FnOnce(&mut CertificateParams),
) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "not the name");
    params.distinguished_name.push(DnType::CommonName, "front-proxy-client");
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2027, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    authority.sign_params(&params).der()
}

fn front_proxy(authority: &Authority, names: &[&str]) -> FrontProxy {
    let mut config = FrontProxyConfig::new(authority.pem().into_bytes());
    config.allowed_names = names.iter().map(|name| (*name).to_owned()).collect();
    FrontProxy::new(config).unwrap()
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

#[test]
fn the_front_proxy_is_recognised_by_its_authority_and_its_name() {
    let (authority, other) = (Authority::new(), Authority::new());
    let own = [client(&authority, |_| ())];
    let recognise = |names: &[&str], certificates: &[CertificateDer<'_>]| {
        front_proxy(&authority, names).recognise(certificates, at(NOW))
    };
    assert_eq!(recognise(&[], &own), Ok(()));
    assert_eq!(recognise(&["a", "front-proxy-client"], &own), Ok(()));
    let stranger = Stranger::OtherName("front-proxy-client".to_owned());
    assert_eq!(recognise(&["front-proxy"], &own), Err(stranger));
    assert_eq!(recognise(&[], &[]), Err(Stranger::NoCertificate));
    assert_eq!(recognise(&[], &[client(&other, |_| ())]), Err(Stranger::UnknownAuthority));
    // The certificate of the authority in the chain proves nothing.
    let chain =
        [client(&other, |_| ()), CertificateDer::from_pem_slice(other.pem().as_bytes()).unwrap()];
    assert_eq!(recognise(&[], &chain), Err(Stranger::UnknownAuthority));
    let unnamed =
        [client(&authority, |params| params.distinguished_name = rcgen::DistinguishedName::new())];
    assert_eq!(recognise(&["x"], &unnamed), Err(Stranger::OtherName(String::new())));
    let garbage = [CertificateDer::from(vec![0x30, 0x82])];
    assert!(matches!(recognise(&[], &garbage), Err(Stranger::Unusable(_))));
}

#[test]
fn a_certificate_that_is_not_a_clients_or_not_valid_now_is_refused() {
    let authority = Authority::new();
    let front_proxy = front_proxy(&authority, &[]);
    let own = [client(&authority, |_| ())];
    let end = 1_798_761_600;
    assert_eq!(front_proxy.recognise(&own, at(end - 1)), Ok(()));
    let expired = front_proxy.recognise(&own, at(end + 86_400)).unwrap_err();
    assert_eq!(expired, Stranger::Expired(Duration::from_secs(86_400)));
    assert!(
        expired.text().contains("expired 1day ago") || expired.text().contains("expired 24h ago"),
        "{}",
        expired.text()
    );
    assert_eq!(front_proxy.recognise(&own, at(NOW - 2 * 31_536_000)), Err(Stranger::NotYetValid));
    let server = [client(&authority, |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    })];
    assert!(matches!(front_proxy.recognise(&server, at(NOW)), Err(Stranger::Unusable(_))));
}

#[test]
fn a_configuration_without_an_authority_is_refused() {
    for text in
        ["", "no certificate", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"]
    {
        let error = FrontProxy::new(FrontProxyConfig::new(text.as_bytes().to_vec())).unwrap_err();
        assert!(error.contains("authorit"), "{error}");
    }
    let mut config = FrontProxyConfig::new(Authority::new().pem().into_bytes());
    config.username_headers.clear();
    FrontProxy::new(config).unwrap_err();
}

#[test]
fn headers_name_the_user() {
    let front_proxy = front_proxy(&Authority::new(), &[]);
    let user = |headers: &[(&str, &str)]| {
        let pairs = headers.iter().map(|(name, value)| {
            (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
        });
        let mut map = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            map.append(name, value);
        });
        front_proxy.user(&map)
    };
    let full = user(&[
        ("X-Remote-User", "system:serviceaccount:kube-system:horizontal-pod-autoscaler"),
        ("X-Remote-Uid", "42"),
        ("X-Remote-Group", "a"),
        ("X-Remote-Group", ""),
        ("X-Remote-Group", "b"),
        ("X-Remote-Extra-Scopes", "x"),
        ("X-Remote-Extra-Scopes", "y"),
        ("X-Remote-Extra-Acme.com%2fproject", "z"),
        ("X-Remote", "nothing"),
    ])
    .unwrap();
    assert_eq!(full.name, "system:serviceaccount:kube-system:horizontal-pod-autoscaler");
    assert_eq!((full.uid.as_str(), full.groups), ("42", vec!["a".to_owned(), "b".to_owned()]));
    let extra = [("scopes", &["x", "y"][..]), ("acme.com/project", &["z"])];
    let extra = extra
        .map(|(key, values)| (key.to_owned(), values.iter().map(|it| (*it).to_owned()).collect()));
    assert_eq!(full.extra, BTreeMap::from(extra));
    assert_eq!(user(&[("X-Remote-Group", "a")]), Err(Stranger::NoUser));
    assert_eq!(user(&[("X-Remote-User", "")]), Err(Stranger::NoUser));
    let many = vec![("X-Remote-Group", "a"); 1000];
    assert!(user(&[&[("X-Remote-User", "u")], &many[..]].concat()).is_ok());
    let many = vec![("X-Remote-Group", "a"); 1001];
    assert_eq!(
        user(&[&[("X-Remote-User", "u")], &many[..]].concat()),
        Err(Stranger::TooManyGroups)
    );
}

#[test]
fn a_subject_that_is_cut_has_no_name() {
    let der = [0x31, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x03, b'a', b'b', b'c'];
    assert_eq!(common_name(&der), Some(&b"abc"[..]));
    for end in 0..der.len() {
        assert_eq!(common_name(&der[..end]), None);
    }
}
