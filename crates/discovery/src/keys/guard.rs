//! Addresses that keys are never fetched from, whatever a policy's URL says: a URL is written by whoever may write a policy, and
//! is followed with the control plane's own reach.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// Where clouds answer their machines with credentials, besides link-local addresses.
const METADATA: [&str; 2] = ["100.100.100.200/32", "fd00:ec2::/32"];

/// Link-local addresses, those of clouds' metadata, and what an operator adds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForbiddenAddresses(Vec<IpNet>);

impl ForbiddenAddresses {
    /// Ranges (`BLOCKED_CIDRS_IN_JWKS_URIS`), with commas between them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let ranges = text.split(',').map(str::trim).filter(|range| !range.is_empty());
        let parsed = ranges.map(|range| range.parse().map_err(|error| format!("{range:?}: {error}")));
        Ok(Self(parsed.collect::<Result<_, _>>()?))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.has(address) || embedded(address).is_some_and(|within| self.has(within))
    }

    fn has(&self, address: IpAddr) -> bool {
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
        };
        let metadata = || METADATA.iter().filter_map(|range| range.parse::<IpNet>().ok());
        link_local || metadata().any(|range| range.contains(&address)) || self.0.iter().any(|r| r.contains(&address))
    }
}

/// The IPv4 address that one of IPv6 leads to: the same in another spelling (RFC 4291, 2.5.5), by a translator's well-known prefix
/// (RFC 6052, 2.1) or by 6to4 (RFC 3056, 2).
fn embedded(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d, e, f, high, low] = address.segments();
    let (high, low) = match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_and_what_an_operator_adds_are_forbidden_in_every_spelling() {
        let forbidden = ForbiddenAddresses::parse("10.0.0.0/8, 2001:db8::/32,").unwrap();
        let contains = |text: &str| forbidden.contains(text.parse().unwrap());
        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "fe80::1",
            "100.100.100.200",
            "fd00:ec2::254",
            "10.1.2.3",
            "::ffff:10.1.2.3",
            "2001:db8::1",
        ] {
            assert!(contains(address), "{address}");
        }
        for address in ["127.0.0.1", "192.168.0.1", "8.8.8.8", "::1", "fd00::1", "64:ff9b::8.8.8.8", "2002:808:808::1"]
        {
            assert!(!contains(address), "{address}");
        }
        assert!(ForbiddenAddresses::parse("10.0.0.0/99").unwrap_err().contains("10.0.0.0/99"));
    }
}
