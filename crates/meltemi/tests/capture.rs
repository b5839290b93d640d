//! `meltemi iptables` and `meltemi cni` as their users run them, in network namespaces that the tests make: those parts are
//! skipped without root, `ip`, or the programs that write rules.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use meltemi_cni::{Change, Cluster, NodeError, Pod, Selectors, query};
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;

const MELTEMI: &str = env!("CARGO_BIN_EXE_meltemi");

struct Run {
    code: i32,
    out: String,
    err: String,
}

fn run(command: &mut Command, input: &str) -> Run {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that needs no input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn meltemi(line: &str) -> Run {
    run(Command::new(MELTEMI).args(line.split(' ')), "")
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// A network namespace that goes with its owner.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !has("ip") {
            println!("skipped: network namespaces need root and `ip`");
            return None;
        }
        let namespace = Namespace(format!("mc-{name}-{}", std::process::id()));
        let ip = |line: &str| assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "{line}");
        ip(&format!("netns add {}", namespace.0));
        ip(&format!("-n {} link set lo up", namespace.0));
        Some(namespace)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    /// A command that runs inside.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    fn meltemi(&self, line: &str) -> Run {
        run(self.command(MELTEMI).args(line.split(' ')), "")
    }

    fn rules(&self) -> String {
        run(&mut self.command("iptables-save"), "").out
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

#[test]
fn a_dry_run_prints_rules_of_either_kind() {
    let iptables = meltemi("iptables -i * -b * -d 15090 --dry-run");
    assert_eq!(iptables.code, 0, "{}", iptables.err);
    assert!(iptables.out.contains("-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN\n"), "{}", iptables.out);
    let nftables = meltemi("istio-iptables -i * -b * -d 15090 --native-nftables --dry-run=true");
    assert!(
        nftables.out.contains("istio-inbound meta l4proto tcp tcp dport 15090 counter return\n"),
        "{}",
        nftables.out
    );
}

#[test]
fn the_environment_says_what_flags_do_not() {
    let mut command = Command::new(MELTEMI);
    command.args(["iptables", "-n", "-d", "15021"]);
    command.env("ISTIO_INBOUND_PORTS", "*").env("ISTIO_LOCAL_EXCLUDE_PORTS", "15020").env("INVALID_DROP", "true");
    command.env("OUTBOUND_IPRANGES_INCLUDE", "10.0.0.0/8");
    let text = run(&mut command, "").out;
    assert!(text.contains("-A PREROUTING -p tcp -j ISTIO_INBOUND\n"), "{text}");
    assert!(text.contains("--dport 15021 -j RETURN") && !text.contains("15020"), "{text}");
    assert!(text.contains("-A ISTIO_DROP -j DROP\n"), "{text}");
    assert!(text.contains("-A ISTIO_OUTPUT -d 10.0.0.0/8 -j ISTIO_REDIRECT\n"), "{text}");
    let wrong = run(Command::new(MELTEMI).args(["iptables", "-n"]).env("INVALID_DROP", "perhaps"), "");
    assert_eq!((wrong.code, &*wrong.err), (2, "error: INVALID_DROP: `perhaps` is neither true nor false\n"));
}

#[test]
fn wrong_settings_are_told_by_flag() {
    let check = |line: &str, code: i32, expected: &str| {
        let run = meltemi(line);
        assert_eq!(run.code, code, "{line}: {}", run.err);
        assert!(run.err.contains(expected), "{line}: {}", run.err);
    };
    check("iptables -b http -n", 2, "-b: `http` is not a port number");
    check("iptables --no-such-flag", 2, "--no-such-flag");
    check("iptables --network-namespace /run/netns/none-such -n", 1, "/run/netns/none-such");
    check("cni install --mounted-cni-net-dir /nowhere --dry-run", 1, "/nowhere: No such file");
    check("cni daemon --ambient-enabled", 1, "--ambient-enabled");
    check("cni explain -f /nowhere/pod.yaml", 1, "/nowhere/pod.yaml");
}

#[test]
fn rules_are_in_force_or_are_told_not_to_be() {
    for kind in ["", " --native-nftables"] {
        let Some(namespace) = Namespace::new("val") else { return };
        if !has(if kind.is_empty() { "iptables-restore" } else { "nft" }) {
            println!("skipped: no program for `{kind}`");
            continue;
        }
        // This process's user stands in for the proxy's.
        let validate = "iptables -u 0 --skip-rule-apply --run-validation --probe-timeout";
        let before = namespace.meltemi(&format!("{validate} 300ms"));
        assert_eq!(before.code, 126, "{}", before.err);
        assert!(before.err.contains("a connection to 127.0.0.6:15002 did not arrive"), "{}", before.err);
        let path = namespace.path();
        let capture = format!("iptables -u 0 -i * -b * --dual-stack --network-namespace {}{kind}", path.display());
        for _ in 0..2 {
            let applied = meltemi(&capture);
            assert_eq!(applied.code, 0, "{}", applied.err);
            let valid = namespace.meltemi(&format!("{validate} 20s --dual-stack"));
            assert_eq!(valid.code, 0, "{}", valid.err);
        }
        assert_eq!(meltemi(&format!("{capture} --cleanup-only")).code, 0);
        assert_eq!(namespace.meltemi(&format!("{validate} 300ms")).code, 126);
    }
}

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web-0
  namespace: shop
  annotations:
    sidecar.istio.io/status: '{}'
    traffic.sidecar.istio.io/excludeInboundPorts: '8443'
spec:
  containers:
  - name: app
  - name: istio-proxy
    args: [proxy, sidecar]
";

fn explain(pod: &str, output: &str) -> Run {
    run(Command::new(MELTEMI).args(["cni", "explain", "-f", "-", "-o", output]), pod)
}

#[test]
fn a_pods_capture_is_explained() {
    let captured = explain(POD, "text");
    assert!(captured.out.contains("-A ISTIO_INBOUND -p tcp --dport 8443 -j RETURN\n"), "{}", captured.out);
    let left = explain(&POD.replace("istio-proxy", "other"), "json");
    let expected = json!({"captured": false, "reason": "it has no container istio-proxy"});
    assert_eq!(serde_json::from_str::<Value>(&left.out).unwrap(), expected);
    let wrong = explain(&POD.replace("'8443'", "https"), "text");
    assert_eq!(wrong.code, 65);
    assert!(wrong.err.contains("traffic.sidecar.istio.io/excludeInboundPorts: `https`"), "{}", wrong.err);
    assert_eq!(explain("kind: Service", "text").code, 65);
    assert_eq!(explain("{", "text").code, 65);
}

#[test]
fn an_installation_is_shown_before_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let list = json!({"name": "k8s", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]});
    std::fs::write(folder.path().join("10-bridge.conflist"), list.to_string()).unwrap();
    let line = format!("cni install --mounted-cni-net-dir {} --dry-run", folder.path().display());
    let shown: Value = serde_json::from_str(&meltemi(&line).out).unwrap();
    assert_eq!(shown["plugins"][1]["type"], "istio-cni");
    let shown: Value = serde_json::from_str(&meltemi(&format!("{line} -o json")).out).unwrap();
    assert_eq!(
        (&shown["changes"], shown["file"].as_str().unwrap().ends_with("10-bridge.conflist")),
        (&json!(true), true)
    );
    assert_eq!(std::fs::read_to_string(folder.path().join("10-bridge.conflist")).unwrap(), list.to_string());
    std::fs::remove_file(folder.path().join("10-bridge.conflist")).unwrap();
    let early = meltemi(&line);
    assert_eq!((early.code, &*early.err), (1, "error: no configuration of a container network yet\n"));
}

