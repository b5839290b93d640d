use super::*;

struct Facts {
    destination: &'static str,
    source: &'static str,
    name: &'static str,
    transport: &'static str,
    protocols: &'static [&'static str],
}

const FACTS: Facts =
    Facts { destination: "10.0.0.1:80", source: "192.0.2.7:4000", name: "", transport: "raw_buffer", protocols: &[] };

fn find(chains: &[ChainCriteria], facts: &Facts) -> Option<usize> {
    let source = Some(facts.source.parse().unwrap());
    ChainMatcher::new(chains).unwrap().find(&ConnectionFacts {
        destination: Some(facts.destination.parse().unwrap()),
        source,
        direct_source: source,
        server_name: facts.name,
        transport_protocol: facts.transport,
        application_protocols: facts.protocols,
    })
}

fn any() -> ChainCriteria {
    ChainCriteria::default()
}

fn port(port: u16) -> ChainCriteria {
    ChainCriteria { destination_port: Some(port), ..any() }
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn prefix(texts: &[&str]) -> ChainCriteria {
    ChainCriteria { prefixes: nets(texts), ..any() }
}

fn server(names: &[&str]) -> ChainCriteria {
    ChainCriteria { server_names: names.iter().map(|name| Arc::from(*name)).collect(), ..any() }
}

fn transport(name: &str) -> ChainCriteria {
    ChainCriteria { transport_protocol: name.into(), ..any() }
}

fn protocols(names: &[&str]) -> ChainCriteria {
    ChainCriteria { application_protocols: names.iter().map(|name| Arc::from(*name)).collect(), ..any() }
}

fn source(kind: SourceType, prefixes: &[&str], ports: &[u16]) -> ChainCriteria {
    ChainCriteria { source_type: kind, source_prefixes: nets(prefixes), source_ports: ports.to_vec(), ..any() }
}

#[test]
fn the_most_specific_entry_of_each_level_wins() {
    let ports = [any(), port(80), port(443)];
    assert_eq!(find(&ports, &FACTS), Some(1));
    assert_eq!(find(&ports, &Facts { destination: "10.0.0.1:81", ..FACTS }), Some(0));

    let prefixes = [any(), prefix(&["10.0.0.0/8"]), prefix(&["10.0.0.0/24", "fd00::/8"])];
    assert_eq!(find(&prefixes, &FACTS), Some(2));
    assert_eq!(find(&prefixes, &Facts { destination: "10.0.1.1:80", ..FACTS }), Some(1));
    assert_eq!(find(&prefixes, &Facts { destination: "[fd00::1]:80", ..FACTS }), Some(2));
    assert_eq!(find(&prefixes, &Facts { destination: "11.0.0.1:80", ..FACTS }), Some(0));

    let names = [any(), server(&["a.b.com"]), server(&["*.b.com"]), server(&["*.com"])];
    for (name, expected) in [
        ("a.b.com", 1),
        ("x.b.com", 2),
        ("y.x.b.com", 2),
        ("x.c.com", 3),
        ("b.com", 3),
        ("com", 0),
        ("", 0),
        (".b.com", 2),
    ] {
        assert_eq!(find(&names, &Facts { name, ..FACTS }), Some(expected), "{name}");
    }

    let transports = [any(), transport("tls")];
    assert_eq!(find(&transports, &FACTS), Some(0));
    assert_eq!(find(&transports, &Facts { transport: "tls", ..FACTS }), Some(1));

    let alpn = [any(), protocols(&["h2"]), protocols(&["http/1.1", "http/1.0"])];
    assert_eq!(
        find(&alpn, &Facts { protocols: &["x", "http/1.1", "h2"], ..FACTS }),
        Some(2),
        "the client's order counts"
    );
    assert_eq!(find(&alpn, &Facts { protocols: &["x"], ..FACTS }), Some(0));
}

#[test]
fn a_miss_below_a_more_specific_entry_does_not_come_back_up() {
    let by_port = [any(), ChainCriteria { destination_port: Some(80), ..server(&["a.com"]) }];
    assert_eq!(find(&by_port, &FACTS), None, "port 80 is decided, the name is not a.com");
    let by_prefix = [any(), ChainCriteria { prefixes: nets(&["10.0.0.0/8"]), ..transport("tls") }];
    assert_eq!(find(&by_prefix, &FACTS), None);
    let by_name = [any(), ChainCriteria { server_names: vec!["a.com".into()], ..protocols(&["h2"]) }];
    assert_eq!(find(&by_name, &Facts { name: "a.com", ..FACTS }), None);
}

#[test]
fn sources_are_local_external_or_any() {
    let chains = [
        any(),
        source(SourceType::SameIpOrLoopback, &[], &[]),
        source(SourceType::External, &["192.0.2.0/24"], &[]),
        source(SourceType::External, &["192.0.2.0/24"], &[4000]),
        source(SourceType::External, &[], &[]),
    ];
    for (from, expected) in
        [("192.0.2.7:4000", 3), ("192.0.2.7:4001", 2), ("198.51.100.1:4000", 4), ("127.0.0.1:9", 1), ("10.0.0.1:9", 1)]
    {
        assert_eq!(find(&chains, &Facts { source: from, ..FACTS }), Some(expected), "{from}");
    }
    assert_eq!(find(&chains[..2], &FACTS), Some(0), "no external entry: any");
}

#[test]
fn equal_criteria_are_refused_with_the_later_chain() {
    for (one, other) in [
        (any(), any()),
        (server(&["a", "b"]), server(&["b"])),
        (prefix(&["10.0.0.0/8"]), prefix(&["10.1.2.3/8"])),
        (source(SourceType::Any, &[], &[1, 2]), source(SourceType::Any, &[], &[2])),
    ] {
        let error = ChainMatcher::new(&[one, other]).unwrap_err();
        assert_eq!(error.path, "filter_chains[1]");
    }
}

#[test]
fn a_unix_socket_matches_chains_without_addresses() {
    let matcher = ChainMatcher::new(&[prefix(&["10.0.0.0/8"]), any()]).unwrap();
    let facts = ConnectionFacts {
        destination: None,
        source: None,
        direct_source: None,
        server_name: "",
        transport_protocol: "raw_buffer",
        application_protocols: &[],
    };
    assert_eq!(matcher.find(&facts), Some(1));
}

#[test]
fn loopback_is_one_address_and_not_its_whole_network() {
    let chains = [source(SourceType::SameIpOrLoopback, &[], &[]), source(SourceType::External, &[], &[])];
    let from = |source| find(&chains, &Facts { source, ..FACTS });
    assert_eq!(from("127.0.0.1:4000"), Some(0));
    // Where Istio's captured passthrough traffic comes from.
    assert_eq!(from("127.0.0.6:4000"), Some(1));
    assert_eq!(from("10.0.0.1:4000"), Some(0), "the destination's own address");
}

#[test]
fn the_criterion_that_is_not_met_is_told() {
    let told = |criteria: ChainCriteria| {
        criteria.mismatch(&ConnectionFacts {
            destination: Some("10.0.0.1:80".parse().unwrap()),
            source: Some("192.0.2.7:4000".parse().unwrap()),
            direct_source: None,
            server_name: "a.b.c",
            transport_protocol: "tls",
            application_protocols: &["h2"],
        })
    };
    for (criteria, expected) in [
        (port(443), Some(ChainMismatch::DestinationPort)),
        (prefix(&["10.1.0.0/16"]), Some(ChainMismatch::DestinationPrefix)),
        (server(&["*.c.b", "b.c"]), Some(ChainMismatch::ServerName)),
        (transport("raw_buffer"), Some(ChainMismatch::TransportProtocol)),
        (protocols(&["http/1.1"]), Some(ChainMismatch::ApplicationProtocol)),
        (source(SourceType::External, &["10.0.0.0/8"], &[]), Some(ChainMismatch::Source)),
        (server(&["*.b.c"]), None),
        (any(), None),
    ] {
        assert_eq!(told(criteria.clone()), expected, "{criteria:?}");
    }
}
