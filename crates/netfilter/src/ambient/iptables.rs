//! Ambient's rules for `iptables`, in the order of Istio's.

use super::{
    CONNECTION_MARK, DNS_PORT, INBOUND_PORT, MARK, MASK, Node, OUTBOUND_PORT, PROBED_V4, PROBED_V6, Pod, TUNNEL_PORT,
};
use crate::ruleset::{Family, Ruleset};

const NAT: &str = "nat";
const MANGLE: &str = "mangle";
const RAW: &str = "raw";
const PREROUTING: &str = "ISTIO_PRERT";
const OUTPUT: &str = "ISTIO_OUTPUT";
const POSTROUTING: &str = "ISTIO_POSTRT";

pub(super) fn node(node: &Node, family: Family) -> Ruleset {
    let (source, probed) = match family {
        Family::V4 => (node.probes.v4.to_string(), PROBED_V4),
        Family::V6 => (node.probes.v6.to_string(), PROBED_V6),
    };
    let mut rules = Ruleset::default();
    // Before the rules of kube-proxy, which would give the node's own address.
    rules.insert(NAT, "POSTROUTING", 1, format!("-j {POSTROUTING}"));
    let probe = format!("-m owner --socket-exists -p tcp -m set --match-set {probed} dst");
    rules.append(NAT, POSTROUTING, format!("{probe} -j SNAT --to-source {source}"));
    rules
}

pub(super) fn pod(pod: &Pod, family: Family) -> Ruleset {
    let (loopback, probes) = match family {
        Family::V4 => ("127.0.0.1/32", pod.probes.v4.to_string()),
        Family::V6 => ("::1/128", pod.probes.v6.to_string()),
    };
    let mut build = Build { pod, loopback, probes, rules: Ruleset::default() };
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
    loopback: &'static str,
    probes: String,
    rules: Ruleset,
}

fn ours() -> String {
    format!("-m mark --mark {MARK:#x}/{MASK:#x}")
}

fn not_ours() -> String {
    format!("-m mark ! --mark {MARK:#x}/{MASK:#x}")
}

fn connection() -> String {
    format!("{CONNECTION_MARK:#x}/{MASK:#x}")
}

impl Build<'_> {
    fn nat(&mut self, chain: &'static str, words: impl Into<String>) {
        self.rules.append(NAT, chain, words);
    }

    fn jumps(&mut self) {
        self.rules.declare(NAT, PREROUTING);
        let (to_prerouting, to_output) = (format!("-j {PREROUTING}"), format!("-j {OUTPUT}"));
        self.rules.append(MANGLE, "PREROUTING", &*to_prerouting);
        self.rules.append(MANGLE, "OUTPUT", &*to_output);
        self.rules.append(NAT, "OUTPUT", &*to_output);
        self.rules.append(NAT, "PREROUTING", &*to_prerouting);
        if self.pod.dns {
            self.rules.append(RAW, "PREROUTING", to_prerouting);
            self.rules.append(RAW, "OUTPUT", to_output);
        }
    }

    /// What answers the proxy's packets carries the connection's mark, and is let pass.
    fn marks(&mut self) {
        let connection = connection();
        self.rules.append(MANGLE, PREROUTING, format!("{} -j CONNMARK --set-xmark {connection}", ours()));
        let restored = "CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff";
        self.rules.append(MANGLE, OUTPUT, format!("-m connmark --mark {connection} -j {restored}"));
    }

    fn virtual_interfaces(&mut self) {
        let pod = self.pod;
        for interface in &pod.virtual_interfaces {
            self.nat(PREROUTING, format!("-i {interface} -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}"));
            self.nat(PREROUTING, format!("-i {interface} -p tcp -j RETURN"));
        }
    }

    fn probes(&mut self) {
        let probes = self.probes.clone();
        if !self.pod.outbound_only {
            self.nat(PREROUTING, format!("-s {probes} -p tcp -m tcp -j ACCEPT"));
        }
        self.nat(OUTPUT, format!("-d {probes} -p tcp -m tcp -j ACCEPT"));
    }

    fn inbound(&mut self) {
        if self.pod.outbound_only {
            return;
        }
        let matched = format!("! -d {} -p tcp ! --dport {TUNNEL_PORT} {}", self.loopback, not_ours());
        self.nat(PREROUTING, format!("{matched} -j REDIRECT --to-ports {INBOUND_PORT}"));
    }

    /// Queries and answers of the proxy are in a zone of connection tracking of their own: their addresses and ports may be
    /// those of a query that it answers.
    fn dns(&mut self) {
        let (loopback, ours, not_ours) = (self.loopback, ours(), not_ours());
        self.nat(OUTPUT, format!("! -o lo -p udp {not_ours} -m udp --dport 53 -j REDIRECT --to-port {DNS_PORT}"));
        self.nat(OUTPUT, format!("! -d {loopback} -p tcp --dport 53 {not_ours} -j REDIRECT --to-ports {DNS_PORT}"));
        self.rules.append(RAW, OUTPUT, format!("-p udp {ours} -m udp --dport 53 -j CT --zone 1"));
        self.rules.append(RAW, PREROUTING, format!("-p udp {not_ours} -m udp --sport 53 -j CT --zone 1"));
    }

    fn outbound(&mut self) {
        let loopback = self.loopback;
        self.nat(OUTPUT, format!("-p tcp -m mark --mark {} -j ACCEPT", connection()));
        self.nat(OUTPUT, format!("! -d {loopback} -o lo -j ACCEPT"));
        self.nat(OUTPUT, format!("! -d {loopback} -p tcp {} -j REDIRECT --to-ports {OUTBOUND_PORT}", not_ours()));
    }
}