/// A cluster of one pod.
struct OnePod;

impl Cluster for OnePod {
    async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, NodeError> {
        let document = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web-0", "namespace": "shop", "annotations": {"sidecar.istio.io/status": "{}"}},
            "spec": {"containers": [{"name": "istio-proxy", "args": ["proxy", "sidecar"]}]}
        });
        let pod = Pod::from_document(document)?;
        Ok(Some(pod).filter(|pod| pod.namespace == namespace && pod.name == name))
    }

    async fn watch(&self, _: &Selectors, changes: Sender<Change>) {
        changes.closed().await;
    }

    async fn delete(&self, _: &Pod) -> Result<(), NodeError> {
        Err(NodeError::new("no deletion"))
    }

    async fn label(&self, _: &Pod, _: &str, _: &str) -> Result<(), NodeError> {
        Err(NodeError::new("no labels"))
    }

    async fn warn(&self, _: &Pod, _: &str, _: &str) -> Result<(), NodeError> {
        Err(NodeError::new("no events"))
    }

    async fn remove_taint(&self, _: &str) -> Result<bool, NodeError> {
        Ok(false)
    }
}

/// The folder of the reference plugins.
fn reference_plugins() -> Option<PathBuf> {
    let folders = ["/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from);
    folders.into_iter().find(|folder| folder.join("bridge").exists() && folder.join("host-local").exists())
}

/// Starts the plugins of a list one after another, as a container runtime does.
struct Runtime {
    host: Namespace,
    pod: Namespace,
    plugins: PathBuf,
    ours: PathBuf,
    list: Value,
}

impl Runtime {
    fn plugin(&self, command: &str, plugin: &Value, previous: Option<&Value>) -> Run {
        let kind = plugin["type"].as_str().unwrap();
        let program = if kind == "istio-cni" { self.ours.join(kind) } else { self.plugins.join(kind) };
        let mut network = plugin.clone();
        network["name"] = self.list["name"].clone();
        network["cniVersion"] = self.list["cniVersion"].clone();
        if let Some(previous) = previous {
            network["prevResult"] = previous.clone();
        }
        let mut started = self.host.command(program.to_str().unwrap());
        started.env("CNI_COMMAND", command).env("CNI_CONTAINERID", "container-1").env("CNI_IFNAME", "eth0");
        started.env("CNI_NETNS", self.pod.path()).env("CNI_PATH", &self.plugins);
        started.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0");
        run(&mut started, &network.to_string())
    }

    /// What the last plugin comes to, or what the first that fails says.
    fn each(&self, command: &str, mut previous: Option<Value>, backwards: bool) -> Result<Option<Value>, String> {
        let mut plugins = self.list["plugins"].as_array().unwrap().clone();
        if backwards {
            plugins.reverse();
        }
        for plugin in &plugins {
            let run = self.plugin(command, plugin, previous.as_ref());
            if run.code != 0 {
                return Err(run.out);
            }
            if command == "ADD" {
                previous = Some(serde_json::from_str(&run.out).unwrap());
            }
        }
        Ok(previous)
    }
}

fn runtime(folder: &Path) -> Option<Runtime> {
    let Some(plugins) = reference_plugins() else {
        println!("skipped: no reference plugins of CNI");
        return None;
    };
    let (host, pod) = (Namespace::new("host")?, Namespace::new("pod")?);
    let ours = folder.join("bin");
    std::fs::create_dir(&ours).unwrap();
    std::os::unix::fs::symlink(MELTEMI, ours.join("istio-cni")).unwrap();
    let ranges = json!([[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd88::/64"}]]);
    let ipam = json!({"type": "host-local", "ranges": ranges, "dataDir": folder.join("leases")});
    let list = json!({"name": "test", "cniVersion": "1.0.0", "plugins": [{
        "type": "bridge", "bridge": "mc0", "isGateway": true, "ipam": ipam
    }]});
    let configurations = folder.join("net.d");
    std::fs::create_dir(&configurations).unwrap();
    std::fs::write(configurations.join("10-test.conflist"), list.to_string()).unwrap();
    // The list is the one that an installation would write.
    let line = format!(
        "cni install --dry-run --mounted-cni-net-dir {} --cni-agent-run-dir {}",
        configurations.display(),
        folder.display()
    );
    let list = serde_json::from_str(&meltemi(&line).out).unwrap();
    Some(Runtime { host, pod, plugins, ours, list })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_captured_in_a_chain_of_real_plugins() {
    let folder = tempfile::tempdir().unwrap();
    let Some(runtime) = runtime(folder.path()) else { return };
    let listener = query::listen(folder.path()).unwrap();
    let answering = tokio::spawn(query::answer(listener, Arc::new(OnePod)));
    let added = runtime.each("ADD", None, false).unwrap().unwrap();
    assert_eq!(added["ips"][0]["address"], "10.88.0.2/24", "{added}");
    let rules = runtime.pod.rules();
    assert!(rules.contains("-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001"), "{rules}");
    assert_eq!(runtime.host.rules().matches("ISTIO").count(), 0);
    let valid = runtime.pod.meltemi("iptables -u 0 --skip-rule-apply --run-validation --probe-timeout 1s");
    // The rules are for the proxy's user, which this process is not.
    assert_eq!(valid.code, 126);

    assert_eq!(runtime.each("CHECK", Some(added.clone()), false).unwrap(), Some(added.clone()));
    run(runtime.pod.command("iptables").args(["-t", "nat", "-F", "ISTIO_OUTPUT"]), "");
    let broken = runtime.each("CHECK", Some(added.clone()), false).unwrap_err();
    let broken: Value = serde_json::from_str(&broken).unwrap();
    assert_eq!(
        (&broken["code"], &broken["msg"]),
        (&json!(101), &json!("rules are missing or changed: nat ISTIO_OUTPUT"))
    );

    runtime.each("DEL", Some(added), true).unwrap();
    answering.abort();
}

#[test]
fn the_plugin_tells_its_versions_and_what_it_was_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("istio-cni");
    std::os::unix::fs::symlink(MELTEMI, &program).unwrap();
    let started = |command: Option<&str>, input: &str| {
        let mut plugin = Command::new(&program);
        plugin.env_clear().envs(command.map(|command| ("CNI_COMMAND", command)));
        let run = run(&mut plugin, input);
        (run.code, serde_json::from_str::<Value>(&run.out).unwrap_or_default())
    };
    let (code, versions) = started(Some("VERSION"), "");
    assert_eq!((code, &versions["supportedVersions"][4]), (0, &json!("1.1.0")));
    let (code, refused) = started(None, "");
    assert_eq!((code, &refused["code"]), (1, &json!(4)));
    let network = json!({"cniVersion": "1.0.0", "name": "n", "type": "istio-cni"}).to_string();
    assert_eq!(started(Some("STATUS"), &network), (0, Value::Null));
    let (code, refused) = started(Some("STATUS"), &network.replace("name", "nane"));
    assert_eq!((code, &refused["code"], &refused["cniVersion"]), (1, &json!(7), &json!("1.0.0")));
}
