//! A cluster of the test's own.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// For whatever a cluster does by itself.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// API server, etcd and controllers; ended and removed when dropped.
pub struct Kubernetes {
    name: String,
    dir: tempfile::TempDir,
}

impl Kubernetes {
    /// Starts it, or says why there is none.
    pub fn start() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("skipped: a cluster needs root".to_owned());
        }
        let name = format!("meltemi-t{}", std::process::id());
        let dir = tempfile::Builder::new().prefix("k8s").tempdir().map_err(|error| error.to_string())?;
        let cluster = Self { name, dir };
        if !cluster.programs().join("kube-apiserver").exists() {
            return Err("skipped: no Kubernetes; `scripts/kubernetes/cluster build` makes it".to_owned());
        }
        let started = cluster.script(&["up", "--api-only"]).output().map_err(|error| error.to_string())?;
        if !started.status.success() {
            return Err(format!("skipped: no cluster here: {}", String::from_utf8_lossy(&started.stderr)));
        }
        // Where every control plane is.
        cluster.run(&["ctl", "create", "namespace", "istio-system"]);
        Ok(cluster)
    }

    fn programs(&self) -> PathBuf {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/meltemi");
        let cache = std::env::var_os("MELTEMI_CACHE").map_or_else(home, PathBuf::from);
        std::env::var_os("KUBE_BIN").map_or_else(|| cache.join("kubernetes/v1.36.2"), PathBuf::from)
    }

    fn script(&self, arguments: &[&str]) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kubernetes/cluster");
        let mut command = Command::new(script);
        command.args(arguments).env("KUBE_NS", &self.name).env("KUBE_DIR", self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Has this thread, and what it starts, in the cluster's network.
    pub fn enter(&self) {
        let namespace = File::open(format!("/run/netns/{}", self.name)).expect("the cluster's namespace");
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("enter it");
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// Takes the API server away, or gives it back.
    pub fn api(&self, verb: &str) {
        self.run(&["api", verb]);
    }

    /// Keeps a copy of all that is stored, or goes back to it.
    pub fn storage(&self, verb: &str) {
        self.run(&["etcd", verb]);
    }

    fn run(&self, arguments: &[&str]) {
        let output = self.script(arguments).output().expect("the cluster script");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// kubectl, which must succeed.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.try_ctl(arguments, "");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {errors}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn try_ctl(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(self.programs().join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("input");
        child.wait_with_output().expect("kubectl")
    }

    pub fn apply(&self, documents: &str) {
        let output = self.try_ctl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], documents);
        assert!(output.status.success(), "{documents}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    /// A namespace of a case's own.
    pub fn namespace(&self, name: &str) {
        self.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n"));
    }

    /// An object as JSON, or nothing.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let output = self.try_ctl(&["get", kind, "-n", namespace, name, "-o", "json"], "");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// A token of an account, made by the API server.
    pub fn token(&self, namespace: &str, account: &str, audience: &str) -> String {
        let arguments = ["create", "token", account, "-n", namespace, "--audience", audience];
        self.ctl(&arguments).trim().to_owned()
    }
}

impl Drop for Kubernetes {
    fn drop(&mut self) {
        // Whatever is left says so itself.
        let _ = self.script(&["down"]).status();
    }
}

/// Waits for a condition that comes by itself, and gives what came.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(100));
    }
}
