//! Addresses that keys are never fetched from, whatever a policy's URL says: a URL is written by whoever may write a policy, and
//! is followed with the control plane's own reach.

use std::net::IpAddr;

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
        // An IPv4 address may be written as one of IPv6.
        let address = address.to_canonical();
        let link_local = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
        };
        let metadata = || METADATA.iter().filter_map(|range| range.parse::<IpNet>().ok());
        link_local || metadata().any(|range| range.contains(&address)) || self.0.iter().any(|r| r.contains(&address))
    }
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
            "fe80::1",
            "100.100.100.200",
            "fd00:ec2::254",
            "10.1.2.3",
            "::ffff:10.1.2.3",
            "2001:db8::1",
        ] {
            assert!(contains(address), "{address}");
        }
        for address in ["127.0.0.1", "192.168.0.1", "8.8.8.8", "::1", "fd00::1"] {
            assert!(!contains(address), "{address}");
        }
        assert!(ForbiddenAddresses::parse("10.0.0.0/99").unwrap_err().contains("10.0.0.0/99"));
    }
}
