//! From settings to nftables rules, in the order of Istio's.
//!
//! Owns: what each setting becomes. A rule for one family names its address; all others hold for both.

use ipnet::IpNet;

use super::{MANGLE, NAT, OUTPUT, PREROUTING, RAW};
use crate::capture::{Bypass, Capture, Dns, List};
use crate::ruleset::Ruleset;

const INBOUND: &str = "istio-inbound";
const REDIRECT: &str = "istio-redirect";
const IN_REDIRECT: &str = "istio-in-redirect";
const OUTBOUND: &str = "istio-output";
const OUTPUT_DNS: &str = "istio-output-dns";
const DIVERT: &str = "istio-divert";
const TPROXY: &str = "istio-tproxy";
const DROP: &str = "istio-drop";

const TCP: &str = "meta l4proto tcp";

pub(super) fn build(capture: &Capture, ipv6: bool) -> Ruleset {
    let mut build = Build { capture, ipv6, rules: Ruleset::default() };
    build.declare();
    build.interfaces();
    build.redirects();
    build.inbound();
    build.outbound_start();
    build.bypass();
    build.owner_groups();
    build.dns();
    build.outbound_end();
    build.tproxy_end();
    build.rules
}

struct Build<'a> {
    capture: &'a Capture,
    ipv6: bool,
    rules: Ruleset,
}

/// One way by which a packet is known as the proxy's: the match, and its negation.
struct Owner {
    is: String,
    is_not: String,
    /// As in `iptables`' rules, a resolver on loopback is exempted for uids alone.
    exempts_dns: bool,
}

/// A name as nft reads it, where a trailing `+` of `iptables` means any ending.
fn interface(name: &str) -> String {
    match name.strip_suffix('+') {
        Some(start) => format!("\"{start}*\""),
        None => format!("\"{name}\""),
    }
}

fn owner(key: &str, id: &str, exempts_dns: bool) -> Owner {
    let id = if id.chars().all(|c| c.is_ascii_digit()) { id.to_owned() } else { format!("\"{id}\"") };
    Owner { is: format!("{key} {id}"), is_not: format!("{key} != {id}"), exempts_dns }
}

fn family_of(range: &IpNet) -> &'static str {
    match range {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    }
}

