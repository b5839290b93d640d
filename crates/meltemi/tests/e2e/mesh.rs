//! A mesh of `meltemi up` for tests: its manifests, which are edited while it runs, and the network namespaces of its pods, from
//! which requests are made as the application there would make them.

use crate::support::{Answer, Process, meltemi, read_answer};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(90);
/// How long an edit may take to be in force everywhere, on a loaded machine.
const SETTLE: Duration = Duration::from_secs(20);

/// Whether this machine lets us make namespaces and rules; the reason otherwise.
pub fn can_run() -> Result<(), String> {
    for tool in ["ip", "iptables-restore", "nsenter", "curl"] {
        let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(tool).exists());
        if !found {
            return Err(format!("skipped: no {tool}; scripts/install-test-deps.sh installs it"));
        }
    }
    let unshare = Command::new("unshare").args(["--user", "--map-root-user", "--net", "true"]).output();
    match unshare {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err("skipped: user namespaces are forbidden here".to_owned()),
    }
}

/// One Deployment with what it needs, written as a user would.
pub struct Workload<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// `key: value` pairs of the pods, separated by commas.
    pub labels: &'a str,
    pub annotations: &'a str,
    pub account: &'a str,
    pub replicas: u32,
    /// As a YAML list; the image is our own program.
    pub args: &'a str,
    /// As a YAML list; empty for the image's own program.
    pub command: &'a str,
    pub ports: &'a [u16],
}

impl Default for Workload<'_> {
    fn default() -> Self {
        Self {
            namespace: "app",
            name: "",
            labels: "",
            annotations: "",
            account: "default",
            replicas: 1,
            args: "[echo, --http, '8080']",
            command: "",
            ports: &[8080],
        }
    }
}

impl Workload<'_> {
    pub fn yaml(&self) -> String {
        let Self { namespace, name, labels, annotations, account, replicas, args, command, ports } = self;
        let ports: Vec<_> = ports.iter().map(|port| format!("{{containerPort: {port}}}")).collect();
        let command = if command.is_empty() { String::new() } else { format!("command: {command}, ") };
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{{labels}}}}}\n  template:\n    metadata: {{labels: {{{labels}}}, annotations: {{{annotations}}}}}\n    spec:\n      serviceAccountName: {account}\n      containers:\n      - {{name: app, image: meltemi, {command}args: {args}, ports: [{}], env: [{{name: ECHO_SERVICE, value: {name}}}, {{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]}}\n---\n",
            ports.join(", ")
        )
    }
}

/// A Service; `spec` is the inside of its YAML map.
pub fn service(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n"
    )
}

pub struct Mesh {
    pub process: Process,
    pub ingress: SocketAddr,
    manifests: PathBuf,
    /// In the environment of every process of this mesh, and of no other.
    mark: PathBuf,
}

impl Mesh {
    /// Starts a mesh over manifests written into `dir`, and waits until it is ready.
    pub fn start(dir: &Path, files: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut command = meltemi();
        command.args(arguments);
        Self::start_by(command, dir, files)
    }

    /// As [`Self::start`]; `command` may wrap our program, with more arguments to come.
    pub fn start_by(mut command: Command, dir: &Path, files: &[(&str, &str)]) -> Self {
        let manifests = dir.join("manifests");
        std::fs::create_dir_all(&manifests).expect("folder");
        for (name, text) in files {
            std::fs::write(manifests.join(name), text).expect("write");
        }
        Self::over(&mut command, &manifests, dir)
    }

