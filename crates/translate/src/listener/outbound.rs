//! What leaves the workload: a listener for each address and port that the sidecar can be asked for, and `virtualOutbound`
//! for all else.
//!
//! Owns Istio's conflict rules, which are visible to users: HTTP services of a port share one listener, TCP services have one
//! for each address, and where the two meet on one address the protocol is sniffed. The services come in the order in which
//! conflicts are settled, the oldest first.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use meltemi_config::networking::{CaptureMode, VirtualService};
use meltemi_model::{
    ConfigRef, EgressListener, InterceptionMode, OutboundPolicy, Protocol, RegistryKind, Resolution, Service, Shared,
};

use super::spec::{Chain, Class, Http, Listener, ListenerFilter, Match, Ports, RouteSource, Tcp, Terminal, Transport};
use super::{AGENT_PORTS, is_capture_port, is_forbidden, tcp};
use crate::dynamic_dns::{self, DnsCache};
use crate::names;
use crate::security::Security;
use crate::view::View;

pub fn listeners(view: &View<'_>) -> Vec<Listener> {
    let mut table = Table { view, entries: BTreeMap::new() };
    for egress in &view.scope.egress {
        table.add_egress(egress);
    }
    let mut listeners = table.into_listeners();
    listeners.extend(explicit_proxy(view));
    if view.node.interception_mode() != InterceptionMode::None {
        listeners.push(virtual_outbound(view));
    }
    listeners
}

/// What a listener was first made for; it decides how a second service may join it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Tcp(Protocol),
    /// Sniffed, or already shared by several kinds.
    Mixed,
}

impl Kind {
    fn of(protocol: Protocol) -> Option<Self> {
        match protocol {
            Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => Some(Self::Http),
            Protocol::Auto => Some(Self::Mixed),
            Protocol::Udp | Protocol::Hbone => None,
            Protocol::Tcp | Protocol::Https | Protocol::Tls | Protocol::Mongo | Protocol::Redis | Protocol::MySql => {
                Some(Self::Tcp(protocol))
            }
        }
    }

    /// Protocols in which the server speaks first cannot share a listener with others.
    fn is_server_first(self) -> bool {
        matches!(self, Self::Tcp(Protocol::Mongo | Protocol::MySql))
    }
}

struct Entry {
    binds: Vec<String>,
    bind_to_port: bool,
    kind: Kind,
    chains: Vec<Chain>,
    /// Declared by an earlier egress listener of the Sidecar: nothing joins it.
    locked: bool,
    /// Services whose hosts are those that requests name.
    resolves: Vec<DnsCache>,
}

/// One port of one service on the addresses that an egress listener gives it.
struct Offer<'a> {
    service: &'a Service,
    port: u32,
    protocol: Protocol,
    binds: Vec<String>,
    bind_to_port: bool,
    cidrs: Vec<String>,
    /// Of a headless service, where they share a listener and are told apart by chains.
    instances: BTreeSet<String>,
    rules: &'a [ConfigRef<VirtualService>],
    /// A port that speaks HTTP whatever comes: nothing is sniffed.
    http_proxy: bool,
}

struct Table<'a> {
    view: &'a View<'a>,
    entries: BTreeMap<(String, u32), Entry>,
}

