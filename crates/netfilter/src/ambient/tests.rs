use std::path::PathBuf;

use super::*;
use crate::Program;
use crate::capture::tests::{goldens, settings};
use crate::nftables::tests::{carried_out, normalised};

struct Case {
    path: PathBuf,
    text: String,
    expected: String,
}

impl Case {
    fn all(suite: &str) -> Option<Vec<Case>> {
        let case = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.unwrap().path();
            let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
            Case { text: read("case.yaml"), expected: read("expected.txt"), path }
        };
        Some(std::fs::read_dir(goldens(suite)?).unwrap().map(case).collect())
    }

    fn setting(&self, name: &str) -> String {
        settings(&self.text, "config:").remove(name).unwrap()
    }

    fn ipv6(&self) -> bool {
        self.setting("ENABLE_INBOUND_IPV6") == "true"
    }

    fn is_pod(&self) -> bool {
        self.text.contains("\nkind: in_pod\n")
    }

    fn probes(&self) -> ProbeSource {
        ProbeSource {
            v4: self.setting("HOST_PROBE_SNAT_ADDRESS").parse().unwrap(),
            v6: self.setting("HOST_PROBE_V6_SNAT_ADDRESS").parse().unwrap(),
        }
    }

    fn pod(&self) -> Pod {
        let overrides = settings(&self.text, "pod_overrides:");
        let is = |name: &str| overrides.get(name).map(String::as_str);
        let dns = match is("DNSProxy") {
            Some(said) => said == "enabled",
            None => self.setting("REDIRECT_DNS") == "true",
        };
        let interfaces = is("VirtualInterfaces").unwrap_or_default();
        let virtual_interfaces = interfaces.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Pod { probes: self.probes(), dns, outbound_only: is("IngressMode") == Some("true"), virtual_interfaces }
    }
}

#[test]
fn rules_for_iptables_are_istios() {
    let Some(cases) = Case::all("cni-iptables") else {
        return println!("skipped: no golden cases beside the workspace");
    };
    for case in &cases {
        let rules = |family| match case.is_pod() {
            true => case.pod().iptables(family),
            false => Node { probes: case.probes(), kubelet: 0 }.iptables(family),
        };
        let text: String = Family::of(case.ipv6()).iter().map(|family| rules(*family).restore_text()).collect();
        let expected: Vec<_> = case.expected.lines().filter(|line| !line.ends_with("tables-save")).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected, "{}", case.path.display());
    }
    assert_eq!(cases.len(), 14);
}

#[test]
fn rules_for_nft_are_istios() {
    let Some(cases) = Case::all("cni-nftables") else {
        return println!("skipped: no golden cases beside the workspace");
    };
    for case in &cases {
        let rules = if case.is_pod() {
            case.pod().nftables(case.ipv6())
        } else {
            // What was expected was made with the address of the pods' cases, whatever the case's settings say.
            let probes =
                ProbeSource { v6: "e9ac:1e77:90ca:399f:4d6d:ece2:2f9b:3164".parse().unwrap(), ..case.probes() };
            Node { probes, kubelet: 1000 }.nftables(case.ipv6())
        };
        let spaced = |text: &str| text.replace("  ", " ");
        let ours = carried_out(&normalised(&nftables::script(&rules, &TABLES)));
        let expected = carried_out(&normalised(&spaced(&case.expected)));
        assert_eq!(ours, expected, "{}", case.path.display());
    }
    assert_eq!(cases.len(), 14);
}

#[test]
fn a_node_makes_its_sets_before_the_rules_that_look_into_them() {
    let node = Node { kubelet: 1000, ..Node::default() };
    let text = node.text(&Backend::Nftables, false);
    let expected = "\
add table inet istio-ambient-nat
add set inet istio-ambient-nat istio-inpod-probes-v4 { type ipv4_addr ; }
add table inet istio-ambient-nat
flush table inet istio-ambient-nat
add chain inet istio-ambient-nat postrouting { type nat hook postrouting priority 100 ; }
add rule inet istio-ambient-nat postrouting meta l4proto tcp skuid 1000 ip daddr @istio-inpod-probes-v4 counter snat to 169.254.7.127
";
    assert_eq!(text, expected);
    let text = node.text(&Backend::Iptables(Program::default()), true);
    assert_eq!(text.matches("--match-set istio-inpod-probes-v").count(), 2, "{text}");
}
