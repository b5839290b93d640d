use std::net::Ipv6Addr;

use super::*;
use crate::capture::List;
use crate::capture::tests::{captures, goldens};

/// A chain as it is declared, and its rules.
type Chain = (String, Vec<String>);

/// The rules of a transaction of Istio's, its insertions carried out, as our script has them: a line for each chain and
/// each rule of a table, in order.
pub(crate) fn carried_out(text: &str) -> Vec<String> {
    let mut tables: Vec<(String, Vec<Chain>)> = Vec::new();
    for line in text.lines() {
        let (verb, rest) = line.split_once(" inet ").map_or((line, ""), |(verb, rest)| (verb, rest));
        let mut words = rest.splitn(3, ' ');
        let (table, chain, rule) = (words.next().unwrap(), words.next().unwrap_or(""), words.next().unwrap_or(""));
        if verb == "add table" {
            tables.push((table.to_owned(), Vec::new()));
            continue;
        }
        if matches!(verb, "flush table" | "delete table") {
            continue;
        }
        let chains = &mut tables.iter_mut().rev().find(|(name, _)| name == table).unwrap().1;
        if verb == "add chain" {
            chains.push((format!("{chain} {rule}"), Vec::new()));
            continue;
        }
        let rules = &mut chains.iter_mut().find(|(name, _)| name.split(' ').next() == Some(chain)).unwrap().1;
        match (verb, rule.strip_prefix("index ").and_then(|rest| rest.split_once(' '))) {
            ("add rule", _) => rules.push(rule.to_owned()),
            ("insert rule", Some((index, rule))) => rules.insert(index.parse().unwrap(), rule.to_owned()),
            _ => panic!("{line}"),
        }
    }
    let mut lines = Vec::new();
    for (table, chains) in tables.into_iter().filter(|(_, chains)| !chains.is_empty()) {
        for (chain, rules) in chains {
            lines.push(format!("{table}: {chain}"));
            lines.extend(rules.into_iter().map(|rule| format!("{table}: {chain}: {rule}")));
        }
    }
    lines
}

/// Addresses in the shape in which this library writes them, names without the quotes that ours stand in.
pub(crate) fn normalised(text: &str) -> String {
    let word = |word: &str| {
        let (address, length) = word.split_once('/').map_or((word, None), |(address, length)| (address, Some(length)));
        match (address.parse::<Ipv6Addr>(), length) {
            (Ok(address), Some(length)) => format!("{address}/{length}"),
            (Ok(address), None) => address.to_string(),
            _ => word.replace('"', ""),
        }
    };
    text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn rules_are_those_of_istios_sidecar() {
    let Some(folder) = goldens("nftables-capture") else {
        return println!("skipped: no golden cases beside the workspace");
    };
    let cases = captures(&folder);
    for (path, capture, ipv6) in &cases {
        let expected = std::fs::read_to_string(path.join("expected.txt")).unwrap();
        let ours = carried_out(&normalised(&script(&capture.nftables(*ipv6), &TABLES)));
        let expected = carried_out(&normalised(&expected));
        for (ours, expected) in ours.iter().zip(&expected) {
            assert_eq!(ours, expected, "{}", path.display());
        }
        assert_eq!(ours.len(), expected.len(), "{}", path.display());
    }
    assert_eq!(cases.len(), 28);
}

#[test]
fn a_marked_socket_bypasses_and_odd_names_are_quoted() {
    let capture = Capture {
        bypass: crate::Bypass::Mark(0x539),
        exclude_interfaces: vec!["eth+".into(), "9p".into()],
        owner_groups: List::Only(vec!["java".into()]),
        outbound_ports_exclude: vec![25],
        ..Capture::default()
    };
    let text = script(&capture.nftables(false), &TABLES);
    for line in [
        "prerouting iifname \"eth*\" counter return",
        "output oifname \"9p\" counter return",
        "istio-output mark 1337 counter return",
        "istio-output skgid != \"java\" counter return",
        "istio-output udp dport 25 counter return",
    ] {
        assert!(text.contains(&format!("add rule inet istio-proxy-nat {line}\n")), "{line}\n{text}");
    }
    assert!(!text.contains("ip6"), "{text}");
}

#[test]
fn a_listing_is_counted_by_chain() {
    let listing = "\
table inet istio-proxy-nat {
	chain output {
		type nat hook output priority dstnat; policy accept;
		counter packets 0 bytes 0 jump istio-output
	}
	chain istio-output {
		oifname \"lo\" ip saddr 127.0.0.6 counter packets 0 bytes 0 return
		meta skuid 1337 counter packets 3 bytes 180 return
	}
}
";
    assert_eq!(count(listing), [("output".to_owned(), 1), ("istio-output".to_owned(), 2)]);
}