impl<'a> Table<'a> {
    fn add_egress(&mut self, egress: &'a EgressListener) {
        let no_capture = self.view.node.interception_mode() == InterceptionMode::None;
        let bind_to_port = no_capture || egress.capture_mode == CaptureMode::None || egress.bind.starts_with("unix:");
        let binds: Vec<String> = if !egress.bind.is_empty() {
            vec![egress.bind.to_string()]
        } else if bind_to_port {
            self.view.profile.addresses.loopbacks().iter().map(ToString::to_string).collect()
        } else {
            Vec::new()
        };
        let offer = |service: &'a Shared<Service>, port: u32, protocol: Protocol| Offer {
            service,
            port,
            protocol,
            binds: binds.clone(),
            bind_to_port,
            cidrs: Vec::new(),
            instances: BTreeSet::new(),
            rules: &egress.virtual_services,
            http_proxy: egress.is_http_proxy(),
        };
        match &egress.port {
            Some(port) => {
                let protocol = if egress.is_http_proxy() { Protocol::Http } else { Protocol::parse(&port.protocol) };
                for service in &egress.services {
                    self.add(offer(service, port.number, protocol));
                }
            }
            None => {
                self.entries.values_mut().for_each(|entry| entry.locked = true);
                for service in &egress.services {
                    for port in &service.ports {
                        self.add_port(offer(service, port.number, port.protocol));
                    }
                }
            }
        }
    }

    /// A headless service has no address: TCP is told apart by the address of the instance.
    fn add_port(&mut self, offer: Offer<'a>) {
        let kind = Kind::of(offer.protocol);
        let per_instance = offer.binds.is_empty()
            && offer.service.resolution == Resolution::Passthrough
            && self.view.addresses(offer.service).is_empty()
            && matches!(kind, Some(Kind::Tcp(_) | Kind::Mixed));
        if !per_instance {
            return self.add(offer);
        }
        let instances = self.instance_addresses(&offer);
        let declared_open = offer.service.registry != RegistryKind::Kubernetes && offer.service.selector.is_empty();
        if instances.is_empty() && declared_open {
            return self.add(offer);
        }
        // Where the protocol is sniffed, a chain's range would come before what was sniffed.
        if self.view.snapshot.options.headless_filter_chains && matches!(kind, Some(Kind::Tcp(_))) {
            if !instances.is_empty() {
                let binds = self.view.profile.addresses.wildcards().iter().map(ToString::to_string).collect();
                self.add(Offer { binds, instances: instances.into_iter().collect(), ..offer });
            }
            return;
        }
        for address in instances {
            self.add(Offer { binds: vec![address], cidrs: Vec::new(), ..offer.clone_shape() });
        }
    }

    fn instance_addresses(&self, offer: &Offer<'_>) -> Vec<String> {
        let own = &self.view.node.ip_addresses;
        let port = offer.service.port(offer.port).map(|port| port.name.clone()).unwrap_or_default();
        let endpoints = self.view.snapshot.endpoints.of(&offer.service.key()).iter();
        endpoints
            .filter(|endpoint| endpoint.port(&port).is_some())
            .filter_map(|endpoint| endpoint.address.host())
            .filter(|address| address.parse::<std::net::IpAddr>().is_ok() && !own.contains(address))
            .map(ToString::to_string)
            .collect()
    }

    fn add(&mut self, mut offer: Offer<'a>) {
        let Some(kind) = Kind::of(offer.protocol).filter(|_| offer.service.resolution != Resolution::Alias) else {
            return;
        };
        if self.is_reserved(&offer, kind) {
            return;
        }
        if !offer.binds.is_empty() {
            return self.place(&offer, kind);
        }
        let wildcards = || self.view.profile.addresses.wildcards().iter().map(ToString::to_string).collect();
        if kind == Kind::Http {
            offer.binds = wildcards();
            return self.place(&offer, kind);
        }
        let addresses = self.view.addresses(offer.service);
        let (ranges, addresses): (Vec<_>, Vec<_>) =
            addresses.iter().map(|address| single(address)).partition(|address| address.contains('/'));
        // Declared addresses stand for themselves; those of a Kubernetes Service are one address in two families.
        let groups: Vec<Vec<String>> = match offer.service.registry {
            RegistryKind::External => addresses.into_iter().map(|address| vec![address]).collect(),
            RegistryKind::Kubernetes if addresses.is_empty() => Vec::new(),
            RegistryKind::Kubernetes => vec![addresses],
        };
        if groups.is_empty() && ranges.is_empty() {
            offer.binds = wildcards();
            return self.place(&offer, kind);
        }
        for binds in groups {
            offer.binds = binds;
            self.place(&offer, kind);
        }
        for range in ranges {
            offer.binds = self.view.profile.addresses.wildcards().iter().map(ToString::to_string).collect();
            offer.cidrs = vec![range];
            self.place(&offer, kind);
        }
    }

    fn is_reserved(&self, offer: &Offer<'_>, kind: Kind) -> bool {
        if offer.bind_to_port && is_forbidden(self.view.node, offer.port) {
            return true;
        }
        let wildcard = self.view.profile.addresses.wildcards()[0];
        let on_wildcard = match offer.binds.first() {
            Some(bind) => bind == wildcard,
            None => kind == Kind::Http,
        };
        on_wildcard && (AGENT_PORTS.contains(&offer.port) || is_capture_port(self.view, offer.port))
    }

    fn place(&mut self, offer: &Offer<'_>, kind: Kind) {
        let Some(primary) = offer.binds.first() else { return };
        let key = (primary.clone(), offer.port);
        let current = match self.entries.get(&key) {
            Some(entry) if entry.locked => return,
            Some(entry) => Some(entry.kind),
            None => None,
        };
        if current.is_some_and(|current| clash(current, kind)) {
            return;
        }
        let wildcard = self.view.profile.addresses.wildcards()[0];
        let http = || http_chain(offer, wildcard);
        let tcp = || self.tcp_chains(offer);
        let (chains, replaces, kind_after) = match (kind, current) {
            // Virtual hosts tell HTTP services apart, so the first one's listener serves them all.
            (Kind::Http, Some(Kind::Http | Kind::Mixed)) => return self.resolve(&key, offer, kind),
            (Kind::Http, None) if primary != wildcard || offer.http_proxy => (vec![http()], true, Kind::Http),
            (Kind::Http, None) => (vec![sniffed(http())], true, Kind::Mixed),
            (Kind::Http, Some(Kind::Tcp(_))) => {
                let chain = if primary == wildcard { sniffed(http()) } else { http() };
                (vec![chain], false, Kind::Mixed)
            }
            (Kind::Tcp(_), None) => (tcp(), true, kind),
            (Kind::Tcp(_), Some(Kind::Http)) => (tcp(), false, Kind::Mixed),
            (Kind::Tcp(_), Some(current)) => (tcp(), false, current),
            (Kind::Mixed, Some(Kind::Mixed)) => (tcp(), false, Kind::Mixed),
            (Kind::Mixed, current) => {
                let mut chains = tcp();
                chains.push(sniffed(http()));
                (chains, matches!(current, None | Some(Kind::Http)), Kind::Mixed)
            }
        };
        if replaces {
            let entry = Entry {
                binds: offer.binds.clone(),
                bind_to_port: offer.bind_to_port,
                kind: kind_after,
                chains,
                locked: false,
                resolves: Vec::new(),
            };
            self.entries.insert(key.clone(), entry);
        } else if let Some(entry) = self.entries.get_mut(&key) {
            entry.kind = kind_after;
            merge(&mut entry.chains, chains);
        }
        self.resolve(&key, offer, kind);
    }

    /// The HTTP chains of a listener resolve for all services that joined it.
    fn resolve(&mut self, key: &(String, u32), offer: &Offer<'_>, kind: Kind) {
        if kind == Kind::Http
            && dynamic_dns::is_dynamic(offer.service)
            && let Some(entry) = self.entries.get_mut(key)
        {
            let node = self.view.node;
            entry.resolves.push(DnsCache::of_service(offer.service, node.has_ipv4(), node.has_ipv6()));
        }
    }

    fn tcp_chains(&self, offer: &Offer<'_>) -> Vec<Chain> {
        let port = |cidrs, per_instance| tcp::Port {
            service: offer.service,
            number: offer.port,
            protocol: offer.protocol,
            bind: offer.binds.first().map_or("", |bind| bind),
            cidrs,
            per_instance,
        };
        if offer.instances.is_empty() {
            return tcp::chains(self.view, &port(&offer.cidrs, false), offer.rules);
        }
        let instances = offer.instances.iter();
        instances.flat_map(|own| tcp::chains(self.view, &port(std::slice::from_ref(own), true), offer.rules)).collect()
    }

    fn into_listeners(self) -> Vec<Listener> {
        let view = self.view;
        self.entries.into_iter().map(|((primary, port), entry)| finish(view, &primary, port, entry)).collect()
    }
}

