use super::*;
use clap::Parser;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

fn capture(line: &str) -> anyhow::Result<Capture> {
    let words = std::iter::once("iptables").chain(line.split_whitespace());
    Command::try_parse_from(words)?.arguments.capture()
}

#[test]
fn the_init_containers_command_line_is_understood() {
    let line = "-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x 10.1.0.0/16 -b * -d 15090,15021,15020 -o 25";
    let expected = Capture {
        inbound_ports: List::All,
        inbound_ports_exclude: vec![15090, 15021, 15020],
        outbound_ranges: List::All,
        outbound_ranges_exclude: vec!["10.1.0.0/16".parse().unwrap()],
        outbound_ports_exclude: vec![25],
        ..Capture::default()
    };
    assert_eq!(capture(line).unwrap(), expected);
}

#[test]
fn wrong_flags_are_refused_by_name() {
    let check = |line: &str, expected: &str| {
        let error = capture(line).unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    };
    check("-b 80,http", "-b: `http` is not a port number");
    check("-i 10.0.0.0/40", "-i: `10.0.0.0/40` is not an address range");
    check("-m NAT", "mode `NAT`");
    check("-u root;reboot", "-u: `root;reboot` is not a name");
    check("--proxy-mark 1 -u 5", "cannot be used with");
    check("-m TPROXY -t many", "-t: `many` is not a number");
    check("--host-ipv4-loopback-cidr 10.0.0.0/8", "`10.0.0.0/8` is not a range of IPv4 loopback addresses");
    check("--redirect-dns=maybe", "`maybe` is neither true nor false");
    check("--force-iptables-binary ebtables", "possible values");
    check("--probe-timeout soon", "--probe-timeout");
}

#[test]
fn name_servers_are_read_from_resolv_conf() {
    let text = "# x\nnameserver 10.0.0.2\n nameserver fe80::1%eth0\noptions ndots:5\nnameserver bogus\n";
    let expected: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap(), "fe80::1".parse().unwrap()];
    assert_eq!(name_servers(text), expected);
}

#[test]
fn switches_are_read_as_go_reads_them() {
    let parsed = |line: &str| Command::try_parse_from(line.split(' ')).unwrap().arguments;
    assert_eq!(parsed("x --native-nftables").native_nftables, Some(true));
    assert_eq!(parsed("x --native-nftables=F").native_nftables, Some(false));
    assert_eq!(parsed("x").native_nftables, None);
    assert!(parsed("x --skip-rule-apply --run-validation --log_output_level=default:info").run_validation.unwrap());
    assert_eq!(parsed("x --probe-timeout 250ms").probe_timeout, Duration::from_millis(250));
    assert_eq!(parsed("x --cleanup").cleanup_only, parsed("x --cleanup-only").cleanup_only);
}

#[test]
fn what_would_be_taken_away_is_printed() {
    let removal = |line: &str| {
        let words = std::iter::once("iptables").chain(line.split_whitespace());
        Command::try_parse_from(words).unwrap().arguments.installation().unwrap().removal_text()
    };
    let text = removal("-b 80 --force-iptables-binary nft --dual-stack");
    for line in [
        "iptables-nft -t nat -D PREROUTING -p tcp -j ISTIO_INBOUND",
        "iptables-nft -t nat -X ISTIO_INBOUND",
        "ip6tables-nft -t nat -D OUTPUT -j ISTIO_OUTPUT",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    assert!(!text.contains("-D ISTIO_"), "{text}");
    assert!(removal("--native-nftables").contains("delete table inet istio-proxy-nat\n"));
}

#[test]
fn all_queries_are_captured_only_where_any_are() {
    assert_eq!(capture("--capture-all-dns").unwrap().dns, Dns::Off);
    assert_eq!(capture("--redirect-dns --capture-all-dns").unwrap().dns, Dns::All);
}

#[test]
fn more_owner_groups_than_a_rule_can_hold_are_refused() {
    let groups = |count: u32| (1..=count).map(|id| id.to_string()).collect::<Vec<_>>().join(",");
    assert!(capture(&format!("--outbound-owner-groups {}", groups(64))).is_ok());
    let error = capture(&format!("--outbound-owner-groups {}", groups(65))).unwrap_err().to_string();
    assert!(error.contains("65"), "{error}");
}
