use super::*;

/// A folder of golden cases, laid beside the workspace; none on a machine without it.
pub(crate) fn goldens(suite: &str) -> Option<std::path::PathBuf> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/iptables").join(suite);
    folder.is_dir().then_some(folder)
}

/// Each case of a folder: where it is, its settings, and whether rules for IPv6 are wanted.
pub(crate) fn captures(folder: &std::path::Path) -> Vec<(std::path::PathBuf, Capture, bool)> {
    let case = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let settings = settings(&std::fs::read_to_string(path.join("case.yaml")).unwrap(), "config:");
        (path, capture(&settings), settings["ENABLE_INBOUND_IPV6"] == "true")
    };
    std::fs::read_dir(folder).unwrap().map(case).collect()
}

/// A block of a case (`config:`) is flat: `NAME: value` lines, and lists of `- item` under a name.
pub(crate) fn settings(case: &str, block: &str) -> std::collections::BTreeMap<String, String> {
    let mut settings = std::collections::BTreeMap::new();
    let mut last = String::new();
    for line in case.lines().skip_while(|line| *line != block).skip(1) {
        let Some(line) = line.strip_prefix("  ") else { break };
        if let Some(item) = line.strip_prefix("- ") {
            let list: &mut String = settings.entry(last.clone()).or_default();
            list.push_str(&format!("{},", unquoted(item)));
        } else if let Some((name, value)) = line.split_once(':') {
            last = name.to_owned();
            settings.insert(last.clone(), unquoted(value.trim()));
        }
    }
    settings
}

fn unquoted(value: &str) -> String {
    let value = value.trim_matches('\'');
    if value == "null" { String::new() } else { value.to_owned() }
}

fn capture(settings: &std::collections::BTreeMap<String, String>) -> Capture {
    let text = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
    let ranges = |name: &str| Capture::parse_ranges("ranges", text(name)).unwrap();
    let servers: Vec<IpAddr> =
        [ranges("DNS_SERVERS_V4"), ranges("DNS_SERVERS_V6")].concat().iter().map(IpNet::addr).collect();
    let dns = match (text("REDIRECT_DNS"), text("CAPTURE_ALL_DNS")) {
        ("true", "true") => Dns::All,
        ("true", _) => Dns::Servers(servers),
        _ => Dns::Off,
    };
    let names = |name: &str| Capture::parse_names("names", text(name)).unwrap();
    let groups = text("OUTBOUND_OWNER_GROUPS_INCLUDE");
    Capture {
        bypass: Bypass::Owner { uids: names("PROXY_UID"), gids: names("PROXY_GID") },
        interception: if text("INBOUND_INTERCEPTION_MODE") == "TPROXY" {
            Interception::Tproxy { mark: text("INBOUND_TPROXY_MARK").parse().unwrap() }
        } else {
            Interception::Redirect
        },
        inbound_ports: Capture::parse_port_list("p", text("INBOUND_PORTS_INCLUDE")).unwrap(),
        inbound_ports_exclude: Capture::parse_ports("p", text("INBOUND_PORTS_EXCLUDE")).unwrap(),
        outbound_ports: Capture::parse_ports("p", text("OUTBOUND_PORTS_INCLUDE")).unwrap(),
        outbound_ports_exclude: Capture::parse_ports("p", text("OUTBOUND_PORTS_EXCLUDE")).unwrap(),
        outbound_ranges: Capture::parse_range_list("r", text("OUTBOUND_IPRANGES_INCLUDE")).unwrap(),
        outbound_ranges_exclude: ranges("OUTBOUND_IPRANGES_EXCLUDE"),
        owner_groups: if groups == "*" { List::All } else { List::Only(names("OUTBOUND_OWNER_GROUPS_INCLUDE")) },
        owner_groups_exclude: names("OUTBOUND_OWNER_GROUPS_EXCLUDE"),
        virtual_interfaces: names("KUBE_VIRT_INTERFACES"),
        exclude_interfaces: names("EXCLUDE_INTERFACES"),
        drop_invalid: text("DROP_INVALID") == "true",
        loopback_v4: text("HOST_IPV4_LOOPBACK_CIDR").parse().unwrap(),
        dns,
        ..Capture::default()
    }
}

#[test]
fn rules_are_those_of_istios_sidecar() {
    let Some(folder) = goldens("iptables-capture") else {
        return println!("skipped: no golden cases beside the workspace");
    };
    let cases = captures(&folder);
    for (path, capture, ipv6) in &cases {
        // The same address, written as this library writes it.
        let expected = std::fs::read_to_string(path.join("expected.txt")).unwrap().replace("::127.0.0.53", "::7f00:35");
        let expected: Vec<_> = expected.lines().filter(|line| !line.ends_with("tables-save")).collect();
        let mut text = capture.rules(Family::V4).restore_text();
        if *ipv6 {
            text.push_str(&capture.rules(Family::V6).restore_text());
        }
        for (line, expected) in text.lines().zip(&expected) {
            assert_eq!(line, *expected, "{}", path.display());
        }
        assert_eq!(text.lines().count(), expected.len(), "{}", path.display());
    }
    assert_eq!(cases.len(), 27);
}

#[test]
fn a_marked_socket_bypasses_where_owners_cannot_be_told() {
    let capture = Capture {
        bypass: Bypass::Mark(0x539),
        inbound_ports: List::All,
        inbound_ports_exclude: vec![15021],
        outbound_ranges: List::All,
        dns: Dns::All,
        ..Capture::default()
    };
    let text = capture.rules(Family::V4).restore_text();
    let expected = "\
* nat
-N ISTIO_INBOUND
-N ISTIO_REDIRECT
-N ISTIO_IN_REDIRECT
-N ISTIO_OUTPUT
-N ISTIO_OUTPUT_DNS
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A OUTPUT -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m multiport ! --dports 53,15008 -m mark --mark 0x539 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m mark ! --mark 0x539 -j RETURN
-A ISTIO_OUTPUT -m mark --mark 0x539 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_OUTPUT_DNS
-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j REDIRECT --to-port 15053
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
COMMIT
* raw
-N ISTIO_OUTPUT_DNS
-N ISTIO_INBOUND
-A OUTPUT -j ISTIO_OUTPUT_DNS
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m mark --mark 0x539 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m mark --mark 0x539 -j CT --zone 2
-A PREROUTING -j ISTIO_INBOUND
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -j CT --zone 2
-A ISTIO_INBOUND -p udp --sport 53 -j CT --zone 1
COMMIT
";
    assert_eq!(text, expected);
}

#[test]
fn lists_are_read_strictly() {
    let port = |value: &str| CaptureError::Port { setting: "-b", value: value.to_owned() };
    assert_eq!(Capture::parse_ports("-b", " 80,443, "), Ok(vec![80, 443]));
    assert_eq!(Capture::parse_ports("-b", "80,0"), Err(port("0")));
    assert_eq!(Capture::parse_ports("-b", "70000"), Err(port("70000")));
    assert_eq!(Capture::parse_port_list("-b", "*"), Ok(List::All));
    assert_eq!(Capture::parse_ranges("-i", "10.1.2.3"), Ok(vec!["10.1.2.3/32".parse().unwrap()]));
    assert!(Capture::parse_ranges("-i", "10.0.0.0/33").is_err());
    assert!(Capture::parse_names("-u", "1337 -j ACCEPT").is_err());
    assert!(Capture::parse_names("-u", "-x").is_err());
}
