//! What the ambient mode captures: a pod's traffic for the proxy of its node, which listens in the pod's network namespace,
//! and on the node the kubelet's probes, which are given an address of their own by which pods let them pass.
//!
//! Owns: the meaning of these settings, and the rules. The proxy marks its own packets ([`MARK`]); what belongs to its
//! connections carries [`CONNECTION_MARK`]. Never here: which pods are captured, nor the sets of their addresses' members.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::apply::{ApplyError, Rules};
use crate::installation::Backend;
use crate::nftables;
use crate::ruleset::{Family, Ruleset};

mod iptables;
mod nft;
#[cfg(test)]
mod tests;

/// On the packets of the node's proxy.
const MARK: u32 = 0x539;
/// On connections that a packet with [`MARK`] began.
const CONNECTION_MARK: u32 = 0x111;
/// The bits of a mark that are ours.
const MASK: u32 = 0xfff;
const OUTBOUND_PORT: u16 = 15001;
const INBOUND_PORT: u16 = 15006;
const TUNNEL_PORT: u16 = 15008;
const DNS_PORT: u16 = 15053;
/// Addresses of the pods that the kubelet probes.
const PROBED_V4: &str = "istio-inpod-probes-v4";
const PROBED_V6: &str = "istio-inpod-probes-v6";

const NAT: &str = "istio-ambient-nat";
const MANGLE: &str = "istio-ambient-mangle";
const RAW: &str = "istio-ambient-raw";
const TABLES: [&str; 3] = [NAT, MANGLE, RAW];

/// From where the kubelet's probes come, as pods see them: `HOST_PROBE_SNAT_ADDRESS` and `HOST_PROBE_V6_SNAT_ADDRESS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeSource {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Default for ProbeSource {
    fn default() -> Self {
        ProbeSource {
            v4: Ipv4Addr::new(169, 254, 7, 127),
            v6: Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff),
        }
    }
}

/// The capture of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    pub probes: ProbeSource,
    /// Queries of DNS go to the proxy: `REDIRECT_DNS`, unless the pod's `ambient.istio.io/dns-capture` says otherwise.
    pub dns: bool,
    /// Inbound traffic is left alone: `ambient.istio.io/bypass-inbound-capture`.
    pub outbound_only: bool,
    /// Interfaces of virtual machines whose inbound traffic counts as outbound: `istio.io/reroute-virtual-interfaces`.
    pub virtual_interfaces: Vec<String>,
}

/// What a node does with its own processes' connections to captured pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub probes: ProbeSource,
    /// The user that the kubelet runs as, by which nft knows it; `iptables` takes any process of the node.
    pub kubelet: u32,
}

impl Rules for Pod {
    fn iptables(&self, family: Family) -> Ruleset {
        iptables::pod(self, family)
    }

    fn nftables(&self, ipv6: bool) -> Ruleset {
        nft::pod(self, ipv6)
    }

    fn tables(&self) -> &'static [&'static str] {
        &TABLES
    }
}

impl Rules for Node {
    fn iptables(&self, family: Family) -> Ruleset {
        iptables::node(self, family)
    }

    fn nftables(&self, ipv6: bool) -> Ruleset {
        nft::node(self, ipv6)
    }

    fn tables(&self) -> &'static [&'static str] {
        &TABLES[..1]
    }
}

impl Pod {
    /// Puts the capture in force in the network namespace of the calling thread, in the place of any other.
    pub fn apply(&self, backend: &Backend, ipv6: bool) -> Result<(), ApplyError> {
        crate::apply::put(self, backend, ipv6)
    }

    /// Takes away what a capture left, whatever its settings were.
    pub fn cleanup(&self, backend: &Backend, ipv6: bool) -> Result<(), ApplyError> {
        crate::apply::take_away(self, backend, ipv6)
    }

    /// The chains that are not in force, each with its table.
    pub fn missing(&self, backend: &Backend, ipv6: bool) -> Result<Vec<String>, ApplyError> {
        crate::apply::missing(self, backend, ipv6)
    }
}

impl Node {
    /// What would be given to `iptables-restore`, which needs the sets of `ipset`, or to `nft -f`, which makes the sets and
    /// leaves what is in them.
    pub fn text(&self, backend: &Backend, ipv6: bool) -> String {
        match backend {
            Backend::Iptables(_) => {
                Family::of(ipv6).iter().map(|family| self.iptables(*family).restore_text()).collect()
            }
            Backend::Nftables => nft::with_sets(&nftables::added(&self.nftables(ipv6), self.tables()), ipv6),
        }
    }
}
