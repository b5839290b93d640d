use meltemi_netfilter::Program;
use serde_json::json;

use super::*;

fn refused(value: &Value) -> (Kind, String) {
    let failure = parse(value.to_string().as_bytes()).unwrap_err();
    (failure.kind, failure.message)
}

#[test]
fn every_key_of_the_plugin_is_read() {
    let text = json!({
        "cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "istio-cni",
        "plugin_log_level": "debug", "cni_agent_run_dir": "/run/x", "ambient_enabled": false,
        "enablement_selectors": [], "enable_ambient_detection_retry": false,
        "exclude_namespaces": ["kube-system"], "pod_namespace": "istio-system", "native_nftables": true,
        "ipam": {}, "dns": {}, "runtimeConfig": {"portMappings": []}, "cni.dev/valid-attachments": [],
        "prevResult": {"cniVersion": "1.0.0", "ips": []}
    });
    let network = parse(text.to_string().as_bytes()).unwrap();
    assert_eq!(
        network,
        Network {
            version: "1.0.0".into(),
            name: "k8s-pod-network".into(),
            log_level: Some("debug".into()),
            run_folder: "/run/x".into(),
            exclude_namespaces: vec!["kube-system".into()],
            pod_namespace: "istio-system".into(),
            backend: Backend::Nftables,
            previous: Some(json!({"cniVersion": "1.0.0", "ips": []})),
        }
    );
}

#[test]
fn what_older_istios_wrote_is_understood() {
    let text = json!({
        "cniVersion": "0.3.1", "name": "n", "type": "istio-cni", "log_level": "info",
        "log_uds_address": "/var/run/istio-cni/log.sock", "cni_event_address": "/var/run/istio-cni/pluginevent.sock",
        "kubernetes": {"kubeconfig": "/etc/cni/net.d/ZZZ-istio-cni-kubeconfig", "exclude_namespaces": ["istio-system"]}
    });
    let network = parse(text.to_string().as_bytes()).unwrap();
    assert_eq!(network.log_level.as_deref(), Some("info"));
    assert_eq!(network.backend, Backend::Iptables(Program::default()));
    assert_eq!(network.exclude_namespaces, ["istio-system"]);
    assert_eq!(network.run_folder, PathBuf::from(RUN_FOLDER));
}

#[test]
fn what_is_wrong_is_named() {
    let with = |key: &str, value: Value| {
        let mut whole = json!({"cniVersion": "1.1.0", "name": "n", "type": "istio-cni"});
        whole[key] = value;
        refused(&whole)
    };
    let configuration = |text: &str| (Kind::Configuration, text.to_owned());
    assert_eq!(
        with("exclude_namespace", json!([])),
        configuration("exclude_namespace: no such setting of this plugin")
    );
    assert_eq!(with("exclude_namespaces", json!("a")), configuration("exclude_namespaces: a list is expected"));
    assert_eq!(
        with("exclude_namespaces", json!(["a", 1])),
        configuration("exclude_namespaces[1]: a string is expected")
    );
    assert_eq!(with("native_nftables", json!("yes")), configuration("native_nftables: true or false is expected"));
    let flavour = configuration("force_iptables_binary: legacy or nft is expected");
    assert_eq!(with("force_iptables_binary", json!("ebtables")), flavour);
    assert_eq!(
        with("kubernetes", json!({"exclude_namespaces": 1})).1,
        "kubernetes.exclude_namespaces: a list is expected"
    );
    assert_eq!(with("name", json!("")), configuration("name: a name is expected"));
    assert_eq!(with("prevResult", json!([])), configuration("prevResult: an object is expected"));
    assert!(with("ambient_enabled", json!(true)).1.starts_with("ambient_enabled: "));
    assert_eq!(with("cniVersion", json!("2.0.0")).0, Kind::IncompatibleVersion);
    assert_eq!(refused(&json!([])).1, "the network configuration: an object is expected");
    assert_eq!(parse(b"{").unwrap_err().kind, Kind::Decode);
}
