//! Ambient's rules for `nft`, in the order of Istio's.

use std::fmt::Write;

use super::{
    CONNECTION_MARK, DNS_PORT, INBOUND_PORT, MANGLE, MARK, MASK, NAT, Node, OUTBOUND_PORT, PROBED_V4, PROBED_V6, Pod,
    RAW, TUNNEL_PORT,
};
use crate::nftables::{OUTPUT, POSTROUTING, PREROUTING};
use crate::ruleset::Ruleset;

const OWN_PREROUTING: &str = "istio-prerouting";
const OWN_OUTPUT: &str = "istio-output";
const TCP: &str = "meta l4proto tcp";
/// The address that stands for this host, by family.
const LOOPBACK: [(&str, &str); 2] = [("ip", "127.0.0.1/32"), ("ip6", "::1/128")];

pub(super) fn node(node: &Node, ipv6: bool) -> Ruleset {
    let mut rules = Ruleset::default();
    let all = [("ip", PROBED_V4, node.probes.v4.to_string()), ("ip6", PROBED_V6, node.probes.v6.to_string())];
    for (family, probed, source) in all.iter().take(families(ipv6)) {
        let matched = format!("{TCP} skuid {} {family} daddr @{probed}", node.kubelet);
        rules.append(NAT, POSTROUTING, format!("{matched} counter snat to {source}"));
    }
    rules
}

/// A script that makes the sets which the rules of a node look into, before them.
pub(super) fn with_sets(script: &str, ipv6: bool) -> String {
    let mut text = format!("add table inet {NAT}\n");
    for (set, kind) in [(PROBED_V4, "ipv4_addr"), (PROBED_V6, "ipv6_addr")].iter().take(families(ipv6)) {
        let _ = writeln!(text, "add set inet {NAT} {set} {{ type {kind} ; }}");
    }
    text + script
}

fn families(ipv6: bool) -> usize {
    if ipv6 { 2 } else { 1 }
}

pub(super) fn pod(pod: &Pod, ipv6: bool) -> Ruleset {
    let mut build = Build { pod, families: families(ipv6), rules: Ruleset::default() };
    build.jumps();
    build.marks();
    build.virtual_interfaces();
    build.probes();
    build.inbound();
    if pod.dns {
        build.dns();
    }
    build.outbound();
    build.rules
}

struct Build<'a> {
    pod: &'a Pod,
    families: usize,
    rules: Ruleset,
}

fn not_ours() -> String {
    format!("mark and {MASK:#x} != {MARK:#x}")
}

impl Build<'_> {
    /// Every rule counts its packets right before its verdict, but for those that only lead on.
    fn nat(&mut self, chain: &'static str, matched: &str, verdict: &str) {
        self.rules.append(NAT, chain, format!("{matched} counter {verdict}"));
    }

    /// A rule for each family, whose destination is not this host.
    fn elsewhere(&mut self, chain: &'static str, (before, after): (&str, &str), verdict: &str) {
        for (family, loopback) in LOOPBACK.iter().take(self.families) {
            let matched = format!("{before} {family} daddr != {loopback} {after}");
            self.nat(chain, matched.trim(), verdict);
        }
    }

    fn jumps(&mut self) {
        let tables: &[&'static str] = if self.pod.dns { &[NAT, MANGLE, RAW] } else { &[NAT, MANGLE] };
        for &table in tables {
            for chain in [PREROUTING, OUTPUT, OWN_PREROUTING, OWN_OUTPUT] {
                self.rules.declare(table, chain);
            }
            self.rules.append(table, PREROUTING, format!("jump {OWN_PREROUTING}"));
            self.rules.append(table, OUTPUT, format!("jump {OWN_OUTPUT}"));
        }
    }

    /// What answers the proxy's packets carries the connection's mark, and is let pass.
    fn marks(&mut self) {
        let set = format!("ct mark set ct mark & {:#x} | {CONNECTION_MARK:#x}", !MASK);
        self.rules.append(MANGLE, OWN_PREROUTING, format!("meta mark & {MASK:#x} == {MARK:#x} counter {set}"));
        let connection = format!("ct mark and {MASK:#x} == {CONNECTION_MARK:#x}");
        self.rules.append(MANGLE, OWN_OUTPUT, format!("{connection} counter meta mark set ct mark"));
    }

    fn virtual_interfaces(&mut self) {
        let pod = self.pod;
        for interface in &pod.virtual_interfaces {
            let matched = format!("iifname \"{interface}\" {TCP}");
            self.nat(OWN_PREROUTING, &matched, &format!("redirect to :{OUTBOUND_PORT}"));
            self.nat(OWN_PREROUTING, &matched, "return");
        }
    }

    fn probes(&mut self) {
        let probes = self.pod.probes;
        let all = [("ip", probes.v4.to_string()), ("ip6", probes.v6.to_string())];
        if !self.pod.outbound_only {
            for (family, address) in all.iter().take(self.families) {
                self.nat(OWN_PREROUTING, &format!("{TCP} {family} saddr {address}"), "accept");
            }
        }
        for (family, address) in all.iter().take(self.families) {
            self.nat(OWN_OUTPUT, &format!("{TCP} {family} daddr {address}"), "accept");
        }
    }

    fn inbound(&mut self) {
        if self.pod.outbound_only {
            return;
        }
        let after = format!("tcp dport != {TUNNEL_PORT} {}", not_ours());
        self.elsewhere(OWN_PREROUTING, ("", &after), &format!("redirect to :{INBOUND_PORT}"));
    }

    /// Queries and answers of the proxy are in a zone of connection tracking of their own: their addresses and ports may be
    /// those of a query that it answers.
    fn dns(&mut self) {
        let (not_ours, to_proxy) = (not_ours(), format!("redirect to :{DNS_PORT}"));
        self.nat(OWN_OUTPUT, &format!("oifname != lo {not_ours} udp dport 53"), &to_proxy);
        self.elsewhere(OWN_OUTPUT, ("", &format!("tcp dport 53 {not_ours}")), &to_proxy);
        let asked = format!("udp dport 53 meta mark and {MASK:#x} == {MARK:#x}");
        self.rules.append(RAW, OWN_OUTPUT, format!("{asked} counter ct zone set 1"));
        self.rules.append(RAW, OWN_PREROUTING, format!("udp sport 53 meta {not_ours} counter ct zone set 1"));
    }

    fn outbound(&mut self) {
        self.nat(OWN_OUTPUT, &format!("{TCP} mark and {MASK:#x} == {CONNECTION_MARK:#x}"), "accept");
        self.elsewhere(OWN_OUTPUT, ("oifname lo", ""), "accept");
        self.elsewhere(OWN_OUTPUT, (TCP, &not_ours()), &format!("redirect to :{OUTBOUND_PORT}"));
    }
}
