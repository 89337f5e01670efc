//! Which addresses may be reached. What counts is the address of each connection, not the name: a name may resolve to anything, and to something else a second later.

use super::WebError;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use url::{Host, Url};

/// A cloud's metadata service on an address that looks public.
const AZURE_WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// Lets public addresses through, and the hosts that the operator named.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    private_hosts: Arc<HashSet<String>>,
}

/// A name that resolves to nothing but addresses that are not public.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} is at {address}, which is not a public address")]
pub(super) struct NotPublic {
    pub(super) host: String,
    pub(super) address: IpAddr,
}

impl Guard {
    pub(super) fn new(private_hosts: &[String]) -> Self {
        Self { private_hosts: Arc::new(private_hosts.iter().map(|host| plain_host(host)).collect()) }
    }

    /// What an address says by itself: its scheme, and its host where that is a number in whatever notation.
    pub(super) fn check(&self, url: &Url) -> Result<(), WebError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(WebError::Address("only http:// and https:// are"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(WebError::Address("it holds a user name or a password"));
        }
        let number = match url.host() {
            None => return Err(WebError::Address("it names no host")),
            Some(Host::Domain(_)) => return Ok(()),
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
        };
        let kept = self.keep(url.host_str().unwrap_or_default(), &[SocketAddr::new(number, 0)]);
        kept.map(|_| ()).map_err(|NotPublic { host, address }| WebError::Private { host, address })
    }

    /// The addresses of a host that may be connected to.
    fn keep(&self, host: &str, addresses: &[SocketAddr]) -> Result<Vec<SocketAddr>, NotPublic> {
        if self.private_hosts.contains(&plain_host(host)) {
            return Ok(addresses.to_vec());
        }
        let public: Vec<SocketAddr> = addresses.iter().filter(|address| is_public(address.ip())).copied().collect();
        match addresses.first() {
            Some(first) if public.is_empty() => Err(NotPublic { host: host.to_owned(), address: first.ip() }),
            _ => Ok(public),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let kept = guard.keep(name.as_str(), &found)?;
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

fn plain_host(host: &str) -> String {
    host.trim().trim_matches(['[', ']']).trim_end_matches('.').to_lowercase()
}

/// Whether an address belongs to the public internet. In doubt it does not.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// IANA's special-purpose registry.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        (0 | 10 | 127, ..) | (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _) | (198, 18..=19, _) => true,
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 51, 100) | (203, 0, 113) => true,
        _ => a >= 224,
    };
    !special && address != AZURE_WIRE_SERVER
}

/// Global unicast without IANA's exceptions; an IPv4 address inside an IPv6 address counts as itself.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        [0x2001, 0..=0x01ff | 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(url: &str) -> Result<(), WebError> {
        Guard::new(&["wiki.internal".into(), "10.1.2.3".into(), "[fd00::7]".into()]).check(&Url::parse(url).unwrap())
    }

    #[test]
    fn no_notation_of_a_private_address_passes() {
        let private = [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0x7f.1",
            "127.0.0.1.",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "[ff02::1]",
            "[::127.0.0.1]",
            "169.254.169.254",
            "2852039166",
            "0xa9fea9fe",
            "10.0.0.8",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "[2001::1]",
            "１２７.０.０.１",
            "10.1.2.4",
            "[fd00::8]",
        ];
        for host in private {
            let error = check(&format!("http://{host}/latest/meta-data")).unwrap_err();
            assert!(matches!(error, WebError::Private { .. }), "{host}: {error}");
        }
        for host in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "[2606:4700::1111]", "[::ffff:8.8.8.8]", "10.1.2.3", "[fd00::7]", "example.com"]
        {
            assert_eq!(check(&format!("https://{host}/")), Ok(()), "{host}");
        }
    }

    #[test]
    fn only_web_addresses_without_secrets_are_fetched() {
        for url in ["ftp://example.com/", "file:///etc/passwd", "https://user:pass@example.com/", "https://user@example.com/", "data:,x"] {
            assert!(matches!(check(url), Err(WebError::Address(_))), "{url}");
        }
    }

    #[test]
    fn a_name_counts_for_where_it_leads() {
        let guard = Guard::new(&["Wiki.Internal.".into()]);
        let address = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let loopback = guard.keep("rebound.example", &[address("127.0.0.1")]).unwrap_err();
        assert_eq!(loopback.to_string(), "rebound.example is at 127.0.0.1, which is not a public address");
        assert_eq!(guard.keep("mixed.example", &[address("10.0.0.1"), address("8.8.8.8")]), Ok(vec![address("8.8.8.8")]));
        assert_eq!(guard.keep("wiki.internal", &[address("10.0.0.1")]), Ok(vec![address("10.0.0.1")]));
        assert_eq!(guard.keep("nowhere.example", &[]), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn an_ipv4_address_is_as_public_as_its_ipv6_forms(bits: u32) {
            let v4 = Ipv4Addr::from_bits(bits);
            let (high, low) = ((bits >> 16) as u16, bits as u16);
            prop_assert_eq!(is_public(v4.into()), is_public(v4.to_ipv6_mapped().into()));
            prop_assert_eq!(is_public(v4.into()), is_public(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into()));
            prop_assert_eq!(is_public(v4.into()), is_public(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into()));
            let known = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_unspecified() || v4.is_broadcast();
            prop_assert!(!(known && is_public(v4.into())));
        }

        #[test]
        fn nothing_local_is_public_in_ipv6(bits: u128) {
            let v6 = Ipv6Addr::from_bits(bits);
            let local = v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified();
            prop_assert!(!(local && is_public(v6.into())));
        }
    }
}
