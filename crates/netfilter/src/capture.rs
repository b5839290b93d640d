//! What a sidecar captures, and the rules that do it.
//!
//! Owns: the meaning of `istio-iptables`' settings. Pure: never runs a program nor reads a file. Cost: a few dozen short
//! strings.
//!
//! The proxy's own connections must pass uncaptured, else they would return to it for ever. Usually they are told by the
//! uid and gid that the proxy runs as ([`Bypass::Owner`]). In a user namespace that maps a single id the kernel refuses
//! such a match, and the proxy marks its sockets instead ([`Bypass::Mark`]).

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use crate::ruleset::{Family, Ruleset};

#[cfg(test)]
pub(crate) mod tests;

const NAT: &str = "nat";
const MANGLE: &str = "mangle";
const RAW: &str = "raw";
const INBOUND: &str = "ISTIO_INBOUND";
const REDIRECT: &str = "ISTIO_REDIRECT";
const IN_REDIRECT: &str = "ISTIO_IN_REDIRECT";
const OUTPUT: &str = "ISTIO_OUTPUT";
const OUTPUT_DNS: &str = "ISTIO_OUTPUT_DNS";
const DIVERT: &str = "ISTIO_DIVERT";
const TPROXY: &str = "ISTIO_TPROXY";
const DROP: &str = "ISTIO_DROP";

/// Everything, or just these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum List<T> {
    All,
    Only(Vec<T>),
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List::Only(Vec::new())
    }
}

/// How inbound connections reach the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interception {
    /// NAT: the peer's address is lost to the application, not to the proxy.
    #[default]
    Redirect,
    /// Transparent proxying: needs a policy route for `mark`, which [`crate::Installation`] makes.
    Tproxy { mark: u32 },
}

/// How the proxy's own packets are told from the application's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bypass {
    /// By owner of the socket, each a number or a name.
    Owner { uids: Vec<String>, gids: Vec<String> },
    /// By `SO_MARK`.
    Mark(u32),
}