impl<'a> Offer<'a> {
    /// The same service and port, for another address.
    fn clone_shape(&self) -> Self {
        Self {
            service: self.service,
            port: self.port,
            protocol: self.protocol,
            binds: Vec::new(),
            bind_to_port: self.bind_to_port,
            cidrs: Vec::new(),
            instances: BTreeSet::new(),
            rules: self.rules,
            http_proxy: self.http_proxy,
        }
    }
}

/// A range of one address is that address.
fn single(address: &str) -> String {
    let whole = if address.contains(':') { "/128" } else { "/32" };
    address.strip_suffix(whole).unwrap_or(address).to_owned()
}

fn clash(current: Kind, new: Kind) -> bool {
    current != new && (current.is_server_first() || new.is_server_first())
}

/// Adds the chains that no chain already there would shadow.
fn merge(chains: &mut Vec<Chain>, new: Vec<Chain>) {
    let mut known: HashSet<_> = chains.iter().map(|chain| identity(&chain.matches)).collect();
    for chain in new {
        if known.insert(identity(&chain.matches)) {
            chains.push(chain);
        }
    }
}

/// What two chains of a listener may not have in common.
fn identity(matches: &Match) -> (Option<Transport>, Vec<&'static str>, Vec<String>, Vec<ipnet::IpNet>) {
    let mut names: Vec<_> = matches.server_names.iter().filter(|name| *name != "*").cloned().collect();
    names.sort();
    let mut ranges: Vec<_> = matches.prefixes.iter().filter_map(|text| normalized(text)).collect();
    ranges.sort();
    (matches.transport, matches.application_protocols.clone(), names, ranges)
}

