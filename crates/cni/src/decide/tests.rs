use std::collections::BTreeMap;

use meltemi_kubernetes::nodes::Container;

use super::*;

/// A pod with a sidecar that the CNI plugin captures.
pub(crate) fn injected() -> Pod {
    let container = |name: &str| Container { name: name.into(), ..Container::default() };
    Pod {
        namespace: "shop".into(),
        name: "web-0".into(),
        uid: "u1".into(),
        annotations: BTreeMap::from([(STATUS.into(), "{}".into())]),
        containers: vec![
            container("istio-validation"),
            container("app"),
            Container {
                arguments: vec!["proxy".into(), "sidecar".into()],
                user: Some(1337),
                group: Some(1337),
                ..container(PROXY)
            },
        ],
        ..Pod::default()
    }
}

fn annotated(annotations: &[(&str, &str)]) -> Result<Capture, SettingError> {
    let mut pod = injected();
    pod.annotations.extend(annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    match decide(&pod)? {
        Decision::Capture(settings) => Ok(settings.capture),
        Decision::Leave(reason) => panic!("{reason}"),
    }
}

fn left(change: impl FnOnce(&mut Pod)) -> String {
    let mut pod = injected();
    change(&mut pod);
    match decide(&pod).unwrap() {
        Decision::Leave(reason) => reason,
        Decision::Capture(settings) => panic!("captured: {settings:?}"),
    }
}

fn with_variable(name: &str, value: &str) -> Pod {
    let mut pod = injected();
    pod.containers[2].variables.insert(name.into(), value.into());
    pod
}

#[test]
fn a_plain_sidecar_is_captured_whole() {
    assert_eq!(
        annotated(&[]).unwrap(),
        Capture {
            inbound_ports: List::All,
            inbound_ports_exclude: vec![15020, 15021, 15090],
            outbound_ports_exclude: vec![15020],
            outbound_ranges: List::All,
            ..Capture::default()
        }
    );
}

#[test]
fn annotations_say_what_is_captured() {
    let capture = annotated(&[
        (INTERCEPTION_MODE, "TPROXY"),
        (STATUS_PORT, "15999"),
        (INCLUDE_OUTBOUND_RANGES, "10.0.0.0/8,fd00::/8"),
        (EXCLUDE_OUTBOUND_RANGES, "10.1.0.0/16"),
        (INCLUDE_INBOUND_PORTS, "80,443"),
        (EXCLUDE_INBOUND_PORTS, "8443, 15021"),
        (INCLUDE_OUTBOUND_PORTS, "3306"),
        (EXCLUDE_OUTBOUND_PORTS, "25"),
        (EXCLUDE_INTERFACES, "net1,net2"),
        (KUBEVIRT_INTERFACES, "old0"),
        (REROUTE_INTERFACES, "new0"),
    ]);
    assert_eq!(
        capture.unwrap(),
        Capture {
            interception: Interception::Tproxy { mark: 1337 },
            inbound_ports: List::Only(vec![80, 443]),
            inbound_ports_exclude: vec![8443, 15021, 15999, 15020, 15090],
            outbound_ports: vec![3306],
            outbound_ports_exclude: vec![25],
            outbound_ranges: List::Only(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]),
            outbound_ranges_exclude: vec!["10.1.0.0/16".parse().unwrap()],
            virtual_interfaces: vec!["new0".into()],
            exclude_interfaces: vec!["net1".into(), "net2".into()],
            ..Capture::default()
        }
    );
    assert_eq!(annotated(&[(KUBEVIRT_INTERFACES, "old0")]).unwrap().virtual_interfaces, ["old0"]);
    assert_eq!(annotated(&[(INCLUDE_INBOUND_PORTS, "")]).unwrap().inbound_ports, List::Only(Vec::new()));
}

#[test]
fn an_annotation_that_cannot_be_put_in_force_is_named() {
    let check = |name: &str, value: &str, expected: &str| {
        assert_eq!(annotated(&[(name, value)]).unwrap_err().to_string(), format!("annotation {name}: {expected}"));
    };
    check(INTERCEPTION_MODE, "BPF", "`BPF` is none of REDIRECT, TPROXY, NONE");
    check(INCLUDE_INBOUND_PORTS, "80,http", "`http` is not a port number from 1 to 65535");
    check(EXCLUDE_INBOUND_PORTS, "*", "`*` is not a port number from 1 to 65535");
    check(INCLUDE_OUTBOUND_RANGES, "ten", "`ten` is not an address range such as 10.0.0.0/8");
    check(EXCLUDE_INTERFACES, "a b", "`a b` is not a name that iptables can take");
    check(STATUS_PORT, "http", "`http` is not a port number from 1 to 65535");
}

#[test]
fn variables_of_the_proxy_say_the_rest() {
    let settings = |name, value| match decide(&with_variable(name, value)).unwrap() {
        Decision::Capture(settings) => *settings,
        Decision::Leave(reason) => panic!("{reason}"),
    };
    assert_eq!(settings("ISTIO_META_DNS_CAPTURE", "true").capture.dns, Dns::All);
    assert_eq!(settings("ISTIO_META_DNS_CAPTURE", "").capture.dns, Dns::Off);
    assert!(settings("INVALID_DROP", "1").capture.drop_invalid);
    assert!(settings("ISTIO_DUAL_STACK", "true").dual_stack);
    let error = decide(&with_variable("INVALID_DROP", "perhaps")).unwrap_err().to_string();
    assert_eq!(error, "variable INVALID_DROP of container istio-proxy: `perhaps` is neither true nor false");
}

#[test]
fn a_proxy_is_known_by_the_ids_it_runs_as() {
    let mut pod = injected();
    pod.containers[2].user = Some(2000);
    pod.containers[2].group = Some(0);
    let Decision::Capture(settings) = decide(&pod).unwrap() else { panic!("left") };
    assert_eq!(settings.capture.bypass, Bypass::Owner { uids: vec!["2000".into()], gids: vec!["1337".into()] });
}

#[test]
fn pods_that_are_none_of_ours_are_left_alone() {
    assert!(left(|pod| pod.host_network = true).contains("network"));
    assert!(left(|pod| pod.containers[0].name = INIT.into()).contains("istio-init"));
    assert!(left(|pod| pod.containers.truncate(2)).contains("no container istio-proxy"));
    assert!(left(|pod| pod.containers[2].arguments[1] = "router".into()).contains("router"));
    assert!(left(|pod| pod.annotations.clear()).contains("status"));
    assert!(left(|pod| drop(pod.annotations.insert(INJECT.into(), "false".into()))).contains("inject"));
    assert!(left(|pod| drop(pod.labels.insert(INJECT.into(), "false".into()))).contains("inject"));
    assert!(left(|pod| drop(pod.annotations.insert(INTERCEPTION_MODE.into(), "NONE".into()))).contains("NONE"));
    assert!(left(|pod| *pod = with_variable("DISABLE_ENVOY", "true")).contains("DISABLE_ENVOY"));
}

#[test]
fn the_label_wins_over_the_annotation() {
    let mut pod = injected();
    pod.annotations.insert(INJECT.into(), "false".into());
    pod.labels.insert(INJECT.into(), "true".into());
    assert!(matches!(decide(&pod), Ok(Decision::Capture(_))));
}