/// Which DNS queries the proxy answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Dns {
    #[default]
    Off,
    /// Only those to these servers.
    Servers(Vec<IpAddr>),
    /// Every query, whatever the server.
    All,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    pub outbound_port: u16,
    pub inbound_port: u16,
    pub tunnel_port: u16,
    pub dns_port: u16,
    pub bypass: Bypass,
    pub interception: Interception,
    pub inbound_ports: List<u16>,
    pub inbound_ports_exclude: Vec<u16>,
    pub outbound_ports: Vec<u16>,
    pub outbound_ports_exclude: Vec<u16>,
    pub outbound_ranges: List<IpNet>,
    pub outbound_ranges_exclude: Vec<IpNet>,
    /// Groups whose traffic is captured; with [`List::All`], all but `owner_groups_exclude`.
    pub owner_groups: List<String>,
    pub owner_groups_exclude: Vec<String>,
    /// Interfaces of virtual machines whose inbound traffic counts as outbound.
    pub virtual_interfaces: Vec<String>,
    pub exclude_interfaces: Vec<String>,
    pub dns: Dns,
    pub drop_invalid: bool,
    /// The IPv4 range that never leaves the host.
    pub loopback_v4: IpNet,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum CaptureError {
    #[error("{setting}: `{value}` is not a port number from 1 to 65535")]
    Port { setting: &'static str, value: String },
    #[error("{setting}: `{value}` is not an address range such as 10.0.0.0/8")]
    Range { setting: &'static str, value: String },
    #[error("{setting}: `{value}` is not a name that iptables can take")]
    Name { setting: &'static str, value: String },
    #[error("{setting}: `{value}` is not a range of IPv4 loopback addresses such as 127.0.0.1/32")]
    Loopback { setting: &'static str, value: String },
    #[error("{count} owner groups are more than the {MAX_OWNER_GROUPS} that one rule can hold")]
    OwnerGroups { count: usize },
    #[error("mark {0} leaves no mark for what the proxy sends to itself, which is one more")]
    Mark(u32),
}

/// Groups to capture are matched in one rule, and kernels bound its length. Istio's bound, too.
const MAX_OWNER_GROUPS: usize = 64;

impl Default for Capture {
    /// Istio's defaults for a sidecar, but for inbound ports, ranges and DNS, which nothing is captured of until said.
    fn default() -> Self {
        Capture {
            outbound_port: 15001,
            inbound_port: 15006,
            tunnel_port: 15008,
            dns_port: 15053,
            bypass: Bypass::Owner { uids: vec!["1337".into()], gids: vec!["1337".into()] },
            interception: Interception::Redirect,
            inbound_ports: List::default(),
            inbound_ports_exclude: Vec::new(),
            outbound_ports: Vec::new(),
            outbound_ports_exclude: Vec::new(),
            outbound_ranges: List::default(),
            outbound_ranges_exclude: Vec::new(),
            owner_groups: List::All,
            owner_groups_exclude: Vec::new(),
            virtual_interfaces: Vec::new(),
            exclude_interfaces: Vec::new(),
            dns: Dns::Off,
            drop_invalid: false,
            loopback_v4: IpNet::new_assert(IpAddr::from([127, 0, 0, 1]), 32),
        }
    }
}

fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

impl Capture {
    /// A comma-separated list of ports; `setting` names it in the error.
    pub fn parse_ports(setting: &'static str, text: &str) -> Result<Vec<u16>, CaptureError> {
        entries(text)
            .map(|entry| match entry.parse::<u16>() {
                Ok(port) if port != 0 => Ok(port),
                _ => Err(CaptureError::Port { setting, value: entry.to_owned() }),
            })
            .collect()
    }

    /// As [`Capture::parse_ports`], where `*` means all.
    pub fn parse_port_list(setting: &'static str, text: &str) -> Result<List<u16>, CaptureError> {
        if text.trim() == "*" { Ok(List::All) } else { Self::parse_ports(setting, text).map(List::Only) }
    }

    /// A comma-separated list of ranges; a lone address is the range that holds only it.
    pub fn parse_ranges(setting: &'static str, text: &str) -> Result<Vec<IpNet>, CaptureError> {
        entries(text)
            .map(|entry| {
                IpNet::from_str(entry)
                    .or_else(|_| IpAddr::from_str(entry).map(IpNet::from))
                    .map_err(|_| CaptureError::Range { setting, value: entry.to_owned() })
            })
            .collect()
    }

    /// As [`Capture::parse_ranges`], where `*` means all.
    pub fn parse_range_list(setting: &'static str, text: &str) -> Result<List<IpNet>, CaptureError> {
        if text.trim() == "*" { Ok(List::All) } else { Self::parse_ranges(setting, text).map(List::Only) }
    }

    /// A comma-separated list of users, groups or interfaces: letters, digits, and `._-@+`, not starting with a dash.
    pub fn parse_names(setting: &'static str, text: &str) -> Result<Vec<String>, CaptureError> {
        entries(text)
            .map(|entry| {
                let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
                if entry.starts_with('-') || !entry.chars().all(allowed) {
                    return Err(CaptureError::Name { setting, value: entry.to_owned() });
                }
                Ok(entry.to_owned())
            })
            .collect()
    }

    /// The range of addresses that stand for this host, each of them in 127.0.0.0/8.
    pub fn parse_loopback(setting: &'static str, text: &str) -> Result<IpNet, CaptureError> {
        let range: Option<IpNet> = text.trim().parse().ok();
        let within = |range: &IpNet| range.addr().is_ipv4() && range.addr().is_loopback() && range.prefix_len() >= 8;
        range.filter(within).ok_or_else(|| CaptureError::Loopback { setting, value: text.to_owned() })
    }

    /// What no single setting can be refused for.
    pub fn check(&self) -> Result<(), CaptureError> {
        if let List::Only(groups) = &self.owner_groups
            && groups.len() > MAX_OWNER_GROUPS
        {
            return Err(CaptureError::OwnerGroups { count: groups.len() });
        }
        match self.tproxy_mark() {
            Some(u32::MAX) => Err(CaptureError::Mark(u32::MAX)),
            _ => Ok(()),
        }
    }

    /// The rules for one family, in Istio's order.
    pub fn rules(&self, family: Family) -> Ruleset {
        let mut build = Build { capture: self, family, rules: Ruleset::default() };
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

    pub(crate) fn captures_dns(&self) -> bool {
        match &self.dns {
            Dns::Off => false,
            Dns::Servers(servers) => !servers.is_empty(),
            Dns::All => true,
        }
    }

    pub(crate) fn captures_loopback(&self) -> bool {
        match &self.outbound_ranges {
            List::All => false,
            List::Only(ranges) => ranges.iter().any(|range| range.addr().is_loopback()),
        }
    }

    pub(crate) fn tproxy_mark(&self) -> Option<u32> {
        match self.interception {
            Interception::Redirect => None,
            Interception::Tproxy { mark } => Some(mark),
        }
    }
}

/// One family's rules while they are being made.
struct Build<'a> {
    capture: &'a Capture,
    family: Family,
    rules: Ruleset,
}

/// One way by which a packet is known as the proxy's: the match, and its negation.
struct Owner {
    is: String,
    is_not: String,
    /// Queries to a resolver on loopback must not be taken for inbound traffic; Istio exempts them for uids alone.
    exempts_dns: bool,
}

impl Build<'_> {
    fn nat(&mut self, chain: &'static str, words: impl Into<String>) {
        self.rules.append(NAT, chain, words);
    }

    fn mangle(&mut self, chain: &'static str, words: impl Into<String>) {
        self.rules.append(MANGLE, chain, words);
    }

    fn loopback(&self) -> String {
        match self.family {
            Family::V4 => {
                let range = &self.capture.loopback_v4;
                format!("{}/{}", range.addr(), range.prefix_len())
            }
            Family::V6 => "::1/128".to_owned(),
        }
    }

    /// The address that the proxy binds when it passes an inbound connection on to the application.
    fn inbound_source(&self) -> &'static str {
        match self.family {
            Family::V4 => "127.0.0.6/32",
            Family::V6 => "::6/128",
        }
    }

    fn ours(&self, range: &IpNet) -> bool {
        matches!((self.family, range), (Family::V4, IpNet::V4(_)) | (Family::V6, IpNet::V6(_)))
    }

    fn owners(&self) -> Vec<Owner> {
        match &self.capture.bypass {
            Bypass::Owner { uids, gids } => {
                let owner = |kind: &str, id: &String, exempts_dns| Owner {
                    is: format!("-m owner --{kind}-owner {id}"),
                    is_not: format!("-m owner ! --{kind}-owner {id}"),
                    exempts_dns,
                };
                let uids = uids.iter().map(|id| owner("uid", id, true));
                uids.chain(gids.iter().map(|id| owner("gid", id, false))).collect()
            }
            Bypass::Mark(mark) => vec![Owner {
                is: format!("-m mark --mark {mark:#x}"),
                is_not: format!("-m mark ! --mark {mark:#x}"),
                exempts_dns: true,
            }],
        }
    }

    fn interfaces(&mut self) {
        let capture = self.capture;
        for interface in &capture.exclude_interfaces {
            self.nat("PREROUTING", format!("-i {interface} -j RETURN"));
            self.nat("OUTPUT", format!("-o {interface} -j RETURN"));
            if capture.tproxy_mark().is_some() {
                self.mangle("PREROUTING", format!("-i {interface} -j RETURN"));
                self.mangle("OUTPUT", format!("-o {interface} -j RETURN"));
            }
        }
        for interface in &capture.virtual_interfaces {
            self.rules.insert(NAT, "PREROUTING", 1, format!("-i {interface} -j RETURN"));
        }
        if capture.drop_invalid {
            self.mangle("PREROUTING", format!("-m conntrack --ctstate INVALID -j {DROP}"));
            self.mangle(DROP, "-j DROP");
        }
    }

    fn redirects(&mut self) {
        let capture = self.capture;
        self.nat(INBOUND, format!("-p tcp --dport {} -j RETURN", capture.tunnel_port));
        self.nat(REDIRECT, format!("-p tcp -j REDIRECT --to-ports {}", capture.outbound_port));
        self.nat(IN_REDIRECT, format!("-p tcp -j REDIRECT --to-ports {}", capture.inbound_port));
    }

    fn inbound(&mut self) {
        let capture = self.capture;
        if capture.inbound_ports == List::Only(Vec::new()) {
            return;
        }
        let table = match capture.tproxy_mark() {
            None => NAT,
            Some(mark) => {
                self.mangle(DIVERT, format!("-j MARK --set-mark {mark}"));
                self.mangle(DIVERT, "-j ACCEPT");
                let (loopback, port) = (self.loopback(), capture.inbound_port);
                let target = format!("TPROXY --tproxy-mark {mark}/0xffffffff --on-port {port}");
                self.mangle(TPROXY, format!("! -d {loopback} -p tcp -j {target}"));
                MANGLE
            }
        };
        self.rules.append(table, "PREROUTING", format!("-p tcp -j {INBOUND}"));
        match &capture.inbound_ports {
            List::All => {
                for port in &capture.inbound_ports_exclude {
                    self.rules.append(table, INBOUND, format!("-p tcp --dport {port} -j RETURN"));
                }
                self.inbound_match("-p tcp");
            }
            List::Only(ports) => ports.iter().for_each(|port| self.inbound_match(&format!("-p tcp --dport {port}"))),
        }
    }

    fn inbound_match(&mut self, matched: &str) {
        if self.capture.tproxy_mark().is_none() {
            return self.nat(INBOUND, format!("{matched} -j {IN_REDIRECT}"));
        }
        self.mangle(INBOUND, format!("{matched} -m conntrack --ctstate RELATED,ESTABLISHED -j {DIVERT}"));
        self.mangle(INBOUND, format!("{matched} -j {TPROXY}"));
    }

    fn outbound_start(&mut self) {
        self.nat("OUTPUT", format!("-j {OUTPUT}"));
        for port in &self.capture.outbound_ports_exclude {
            self.nat(OUTPUT, format!("-p tcp --dport {port} -j RETURN"));
            self.nat(OUTPUT, format!("-p udp --dport {port} -j RETURN"));
        }
        self.nat(OUTPUT, format!("-o lo -s {} -j RETURN", self.inbound_source()));
    }

    /// The proxy calling its own workload's address goes in by the inbound listener; all else of the proxy passes.
    fn bypass(&mut self) {
        let capture = self.capture;
        let (loopback, tunnel) = (self.loopback(), capture.tunnel_port);
        for owner in self.owners() {
            let ports = if capture.captures_dns() && owner.exempts_dns {
                format!("-m multiport ! --dports 53,{tunnel}")
            } else {
                format!("! --dport {tunnel}")
            };
            self.nat(OUTPUT, format!("-o lo ! -d {loopback} -p tcp {ports} {} -j {IN_REDIRECT}", owner.is));
            if !capture.captures_loopback() {
                let dns = if capture.captures_dns() { "-p tcp ! --dport 53 " } else { "" };
                self.nat(OUTPUT, format!("-o lo {dns}{} -j RETURN", owner.is_not));
            }
            self.nat(OUTPUT, format!("{} -j RETURN", owner.is));
        }
    }

    fn owner_groups(&mut self) {
        let capture = self.capture;
        match &capture.owner_groups {
            List::All => {
                for group in &capture.owner_groups_exclude {
                    self.nat(OUTPUT, format!("-m owner --gid-owner {group} -j RETURN"));
                }
            }
            List::Only(groups) => {
                let each: Vec<_> = groups.iter().map(|group| format!("-m owner ! --gid-owner {group}")).collect();
                if !each.is_empty() {
                    self.nat(OUTPUT, format!("{} -j RETURN", each.join(" ")));
                }
            }
        }
    }

    /// The matches on a query's destination and on its answer's source.
    fn dns_servers(&self) -> Vec<(String, String)> {
        match &self.capture.dns {
            Dns::Off => Vec::new(),
            Dns::All => vec![(String::new(), String::new())],
            Dns::Servers(servers) => servers
                .iter()
                .map(|server| IpNet::from(*server))
                .filter(|server| self.ours(server))
                .map(|server| (format!(" -d {server}"), format!(" -s {server}")))
                .collect(),
        }
    }

    fn dns(&mut self) {
        if !self.capture.captures_dns() {
            return;
        }
        let (servers, port) = (self.dns_servers(), self.capture.dns_port);
        if !servers.is_empty() {
            self.nat(OUTPUT, format!("-j {OUTPUT_DNS}"));
        }
        for (to, _) in &servers {
            self.nat(OUTPUT_DNS, format!("-p tcp --dport 53{to} -j REDIRECT --to-ports {port}"));
        }
        for (to, _) in &servers {
            self.nat(OUTPUT_DNS, format!("-p udp --dport 53{to} -j REDIRECT --to-port {port}"));
        }
        // The proxy's own query and the one it answers may have the same addresses and ports: two zones of connection
        // tracking keep them apart.
        self.rules.append(RAW, "OUTPUT", format!("-j {OUTPUT_DNS}"));
        for owner in self.owners() {
            self.rules.append(RAW, OUTPUT_DNS, format!("-p udp --dport 53 {} -j CT --zone 1", owner.is));
            self.rules.append(RAW, OUTPUT_DNS, format!("-p udp --sport {port} {} -j CT --zone 2", owner.is));
        }
        if !servers.is_empty() {
            self.rules.append(RAW, "PREROUTING", format!("-j {INBOUND}"));
        }
        for (to, from) in &servers {
            self.rules.append(RAW, OUTPUT_DNS, format!("-p udp --dport 53{to} -j CT --zone 2"));
            self.rules.append(RAW, INBOUND, format!("-p udp --sport 53{from} -j CT --zone 1"));
        }
    }

    fn outbound_end(&mut self) {
        let capture = self.capture;
        self.nat(OUTPUT, format!("-d {} -j RETURN", self.loopback()));
        for range in capture.outbound_ranges_exclude.iter().filter(|range| self.ours(range)).collect::<Vec<_>>() {
            self.nat(OUTPUT, format!("-d {range} -j RETURN"));
        }
        for port in &capture.outbound_ports {
            self.nat(OUTPUT, format!("-p tcp --dport {port} -j {REDIRECT}"));
        }
        match &capture.outbound_ranges {
            List::All => {
                self.nat(OUTPUT, format!("-j {REDIRECT}"));
                for interface in &capture.virtual_interfaces {
                    self.rules.insert(NAT, "PREROUTING", 1, format!("-i {interface} -j {REDIRECT}"));
                }
            }
            List::Only(ranges) => {
                for range in ranges.iter().filter(|range| self.ours(range)).collect::<Vec<_>>() {
                    for interface in &capture.virtual_interfaces {
                        let words = format!("-i {interface} -d {range} -j {REDIRECT}");
                        self.rules.insert(NAT, "PREROUTING", 1, words);
                    }
                    self.nat(OUTPUT, format!("-d {range} -j {REDIRECT}"));
                }
            }
        }
    }

    /// Keeps the mark of a transparently proxied connection on the way back, and marks what the proxy sends to itself.
    fn tproxy_end(&mut self) {
        let Some(mark) = self.capture.tproxy_mark() else { return };
        let (loopback, source, outbound_mark) = (self.loopback(), self.inbound_source(), mark.saturating_add(1));
        self.mangle("PREROUTING", format!("-p tcp -m mark --mark {mark} -j CONNMARK --save-mark"));
        self.mangle("OUTPUT", format!("-p tcp -o lo -m mark --mark {mark} -j RETURN"));
        for owner in self.owners() {
            let words = format!("! -d {loopback} -p tcp -o lo {} -j MARK --set-mark {outbound_mark}", owner.is);
            self.mangle("OUTPUT", words);
        }
        self.mangle("OUTPUT", format!("-p tcp -m connmark --mark {mark} -j CONNMARK --restore-mark"));
        let first = [
            format!("-p tcp -m mark --mark {mark} -j RETURN"),
            format!("-p tcp -s {source} -i lo -j RETURN"),
            format!("-p tcp -i lo -m mark ! --mark {outbound_mark} -j RETURN"),
        ];
        for (position, words) in (1..).zip(first) {
            self.rules.insert(MANGLE, INBOUND, position, words);
        }
    }
}