/// A range by its network; the whole address space is no restriction.
fn normalized(text: &str) -> Option<ipnet::IpNet> {
    let net =
        text.parse::<ipnet::IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from)).ok()?;
    (!net.addr().is_unspecified()).then(|| net.trunc())
}

fn http_chain(offer: &Offer<'_>, wildcard: &str) -> Chain {
    let bind = offer.binds.first().map_or("", |bind| bind);
    let route = if offer.port == 0 {
        bind.to_owned()
    } else if offer.protocol.is_sniffed() && bind != wildcard {
        // The listener is the service's own, so its routes are too.
        names::domain(&offer.service.hostname, offer.port)
    } else {
        offer.port.to_string()
    };
    let stat_prefix = format!("outbound_{};", names::listener(bind, offer.port));
    http(route, stat_prefix, offer.protocol == Protocol::GrpcWeb)
}

fn http(route: String, stat_prefix: String, grpc_web: bool) -> Chain {
    Chain {
        name: String::new(),
        matches: Match::default(),
        tls: None,
        exchange_metadata: false,
        report: false,
        terminal: Terminal::Http(Http {
            route: RouteSource::Rds(route),
            stat_prefix,
            use_remote_address: false,
            grpc_web,
            http2: false,
            explicit_proxy: false,
            resolves: Vec::new(),
        }),
        origin: None,
    }
}

/// Only what the HTTP inspector recognised.
fn sniffed(mut chain: Chain) -> Chain {
    chain.matches.application_protocols = super::PLAINTEXT_HTTP.to_vec();
    chain.matches.transport = Some(Transport::RawBuffer);
    chain
}

fn finish(view: &View<'_>, primary: &str, port: u32, mut entry: Entry) -> Listener {
    for chain in &mut entry.chains {
        if let Terminal::Http(http) = &mut chain.terminal {
            http.resolves.extend(entry.resolves.iter().cloned().chain(unclaimed_cache(view)));
        }
    }
    let has_sni = entry.chains.iter().any(|chain| !chain.matches.server_names.is_empty());
    let has_http = entry.chains.iter().any(|chain| !chain.matches.application_protocols.is_empty());
    let mut filters = Vec::new();
    if has_sni {
        filters.push(ListenerFilter::TlsInspector(Ports::All));
    }
    if has_http {
        filters.push(ListenerFilter::HttpInspector(Ports::All));
    }
    let (mut rest, mut matching): (Vec<_>, Vec<_>) =
        entry.chains.into_iter().map(normalize).partition(|chain| chain.matches.is_empty());
    // What matches everything is the fallback, so that a connection that fits a chain by one field only is not dropped.
    let mut default_chain = rest.pop();
    if matching.is_empty() {
        matching.extend(default_chain.take());
    }
    let is_exhaustive = matching.iter().any(|chain| chain.matches.is_empty());
    let fallback = || tcp::named(names::PASSTHROUGH_FILTER_CHAIN, Match::default(), fallback(view));
    let default_chain = default_chain.or_else(|| (!is_exhaustive).then(fallback));
    Listener {
        name: names::listener(primary, port).into(),
        profile: view.profile.clone(),
        class: Class::SidecarOutbound,
        security: Security::none(),
        binds: entry.binds,
        port,
        bind_to_port: entry.bind_to_port,
        quic: false,
        use_original_dst: false,
        transparent: false,
        filters,
        filters_timeout: if has_http { view.profile.protocol_detection_timeout } else { Some(Duration::ZERO) },
        continue_on_filters_timeout: true,
        chains: matching,
        default_chain,
    }
}

/// `*` as a server name restricts nothing, nor does the unspecified address as a range.
fn normalize(mut chain: Chain) -> Chain {
    let matches = &mut chain.matches;
    if matches.server_names.iter().any(|name| name == "*") {
        matches.server_names.clear();
    }
    matches.server_names.sort();
    matches.prefixes.retain(|text| normalized(text).is_some());
    matches.prefixes.sort();
    chain
}

/// The cache of hosts that no service claims, where they are resolved.
fn unclaimed_cache(view: &View<'_>) -> Option<DnsCache> {
    let dynamic = view.scope.outbound_policy == OutboundPolicy::AllowAnyDynamicDns;
    dynamic.then(|| DnsCache::allow_any(view.node))
}

