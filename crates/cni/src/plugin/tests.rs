use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::decide::tests::injected;
use crate::{Pod, query};

/// Answers in order, the last one again and again.
struct Pods(RefCell<Vec<Result<Option<Pod>, String>>>);

impl PodSource for Pods {
    fn pod(&self, _: &PodName) -> Result<Option<Pod>, QueryError> {
        let mut answers = self.0.borrow_mut();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        answer.map_err(QueryError::Refused)
    }
}

/// Remembers what it was to do.
#[derive(Default)]
pub(crate) struct Recorded {
    pub applied: Mutex<Vec<(PathBuf, Settings)>>,
    pub missing: Vec<String>,
    pub fails: bool,
}

impl Kernel for Recorded {
    fn apply(&self, namespace: &Path, settings: &Settings, _: &Backend) -> Result<(), String> {
        if self.fails {
            return Err("iptables-restore refused".to_owned());
        }
        self.applied.lock().unwrap().push((namespace.to_owned(), settings.clone()));
        Ok(())
    }

    fn missing(&self, _: &Path, _: &Settings, _: &Backend) -> Result<Vec<String>, String> {
        Ok(self.missing.clone())
    }
}

fn configuration() -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "istio-cni", "pod_namespace": "istio-system",
        "exclude_namespaces": ["kube-system"],
        "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.1.2.3/24"}]}
    })
}

struct Case {
    command: &'static str,
    arguments: &'static str,
    configuration: Value,
    pods: Vec<Result<Option<Pod>, String>>,
    kernel: Recorded,
}

impl Case {
    fn new(command: &'static str) -> Self {
        Case {
            command,
            arguments: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0",
            configuration: configuration(),
            pods: vec![Ok(Some(injected()))],
            kernel: Recorded::default(),
        }
    }

    fn run(&self) -> (Value, bool) {
        let variable = |name: &str| {
            let value = match name {
                "CNI_COMMAND" => self.command,
                "CNI_CONTAINERID" => "c",
                "CNI_NETNS" => "/run/netns/p",
                "CNI_IFNAME" => "eth0",
                "CNI_ARGS" => self.arguments,
                _ => return None,
            };
            Some(value.to_owned())
        };
        let pods = Pods(RefCell::new(self.pods.clone()));
        let plugin = Plugin {
            pods: &pods,
            kernel: &self.kernel,
            patience: Duration::from_millis(50),
            pause: Duration::from_millis(1),
        };
        answer(variable, self.configuration.to_string().as_bytes(), |invocation, network| {
            plugin.run(invocation, network)
        })
    }

    fn applied(&self) -> usize {
        self.kernel.applied.lock().unwrap().len()
    }
}

#[test]
fn an_injected_pod_is_captured_and_the_result_passed_on() {
    let case = Case::new("ADD");
    assert_eq!(case.run(), (configuration()["prevResult"].clone(), false));
    let applied = case.kernel.applied.lock().unwrap();
    assert_eq!(applied.len(), 1);
    assert_eq!(applied[0].0, PathBuf::from("/run/netns/p"));
}

#[test]
fn a_result_of_nobodys_is_an_empty_one() {
    let mut case = Case::new("ADD");
    case.configuration["prevResult"] = Value::Null;
    assert_eq!(case.run(), (json!({"cniVersion": "1.0.0"}), false));
}

#[test]
fn who_is_none_of_ours_is_not_asked_about() {
    let check = |arguments: &'static str| {
        let case = Case { arguments, pods: vec![Err("asked".to_owned())], ..Case::new("ADD") };
        assert_eq!(case.run(), (configuration()["prevResult"].clone(), false), "{arguments}");
        assert_eq!(case.applied(), 0);
    };
    check("");
    check("K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns-0");
    check("K8S_POD_NAMESPACE=istio-system;K8S_POD_NAME=istio-cni-node-abcde");
}

#[test]
fn a_pod_without_a_sidecar_is_let_through() {
    let mut pod = injected();
    pod.containers.truncate(2);
    let case = Case { pods: vec![Ok(Some(pod))], ..Case::new("ADD") };
    assert_eq!(case.run(), (configuration()["prevResult"].clone(), false));
    assert_eq!(case.applied(), 0);
}

#[test]
fn a_pod_that_is_not_known_yet_is_waited_for() {
    let pods = vec![Err("no connection".to_owned()), Ok(None), Ok(Some(injected()))];
    let case = Case { pods, ..Case::new("ADD") };
    assert!(!case.run().1);
    assert_eq!(case.applied(), 1);
}

#[test]
fn what_cannot_be_found_out_fails_the_start_for_now() {
    let case = Case { pods: vec![Err("no connection".to_owned())], ..Case::new("ADD") };
    let (value, failed) = case.run();
    assert!(failed);
    let message = "the node's daemon cannot tell: no connection";
    assert_eq!(value, json!({"cniVersion": "1.0.0", "code": 11, "msg": message}));
    let case = Case { pods: vec![Ok(None)], ..Case::new("ADD") };
    assert_eq!(case.run().0["msg"], "pod shop/web-0 is not known to the API server");
}

#[test]
fn wrong_settings_and_refused_rules_fail_the_start() {
    let mut pod = injected();
    pod.annotations.insert("traffic.sidecar.istio.io/includeInboundPorts".into(), "http".into());
    let case = Case { pods: vec![Ok(Some(pod))], ..Case::new("ADD") };
    let (value, failed) = case.run();
    assert!(failed);
    assert_eq!(value["code"], 100);
    assert!(value["msg"].as_str().unwrap().contains("includeInboundPorts: `http`"), "{value}");
    let case = Case { kernel: Recorded { fails: true, ..Recorded::default() }, ..Case::new("ADD") };
    assert_eq!(case.run(), (json!({"cniVersion": "1.0.0", "code": 101, "msg": "iptables-restore refused"}), true));
}

#[test]
fn check_sees_whether_rules_are_there() {
    assert_eq!(Case::new("CHECK").run(), (Value::Null, false));
    let kernel = Recorded { missing: vec!["nat ISTIO_OUTPUT".into()], ..Recorded::default() };
    let (value, failed) = Case { kernel, ..Case::new("CHECK") }.run();
    assert!(failed);
    assert_eq!(value["msg"], "rules are missing or changed: nat ISTIO_OUTPUT");
    let mut case = Case::new("CHECK");
    case.configuration["prevResult"] = Value::Null;
    assert_eq!(case.run().0["code"], 7);
}

#[test]
fn other_commands_need_nothing() {
    for command in ["DEL", "GC", "STATUS"] {
        let case = Case { pods: vec![Err("asked".to_owned())], ..Case::new(command) };
        assert_eq!(case.run(), (Value::Null, false), "{command}");
    }
    let broken = Case { configuration: json!("no configuration"), ..Case::new("DEL") };
    assert_eq!(broken.run(), (Value::Null, false));
    let (value, failed) = Case { configuration: json!({}), ..Case::new("STATUS") }.run();
    assert!(failed);
    assert_eq!(value, json!({"cniVersion": "1.1.0", "code": 7, "msg": "cniVersion: a version is expected"}));
}

#[test]
fn the_versions_are_told() {
    let (value, failed) = Case::new("VERSION").run();
    assert!(!failed);
    assert_eq!(value["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
}

#[test]
fn a_daemon_that_is_not_there_is_told_of_with_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let name = PodName { namespace: "a".into(), name: "b".into(), uid: String::new() };
    let error = query::Daemon::at(folder.path()).pod(&name).unwrap_err().to_string();
    assert!(error.contains("pods.sock"), "{error}");
}