impl Build<'_> {
    /// Chains are written in one fixed order, those without a rule left out.
    fn declare(&mut self) {
        for chain in [PREROUTING, OUTPUT, INBOUND, REDIRECT, IN_REDIRECT, OUTBOUND, OUTPUT_DNS] {
            self.rules.declare(NAT, chain);
        }
        for chain in [PREROUTING, OUTPUT, DIVERT, TPROXY, INBOUND, DROP] {
            self.rules.declare(MANGLE, chain);
        }
        for chain in [PREROUTING, OUTPUT, INBOUND, OUTPUT_DNS] {
            self.rules.declare(RAW, chain);
        }
    }

    /// Every rule counts its packets right before its verdict, which is what operators look at.
    fn add(&mut self, table: &'static str, chain: &'static str, matched: &str, verdict: &str) {
        self.rules.append(table, chain, counted(matched, verdict));
    }

    fn insert(&mut self, table: &'static str, chain: &'static str, position: u32, matched: &str, verdict: &str) {
        self.rules.insert(table, chain, position, counted(matched, verdict));
    }

    fn nat(&mut self, chain: &'static str, matched: &str, verdict: &str) {
        self.add(NAT, chain, matched, verdict);
    }

    /// Addresses of the host itself, one for each family in use.
    fn loopbacks(&self) -> Vec<(&'static str, String)> {
        let range = &self.capture.loopback_v4;
        let mut all = vec![("ip", format!("{}/{}", range.addr(), range.prefix_len()))];
        if self.ipv6 {
            all.push(("ip6", "::1/128".to_owned()));
        }
        all
    }

    /// The address that the proxy binds when it passes an inbound connection on to the application.
    fn inbound_sources(&self) -> &'static [(&'static str, &'static str)] {
        let all = &[("ip", "127.0.0.6/32"), ("ip6", "::6/128")];
        if self.ipv6 { all } else { &all[..1] }
    }

    fn ranges(&self, ranges: &[IpNet]) -> Vec<IpNet> {
        let v4 = ranges.iter().filter(|range| matches!(range, IpNet::V4(_)));
        let v6 = ranges.iter().filter(|range| self.ipv6 && matches!(range, IpNet::V6(_)));
        v4.chain(v6).map(IpNet::trunc).collect()
    }

    fn owners(&self) -> Vec<Owner> {
        match &self.capture.bypass {
            Bypass::Owner { uids, gids } => {
                let uids = uids.iter().map(|id| owner("skuid", id, true));
                uids.chain(gids.iter().map(|id| owner("skgid", id, false))).collect()
            }
            Bypass::Mark(mark) => vec![owner("mark", &mark.to_string(), true)],
        }
    }

    fn interfaces(&mut self) {
        let capture = self.capture;
        let tables = if capture.tproxy_mark().is_some() { &[NAT, MANGLE][..] } else { &[NAT] };
        for &table in tables {
            for name in capture.exclude_interfaces.iter().map(|name| interface(name)) {
                self.add(table, PREROUTING, &format!("iifname {name}"), "return");
                self.add(table, OUTPUT, &format!("oifname {name}"), "return");
            }
        }
        for name in capture.virtual_interfaces.iter().map(|name| interface(name)) {
            self.insert(NAT, PREROUTING, 1, &format!("iifname {name}"), "return");
        }
        if capture.drop_invalid {
            self.add(MANGLE, PREROUTING, "meta l4proto tcp ct state invalid", &format!("jump {DROP}"));
            self.add(MANGLE, DROP, "", "drop");
        }
    }

    fn redirects(&mut self) {
        let capture = self.capture;
        self.nat(INBOUND, &format!("{TCP} tcp dport {}", capture.tunnel_port), "return");
        self.nat(REDIRECT, TCP, &format!("redirect to :{}", capture.outbound_port));
        self.nat(IN_REDIRECT, TCP, &format!("redirect to :{}", capture.inbound_port));
    }

    fn inbound(&mut self) {
        let capture = self.capture;
        if capture.inbound_ports == List::Only(Vec::new()) {
            return;
        }
        let table = if let Some(mark) = capture.tproxy_mark() {
            self.transparent(mark);
            MANGLE
        } else {
            NAT
        };
        self.add(table, PREROUTING, TCP, &format!("jump {INBOUND}"));
        match &capture.inbound_ports {
            List::All => {
                for port in &capture.inbound_ports_exclude {
                    self.add(table, INBOUND, &format!("{TCP} tcp dport {port}"), "return");
                }
                self.inbound_match("");
            }
            List::Only(ports) => ports.iter().for_each(|port| self.inbound_match(&format!(" tcp dport {port}"))),
        }
    }

    fn transparent(&mut self, mark: u32) {
        self.add(MANGLE, DIVERT, "", &format!("meta mark set {mark}"));
        self.add(MANGLE, DIVERT, "", "accept");
        let port = self.capture.inbound_port;
        for (family, loopback) in self.loopbacks() {
            let to = format!("tproxy {family} to :{port} meta mark set {mark}");
            self.add(MANGLE, TPROXY, &format!("{TCP} {family} daddr != {loopback} {to}"), "accept");
        }
    }

    fn inbound_match(&mut self, port: &str) {
        if self.capture.tproxy_mark().is_none() {
            return self.nat(INBOUND, &format!("{TCP}{port}"), &format!("jump {IN_REDIRECT}"));
        }
        let established = format!("{TCP} ct state related,established{port}");
        self.add(MANGLE, INBOUND, &established, &format!("jump {DIVERT}"));
        self.add(MANGLE, INBOUND, &format!("{TCP}{port}"), &format!("jump {TPROXY}"));
    }

    fn outbound_start(&mut self) {
        self.nat(OUTPUT, "", &format!("jump {OUTBOUND}"));
        for port in &self.capture.outbound_ports_exclude {
            self.nat(OUTBOUND, &format!("tcp dport {port}"), "return");
            self.nat(OUTBOUND, &format!("udp dport {port}"), "return");
        }
        for (family, source) in self.inbound_sources() {
            self.nat(OUTBOUND, &format!("oifname lo {family} saddr {source}"), "return");
        }
    }

    /// The proxy calling its own workload's address goes in by the inbound listener; all else of the proxy passes.
    fn bypass(&mut self) {
        let capture = self.capture;
        let tunnel = capture.tunnel_port;
        for owner in self.owners() {
            let ports = if capture.captures_dns() && owner.exempts_dns {
                format!("{{ 53, {tunnel} }}")
            } else {
                tunnel.to_string()
            };
            for (family, loopback) in self.loopbacks() {
                let to = format!("{family} daddr != {loopback} tcp dport != {ports}");
                self.nat(OUTBOUND, &format!("oifname lo {TCP} {to} {}", owner.is), &format!("jump {IN_REDIRECT}"));
            }
            if !capture.captures_loopback() {
                let dns = if capture.captures_dns() { "meta l4proto tcp tcp dport != 53 " } else { "" };
                self.nat(OUTBOUND, &format!("oifname lo {dns}{}", owner.is_not), "return");
            }
            self.nat(OUTBOUND, &owner.is, "return");
        }
    }

    fn owner_groups(&mut self) {
        let capture = self.capture;
        match &capture.owner_groups {
            List::All => {
                for group in &capture.owner_groups_exclude {
                    self.nat(OUTBOUND, &owner("skgid", group, false).is, "return");
                }
            }
            List::Only(groups) => {
                let each: Vec<_> = groups.iter().map(|group| owner("skgid", group, false).is_not).collect();
                if !each.is_empty() {
                    self.nat(OUTBOUND, &each.join(" "), "return");
                }
            }
        }
    }

    /// The matches on a query's destination and on its answer's source.
    fn dns_servers(&self) -> Vec<(String, String)> {
        match &self.capture.dns {
            Dns::Off => Vec::new(),
            Dns::All => vec![(String::new(), String::new())],
            Dns::Servers(servers) => {
                let all: Vec<_> = servers.iter().map(|server| IpNet::from(*server)).collect();
                let matches = |server: &IpNet| {
                    let family = family_of(server);
                    (format!("{family} daddr {server}"), format!("{family} saddr {server}"))
                };
                self.ranges(&all).iter().map(matches).collect()
            }
        }
    }

    fn dns(&mut self) {
        if !self.capture.captures_dns() {
            return;
        }
        let servers = self.dns_servers();
        let jump = format!("jump {OUTPUT_DNS}");
        let to_proxy = format!("redirect to :{}", self.capture.dns_port);
        self.add(RAW, OUTPUT, "", &jump);
        if !servers.is_empty() {
            self.nat(OUTBOUND, "", &jump);
        }
        for (to, _) in &servers {
            let protocol = if to.is_empty() { TCP } else { to };
            self.nat(OUTPUT_DNS, &format!("{protocol} tcp dport 53"), &to_proxy);
        }
        for (to, _) in &servers {
            self.nat(OUTPUT_DNS, format!("{to} udp dport 53").trim_start(), &to_proxy);
        }
        self.dns_zones(&servers);
    }

    /// The proxy's own query and the one it answers may have the same addresses and ports: two zones of connection
    /// tracking keep them apart.
    fn dns_zones(&mut self, servers: &[(String, String)]) {
        let port = self.capture.dns_port;
        for owner in self.owners() {
            self.add(RAW, OUTPUT_DNS, &format!("udp dport 53 meta {}", owner.is), "ct zone set 1");
            self.add(RAW, OUTPUT_DNS, &format!("udp sport {port} meta {}", owner.is), "ct zone set 2");
        }
        if !servers.is_empty() {
            self.add(RAW, PREROUTING, "", &format!("jump {INBOUND}"));
        }
        for (to, from) in servers {
            self.add(RAW, OUTPUT_DNS, format!("udp dport 53 {to}").trim_end(), "ct zone set 2");
            self.add(RAW, INBOUND, format!("udp sport 53 {from}").trim_end(), "ct zone set 1");
        }
    }

    fn outbound_end(&mut self) {
        let capture = self.capture;
        for (family, loopback) in self.loopbacks() {
            self.nat(OUTBOUND, &format!("{family} daddr {loopback}"), "return");
        }
        for range in self.ranges(&capture.outbound_ranges_exclude) {
            self.nat(OUTBOUND, &format!("{} daddr {range}", family_of(&range)), "return");
        }
        let redirect = format!("jump {REDIRECT}");
        for port in &capture.outbound_ports {
            self.nat(OUTBOUND, &format!("tcp dport {port}"), &redirect);
        }
        let interfaces: Vec<_> = capture.virtual_interfaces.iter().map(|name| interface(name)).collect();
        match &capture.outbound_ranges {
            List::All => {
                self.nat(OUTBOUND, "", &redirect);
                for name in interfaces {
                    self.insert(NAT, PREROUTING, 1, &format!("iifname {name}"), &redirect);
                }
            }
            List::Only(ranges) => {
                for range in self.ranges(ranges) {
                    let to = format!("{} daddr {range}", family_of(&range));
                    for name in &interfaces {
                        self.insert(NAT, PREROUTING, 1, &format!("iifname {name} {to}"), &redirect);
                    }
                    self.nat(OUTBOUND, &to, &redirect);
                }
            }
        }
    }

    /// Keeps the mark of a transparently proxied connection on the way back, and marks what the proxy sends to itself.
    fn tproxy_end(&mut self) {
        let Some(mark) = self.capture.tproxy_mark() else { return };
        let outbound_mark = mark.saturating_add(1);
        self.add(MANGLE, PREROUTING, &format!("{TCP} mark {mark}"), "ct mark set mark");
        self.add(MANGLE, OUTPUT, &format!("oifname lo {TCP} mark {mark}"), "return");
        for owner in self.owners() {
            for (family, loopback) in self.loopbacks() {
                let matched = format!("oifname lo {TCP} {family} daddr != {loopback} {}", owner.is);
                self.add(MANGLE, OUTPUT, &matched, &format!("meta mark set {outbound_mark}"));
            }
        }
        self.add(MANGLE, OUTPUT, &format!("{TCP} ct mark {mark}"), "meta mark set ct mark");
        self.insert(MANGLE, INBOUND, 1, &format!("{TCP} mark {mark}"), "return");
        for (family, source) in self.inbound_sources() {
            self.insert(MANGLE, INBOUND, 2, &format!("iifname lo {TCP} {family} saddr {source}"), "return");
        }
        self.insert(MANGLE, INBOUND, 3, &format!("iifname lo {TCP} mark != {outbound_mark}"), "return");
    }
}

fn counted(matched: &str, verdict: &str) -> String {
    if matched.is_empty() { format!("counter {verdict}") } else { format!("{matched} counter {verdict}") }
}
