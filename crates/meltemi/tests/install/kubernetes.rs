//! A cluster of the test's own, and the program run in its network.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// For whatever a cluster does by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// API server, etcd and controllers; ended and removed when dropped.
pub struct Kubernetes {
    name: String,
    dir: tempfile::TempDir,
    script: PathBuf,
}

/// What a run said, and its exit code.
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

impl Kubernetes {
    /// Starts it, or says why there is none.
    pub fn start() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("skipped: a cluster needs root".to_owned());
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let scripts = [root.join("scripts/kubernetes/cluster"), root.join("../shared/kube/kube")];
        let script = scripts.into_iter().find(|script| script.exists()).ok_or("skipped: no script for a cluster")?;
        let dir = tempfile::Builder::new().prefix("k8s").tempdir().map_err(|error| error.to_string())?;
        let cluster = Self { name: format!("meltemi-i{}", std::process::id()), dir, script };
        if !cluster.programs().join("kube-apiserver").exists() {
            return Err("skipped: no Kubernetes; `scripts/kubernetes/cluster build` makes it".to_owned());
        }
        let started = run(cluster.command(&["up", "--api-only"]), "");
        if started.code != 0 {
            return Err(format!("skipped: no cluster here: {}", started.err));
        }
        Ok(cluster)
    }

    fn programs(&self) -> PathBuf {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/meltemi");
        let cache = std::env::var_os("MELTEMI_CACHE").map_or_else(home, PathBuf::from);
        std::env::var_os("KUBE_BIN").map_or_else(|| cache.join("kubernetes/v1.36.2"), PathBuf::from)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.script);
        let environment = [("KUBE_NS", self.name.as_ref()), ("KUBE_DIR", self.dir.path().as_os_str())];
        command.args(arguments).envs(environment).env("KUBE_BIN", self.programs());
        command
    }

    pub fn meltemi(&self, arguments: &[&str]) -> Run {
        self.meltemi_reading("", arguments)
    }

    /// With a document on standard input.
    pub fn meltemi_reading(&self, input: &str, arguments: &[&str]) -> Run {
        let program = [&["exec-netns", env!("CARGO_BIN_EXE_meltemi")], arguments].concat();
        run(self.command(&program), input)
    }

    /// kubectl, which must succeed.
    pub fn ctl(&self, arguments: &[&str], input: &str) -> String {
        let ended = run(self.command(&[&["ctl"], arguments].concat()), input);
        assert_eq!(ended.code, 0, "kubectl {}: {}", arguments.join(" "), ended.err);
        ended.out
    }

    /// Applies documents as another manager of fields.
    pub fn apply_as(&self, manager: &str, documents: &str) {
        let manager = format!("--field-manager={manager}");
        self.ctl(&["apply", "--server-side", "--force-conflicts", &manager, "-f", "-"], documents);
    }

    /// An object, or null.
    pub fn get(&self, kind: &str, name: &str) -> Value {
        let text = self.ctl(&["get", kind, "-n", "istio-system", name, "-o", "json", "--ignore-not-found"], "");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The names of all objects, but for those that come and go by themselves.
    pub fn everything(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        until("a list of all objects", || self.listed().map(|listed| found = listed));
        found
    }

    /// Fails where a kind has gone meanwhile.
    fn listed(&self) -> Result<BTreeSet<String>, String> {
        let kinds = self.ctl(&["api-resources", "--verbs=list", "-o", "name"], "");
        let passing = ["events", "events.events.k8s.io", "leases.coordination.k8s.io", "componentstatuses"];
        let kinds: Vec<&str> =
            kinds.lines().filter(|kind| !passing.contains(kind) && !kind.contains("metrics")).collect();
        let columns = "-o=custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name";
        let listed = run(self.command(&["ctl", "get", &kinds.join(","), "-A", columns, "--no-headers"]), "");
        if listed.code != 0 {
            return Err(listed.err);
        }
        let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join("/");
        Ok(listed.out.lines().map(plain).filter(|line| !line.is_empty()).collect())
    }
}

fn run(mut command: Command, input: &str) -> Run {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        // Whatever is left says so itself.
        let _ = self.command(&["down"]).status();
    }
}

/// Waits for a condition that comes by itself.
pub fn until(what: &str, mut condition: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + PATIENCE;
    while let Err(lack) = condition() {
        assert!(Instant::now() < end, "{what}: {lack}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
