// SPDX-License-Identifier: Apache-2.0
//! The proxy that the variables of other tools name for a server: `HTTPS_PROXY`, `HTTP_PROXY` and
//! `NO_PROXY`, in upper or lower case.
//!
//! The rules are those of Go's net/http, which Prometheus and kubectl keep to: the scheme of the server's
//! URL chooses the variable, upper case takes precedence over lower case, and a server on loopback has no proxy.

use std::net::IpAddr;

use url::{Host, Url};

use super::Variables;
use crate::key::Key;
use crate::layer::Setting;
use crate::origin::Origin;

/// The proxy for the server at `url`, as the value of `key`.
pub(crate) fn setting(variables: &Variables, url: &str, key: &'static Key) -> Option<Setting> {
    let url = Url::parse(url.trim()).ok()?;
    let names = match url.scheme() {
        "https" => ["HTTPS_PROXY", "https_proxy"],
        "http" => ["HTTP_PROXY", "http_proxy"],
        _ => return None,
    };
    let (name, proxy) = first(variables, names)?;
    let exceptions = first(variables, ["NO_PROXY", "no_proxy"]).map_or("", |(_, text)| text);
    if is_loopback(&url) || exceptions.split(',').any(|entry| is_excepted(entry.trim(), &url)) {
        return None;
    }
    let origin = Origin::Variable(name.to_owned());
    Some(Setting { key, value: proxy.trim().into(), origin, entry_lines: Vec::new() })
}

fn first<'a>(
    variables: &'a Variables,
    names: [&'static str; 2],
) -> Option<(&'static str, &'a str)> {
    names.into_iter().find_map(|name| Some((name, variables.get(name)?.as_str())))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => true,
    }
}

/// Whether an entry of `NO_PROXY` names this server: `*`, an address, a range of addresses, a domain
/// (`.example.com` and `*.example.com` are what is below it), each perhaps with a port.
fn is_excepted(entry: &str, url: &Url) -> bool {
    if entry == "*" {
        return true;
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        _ => None,
    };
    if let (Some((network, bits)), Some(address)) = (entry.split_once('/'), address) {
        return in_network(network, bits, address).unwrap_or(false);
    }
    let (name, port) = with_port(entry);
    if name.is_empty() || port.is_some_and(|port| Some(port) != url.port_or_known_default()) {
        return false;
    }
    if let Some(address) = address {
        return name.trim_matches(['[', ']']).parse() == Ok(address);
    }
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix('*').unwrap_or(&name);
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(name),
        None => host == name || host.ends_with(&format!(".{name}")),
    }
}

/// An entry without its port, and the port.
fn with_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        // `::1` is an address, and its last part no port.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

fn in_network(network: &str, bits: &str, address: IpAddr) -> Option<bool> {
    let bits: u32 = bits.parse().ok()?;
    let equal = |a: u128, b: u128, width: u32| {
        (bits <= width).then(|| a.checked_shr(width - bits) == b.checked_shr(width - bits))
    };
    match (network.parse().ok()?, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => equal(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => equal(a.to_bits(), b.to_bits(), 128),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Kind;

    const KEY: Key = Key::new("prometheus.proxy", Kind::Url, "");

    fn proxy(variables: &[(&str, &str)], url: &str) -> Option<String> {
        static KEPT: Key = KEY;
        let variables =
            variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let setting = setting(&variables, url, &KEPT)?;
        Some(format!("{} by {}", KEPT.shown(&setting.value), setting.origin))
    }

    #[test]
    fn the_scheme_of_the_server_chooses_the_variable() {
        let both = [("HTTPS_PROXY", "http://s:1"), ("HTTP_PROXY", "p:2")];
        let expected = "http://s:1 by environment variable HTTPS_PROXY";
        assert_eq!(proxy(&both, "https://h").as_deref(), Some(expected));
        let expected = "p:2 by environment variable HTTP_PROXY";
        assert_eq!(proxy(&both, "http://h").as_deref(), Some(expected));
        assert_eq!(proxy(&both[..1], "http://h"), None);
        assert_eq!(proxy(&[("ALL_PROXY", "http://a")], "https://h"), None);
        assert_eq!(proxy(&both, "h:9090"), None);
    }

    #[test]
    fn upper_case_beats_lower_case_and_either_counts() {
        let lower = ("https_proxy", "http://lower");
        let expected = "http://lower by environment variable https_proxy";
        assert_eq!(proxy(&[lower], "https://h").as_deref(), Some(expected));
        let expected = "http://upper by environment variable HTTPS_PROXY";
        let both = [lower, ("HTTPS_PROXY", "http://upper")];
        assert_eq!(proxy(&both, "https://h").as_deref(), Some(expected));
        assert_eq!(proxy(&[lower, ("no_proxy", "h")], "https://h"), None);
    }

    #[test]
    fn loopback_has_no_proxy() {
        let proxies = [("HTTPS_PROXY", "http://p"), ("HTTP_PROXY", "http://p")];
        for host in ["localhost:9090", "127.0.0.1", "127.1.2.3:1", "[::1]:9090", "a.localhost"] {
            for scheme in ["http", "https"] {
                assert_eq!(proxy(&proxies, &format!("{scheme}://{host}")), None, "{host}");
            }
        }
        assert!(proxy(&proxies, "https://localhost.example.com").is_some());
    }

    #[test]
    fn no_proxy_names_hosts_domains_and_networks() {
        #[track_caller]
        fn check(no_proxy: &str, host: &str, direct: bool) {
            let variables = [("HTTPS_PROXY", "http://p"), ("NO_PROXY", no_proxy)];
            assert_eq!(proxy(&variables, &format!("https://{host}")).is_none(), direct, "{host}");
        }
        check("*", "h", true);
        check("a, h ,b", "h", true);
        check("H.Example", "h.example", true);
        check("example.com", "a.example.com", true);
        check("example.com", "notexample.com", false);
        check(".example.com", "a.example.com", true);
        check(".example.com", "example.com", false);
        check("*.example.com", "a.b.example.com", true);
        check("h:443", "h", true);
        check("h:9090", "h", false);
        check("h:9090", "h:9090", true);
        check("10.0.0.0/8", "10.1.2.3:9090", true);
        check("10.0.0.0/8", "11.1.2.3", false);
        check("0.0.0.0/0", "11.1.2.3", true);
        check("10.0.0.0/33", "10.1.2.3", false);
        check("10.0.0.0/8", "h", false);
        check("10.1.2.3", "10.1.2.3:9090", true);
        check("fd00::/8", "[fd12::1]:9090", true);
        check("::/0", "[fd12::1]", true);
        check("fd12::1", "[fd12::1]:9090", true);
        check("[fd12::1]:9090", "[fd12::1]:9090", true);
        check("[fd12::1]:9091", "[fd12::1]:9090", false);
        check("", "h", false);
        check(",", "h", false);
    }
}
