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
}

#[test]
fn name_servers_are_read_from_resolv_conf() {
    let text = "# x\nnameserver 10.0.0.2\n nameserver fe80::1%eth0\noptions ndots:5\nnameserver bogus\n";
    let expected: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap(), "fe80::1".parse().unwrap()];
    assert_eq!(name_servers(text), expected);
}