    /// Starts a mesh over a folder that is there.
    pub fn over(command: &mut Command, manifests: &Path, dir: &Path) -> Self {
        let mark = dir.join("tmp");
        std::fs::create_dir_all(&mark).expect("folder");
        // The global arguments come first, so that `up` gets what the caller gave.
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let mut whole = Command::new(command.get_program());
        whole.arg("up").arg("-f").arg(manifests).args(["--port", "0", "--https-port", "0"]).args(arguments);
        whole.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        // Or a user without privileges could not find the processes by their environment.
        whole.env("TMPDIR", &mark).env("MELTEMI_DUMPABLE", "1");
        let mut process = Process::start("up", &mut whole, dir);
        let end = Instant::now() + START;
        loop {
            let output = process.output();
            if let Some(url) = output.lines().find_map(|line| line.trim().strip_prefix("ready: http://")) {
                let ingress = url.trim_end_matches('/').parse().expect("an address");
                return Self { process, ingress, manifests: manifests.to_owned(), mark };
            }
            assert!(process.is_running() && Instant::now() < end, "no mesh:\n{output}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Replaces a manifest whole, as editors do.
    pub fn write(&self, name: &str, text: &str) {
        let part = self.manifests.join(format!(".{name}.part"));
        std::fs::write(&part, text).expect("write");
        std::fs::rename(part, self.manifests.join(name)).expect("rename");
    }

    /// Waits until `up` has said so.
    pub fn told(&self, part: &str) -> Result<(), String> {
        settles(|| {
            let output = self.process.output();
            if output.contains(part) { Ok(()) } else { Err(format!("{part:?} is not in\n{output}")) }
        })
    }

    /// What the proxies of a workload's pods logged.
    pub fn proxy_log(&self, workload: &str) -> String {
        let files =
            |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let logs = files(self.mark.clone()).flat_map(|run| files(run.join("logs")));
        let wanted = logs.filter(|log| {
            let name = log.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.contains(&format!(".{workload}-")) && name.ends_with(".istio-proxy.log")
        });
        wanted.filter_map(|log| std::fs::read_to_string(log).ok()).collect()
    }

    /// The host's address of another port of the gateway: `gateway port 443: https://…`.
    pub fn gateway(&self, port: u16) -> SocketAddr {
        let output = self.process.output();
        let start = format!("gateway port {port}: ");
        let url = output.lines().rev().find_map(|line| line.trim().strip_prefix(&start));
        let url = url.unwrap_or_else(|| panic!("no gateway port {port}:\n{output}"));
        url.split("//").nth(1).and_then(|address| address.parse().ok()).expect("an address")
    }

    /// Every process of this mesh: id, command line and environment.
    fn processes(&self) -> Vec<(u32, String, Vec<String>)> {
        processes_of(&self.mark)
    }

    /// The process in a pod whose name starts with `workload-`, or discovery (`istiod`).
    pub fn pod(&self, workload: &str) -> Pod {
        self.find_pod(workload).unwrap_or_else(|| panic!("no pod of {workload}:\n{}", self.process.output()))
    }

    pub fn pods(&self, workload: &str) -> Vec<Pod> {
        let mut pods: Vec<Pod> = Vec::new();
        for (pid, line, environment) in self.processes() {
            let name = if line.contains(" discovery ") { Some("istiod-0".to_owned()) } else { pod_name(&environment) };
            let Some(name) = name.filter(|name| name.strip_prefix(workload).is_some_and(|rest| rest.starts_with('-')))
            else {
                continue;
            };
            if !pods.iter().any(|pod| pod.name == name) {
                pods.push(Pod { pid, name });
            }
        }
        pods
    }

    fn find_pod(&self, workload: &str) -> Option<Pod> {
        self.pods(workload).into_iter().next()
    }

    /// The ids of the processes of a pod whose command line contains `part`.
    pub fn process_ids(&self, workload: &str, part: &str) -> Vec<u32> {
        let found = self.processes().into_iter().filter(|(_, line, environment)| {
            line.contains(part) && pod_name(environment).is_some_and(|name| name.starts_with(&format!("{workload}-")))
        });
        found.map(|(pid, ..)| pid).collect()
    }

    /// GET through the gateway.
    pub fn get(&self, host: &str, path: &str) -> Result<Answer, String> {
        crate::support::get(self.ingress, host, path)
    }
}

fn pod_name(environment: &[String]) -> Option<String> {
    let find = |key: &str| environment.iter().rev().find_map(|entry| entry.strip_prefix(key));
    find("POD_NAME=").or_else(|| find("HOSTNAME=")).map(str::to_owned)
}

/// Processes whose environment says `TMPDIR=mark`, but this one.
pub fn processes_of(mark: &Path) -> Vec<(u32, String, Vec<String>)> {
    let wanted = format!("TMPDIR={}", mark.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let words = |bytes: Vec<u8>| -> Vec<String> {
            bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
        };
        let environment = words(read("environ"));
        if environment.contains(&wanted) {
            found.push((pid, words(read("cmdline")).join(" "), environment));
        }
    }
    found.sort();
    found
}

/// A place in the mesh's network from which commands run.
#[derive(Debug, Clone)]
pub struct Pod {
    pid: u32,
    pub name: String,
}

impl Pod {
    /// A program of this machine in the pod's namespaces.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.pid.to_string()).args(["--net", "--mount"]);
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        if namespace(&self.pid.to_string()) != namespace("self") {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--wdns=/").arg("--").arg(program).stdin(Stdio::null());
        command
    }

    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program).args(arguments).output().expect("nsenter")
    }

    /// `curl` with these words; the answer with its headers, or curl's error.
    pub fn curl(&self, arguments: &str) -> Result<Answer, String> {
        let words = split_words(arguments);
        let mut command = self.command("curl");
        let output = command.args(["-sS", "-i", "--raw", "--max-time", "10"]).args(&words).output().expect("nsenter");
        if !output.status.success() {
            return Err(format!("curl {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        read_answer(&mut &output.stdout[..], words.iter().any(|word| word == "-I"))
    }

    /// The answers' `x-served-by` to many GETs on one connection, counted. `url` has curl's `[1-100]`.
    pub fn served_by(&self, arguments: &str) -> Result<std::collections::BTreeMap<String, u32>, String> {
        let words = split_words(arguments);
        let mut command = self.command("curl");
        command.args(["-sS", "-o", "/dev/null", "--max-time", "60", "-w", "%{http_code} %header{x-served-by-pod}\n"]);
        let output = command.args(&words).output().expect("nsenter");
        if !output.status.success() {
            return Err(format!("curl {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        let mut counts = std::collections::BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let (status, pod) = line.split_once(' ').unwrap_or((line, ""));
            let workload = pod.split('-').take(2).collect::<Vec<_>>().join("-");
            let key = if status == "200" { workload } else { status.to_owned() };
            *counts.entry(key).or_default() += 1;
        }
        Ok(counts)
    }

    /// The pod's own address.
    pub fn address(&self) -> std::net::Ipv4Addr {
        let output = self.run("ip", &["-4", "-o", "addr", "show", "dev", "eth0"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let address = text.split_whitespace().skip_while(|word| *word != "inet").nth(1);
        address.and_then(|text| text.split('/').next()?.parse().ok()).unwrap_or_else(|| panic!("no address: {text}"))
    }
}

/// Words as a shell has them, with single quotes.
fn split_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for character in text.chars() {
        match character {
            '\'' => (quoted, any) = (!quoted, true),
            c if c.is_whitespace() && !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

/// Asks until it holds; an edit takes a moment to be in force everywhere. The last reason otherwise.
pub fn settles(mut holds: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let end = Instant::now() + SETTLE;
    loop {
        match holds() {
            Ok(()) => return Ok(()),
            Err(reason) if Instant::now() > end => return Err(reason),
            Err(_) => std::thread::sleep(Duration::from_millis(30)),
        }
    }
}
