//! Discovery as a process, and what it says of itself.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::kubernetes::{Kubernetes, PATIENCE};

/// Nobody else is in the cluster's network.
static PORTS: AtomicU16 = AtomicU16::new(20_000);

/// A control plane of the cluster, killed when dropped.
pub struct Discovery {
    child: Child,
    pub grpc: SocketAddr,
    pub secure: SocketAddr,
    http: SocketAddr,
    log: PathBuf,
}

impl Discovery {
    /// Starts it and waits until it serves.
    pub fn start(cluster: &Kubernetes, more: &[&str]) -> Self {
        let mut discovery = Self::launch(cluster, more);
        discovery.wait();
        discovery
    }

    /// Starts it, whether it can serve or not.
    pub fn launch(cluster: &Kubernetes, more: &[&str]) -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], PORTS.fetch_add(1, Ordering::Relaxed)));
        let (grpc, secure, http) = (address(), address(), address());
        let log = cluster.folder().join(format!("discovery-{}.log", grpc.port()));
        let file = std::fs::File::create(&log).expect("log file");
        let errors = file.try_clone().expect("log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_meltemi"));
        command.arg("discovery").arg("--kubeconfig").arg(cluster.kubeconfig());
        command.args(["--grpcAddr", &grpc.to_string(), "--secureGRPCAddr", &secure.to_string()]);
        command
            .args([
                "--httpAddr",
                &http.to_string(),
                "--monitoringAddr",
                "",
                "--httpsAddr",
                "",
                "--debounceAfter",
                "10ms",
            ])
            .args(more);
        // Other tests' flags are not this one's.
        command.env_remove("KUBECONFIG").stdin(Stdio::null()).stdout(file).stderr(errors);
        Self { child: command.spawn().expect("meltemi"), grpc, secure, http, log }
    }

    pub fn wait(&mut self) {
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(self.http).is_err() {
            assert!(matches!(self.child.try_wait(), Ok(None)), "discovery ended:\n{}", self.output());
            assert!(Instant::now() < end, "discovery does not serve:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it answers on its HTTP port.
    pub fn text(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.http).expect("discovery's HTTP port");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    pub fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path)).expect("JSON")
    }

    /// As a machine that sleeps.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, signal).expect("our child");
    }

    /// Ends it without a word, as a machine that fails does.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- discovery\n{}", self.output());
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