/// Where a connection goes that no service claims.
fn fallback(view: &View<'_>) -> Tcp {
    let cluster = fallback_cluster(view).unwrap_or_else(|| names::BLACK_HOLE_CLUSTER.into());
    Tcp { idle_timeout: view.profile.idle_timeout, ..Tcp::to(cluster) }
}

/// The cluster of what no service claims, unless that is refused.
pub fn fallback_cluster(view: &View<'_>) -> Option<String> {
    if view.scope.outbound_policy == OutboundPolicy::RegistryOnly {
        return None;
    }
    let policy = view.scope.spec().and_then(|sidecar| sidecar.outbound_traffic_policy.as_ref());
    match policy.and_then(|policy| policy.egress_proxy.as_ref()) {
        Some(proxy) => Some(crate::view::destination_cluster(proxy, None, 0)),
        None => Some(names::PASSTHROUGH_CLUSTER.into()),
    }
}

fn virtual_outbound(view: &View<'_>) -> Listener {
    let mesh = &view.snapshot.mesh;
    let port = u32::try_from(mesh.proxy_listen_port).unwrap_or_default();
    // A connection to the capture port itself would come back to it for ever.
    let trap = Match { destination_port: Some(port), ..Match::default() };
    let mut chains = vec![tcp::named(names::VIRTUAL_OUTBOUND_TRAP, trap, Tcp::trap())];
    let http = unclaimed_http(view);
    let sniffs = http.is_some();
    chains.extend(http);
    chains.push(tcp::named(names::VIRTUAL_OUTBOUND_CATCH_ALL_TCP, Match::default(), fallback(view)));
    Listener {
        name: names::VIRTUAL_OUTBOUND.into(),
        profile: view.profile.clone(),
        class: Class::SidecarOutbound,
        security: Security::none(),
        binds: view.profile.addresses.wildcards().iter().map(ToString::to_string).collect(),
        port,
        bind_to_port: true,
        quic: false,
        use_original_dst: true,
        transparent: view.node.interception_mode() == InterceptionMode::Tproxy,
        filters: if sniffs { vec![ListenerFilter::HttpInspector(Ports::All)] } else { Vec::new() },
        // Where the server speaks first the inspector waits in vain.
        filters_timeout: view.profile.protocol_detection_timeout.filter(|_| sniffs),
        continue_on_filters_timeout: sniffs,
        chains,
        default_chain: None,
    }
}

/// Plaintext HTTP that no listener claims, where its hosts are resolved.
fn unclaimed_http(view: &View<'_>) -> Option<Chain> {
    let cache = unclaimed_cache(view)?;
    let stat_prefix = format!("outbound_{}_{};", names::VIRTUAL_OUTBOUND, names::ALLOW_ANY_DYNAMIC_DNS);
    let mut chain = http(String::new(), stat_prefix, false);
    chain.name = names::VIRTUAL_OUTBOUND_CATCH_ALL_HTTP.into();
    chain.matches.application_protocols = super::PLAINTEXT_HTTP.to_vec();
    if let Terminal::Http(http) = &mut chain.terminal {
        http.route = RouteSource::Inline(Box::new(crate::route::unclaimed(view)));
        http.resolves.push(cache);
    }
    Some(chain)
}

/// The port on which applications that know of it speak to the proxy as such.
fn explicit_proxy(view: &View<'_>) -> Option<Listener> {
    let own = view.node.text("HTTP_PROXY_PORT").and_then(|text| text.parse::<u32>().ok());
    let port = own.or_else(|| u32::try_from(view.snapshot.mesh.proxy_http_port).ok()).filter(|port| *port != 0)?;
    let bind = view.profile.addresses.loopbacks()[0];
    let stat_prefix = format!("outbound_{};", names::listener(bind, port));
    let mut chain = http(names::HTTP_PROXY_ROUTE.into(), stat_prefix, false);
    if let Terminal::Http(http) = &mut chain.terminal {
        http.explicit_proxy = true;
        http.resolves.extend(unclaimed_cache(view));
    }
    Some(Listener {
        name: names::listener(bind, port).into(),
        profile: view.profile.clone(),
        class: Class::SidecarOutbound,
        security: Security::none(),
        binds: view.profile.addresses.loopbacks().iter().map(ToString::to_string).collect(),
        port,
        bind_to_port: true,
        quic: false,
        use_original_dst: false,
        transparent: false,
        filters: Vec::new(),
        filters_timeout: Some(Duration::ZERO),
        continue_on_filters_timeout: true,
        chains: vec![chain],
        default_chain: None,
    })
}
