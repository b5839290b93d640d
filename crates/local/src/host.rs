//! The host's side of `meltemi up`: what the user sees, the published ports, and the end.
//!
//! Owns the state folder and the child that holds everything else. Must stay single-threaded until the child runs, since
//! only such a process may enter a user namespace. Cost: nothing but the forwarding of [`crate::forward`].

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use crate::address::FABRIC;
use crate::error::LocalError;
use crate::forward::Forwarder;
use crate::images::Images;
use crate::protocol::{Event, Plan, Publish, STOP};
use crate::{ENTER, manifests as documents, mesh, namespaces};

/// How long an orderly end may take before the rest is killed.
const PATIENCE: Duration = Duration::from_secs(4);

/// Discovery's debug pages, inside.
const DEBUG: SocketAddr = SocketAddr::new(IpAddr::V4(FABRIC), 8080);

/// Where the manifests are.
#[derive(Debug, Clone)]
pub enum Manifests {
    /// A folder, or one file.
    Path(PathBuf),
    /// Files by name, written into the run's own folder.
    BuiltIn(&'static [(&'static str, &'static str)]),
}

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    pub manifests: Manifests,
    /// The address on which the gateway is published.
    pub address: std::net::IpAddr,
    /// For the gateway's port 80; 0 for any free one.
    pub port: u16,
    /// For the gateway's port 443; 0 for any free one. Unless given, 8443 or any free one.
    pub https_port: Option<u16>,
    /// Image name to host program.
    pub images: BTreeMap<String, PathBuf>,
    /// An Envoy to run as every proxy whose pod names no other.
    pub envoy: Option<PathBuf>,
    pub verbose: bool,
    pub mesh_config: Option<PathBuf>,
    /// The running binary, which starts itself again for every part.
    pub executable: PathBuf,
}

/// Runs the mesh until it is told to end. Must be called before the process has a second thread.
pub fn up(options: &Options) -> Result<(), LocalError> {
    let start = Instant::now();
    require_programs()?;
    let listener = listen(options.address, options.port, "--port")?;
    let state = tempfile::Builder::new().prefix("meltemi-").tempdir().map_err(LocalError::io("state folder"))?;
    let manifests = manifests(&options.manifests, state.path())?;
    check(options, &manifests)?;
    namespaces::gain_privileges()?;
    let mut command = Command::new(&options.executable);
    command.arg(ENTER).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = namespaces::apart(&mut command).spawn().map_err(LocalError::io("starting the fabric"))?;
    let mut stdin = child.stdin.take().ok_or_else(|| LocalError::Fabric("no way to talk to the fabric".to_owned()))?;
    let plan = Plan {
        manifests,
        state: state.path().to_owned(),
        images: options.images.clone(),
        envoy: options.envoy.clone(),
        verbose: options.verbose,
        mesh_config: options.mesh_config.clone(),
    };
    let plan = serde_json::to_string(&plan).map_err(|error| LocalError::Fabric(error.to_string()))?;
    writeln!(stdin, "{plan}").map_err(LocalError::io("talking to the fabric"))?;
    let events = child.stdout.take().ok_or_else(|| LocalError::Fabric("no way to hear the fabric".to_owned()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(LocalError::io("runtime"))?;
    let mut session = Session {
        options,
        start,
        between: i32::try_from(child.id()).unwrap_or_default(),
        init: None,
        listener: Some(listener),
        forwarder: None,
        published: BTreeMap::new(),
        colour: std::io::stdout().is_terminal(),
        ready: false,
        failure: None,
    };
    let outcome = runtime.block_on(session.attend(events));
    let ended = runtime.block_on(async {
        let _ = writeln!(stdin, "{STOP}");
        wait_or_kill(&mut child, session.init).await
    });
    drop(stdin);
    let _ = child.wait();
    let kept = if options.verbose && session.failure.is_some() { Some(state.keep()) } else { None };
    if let Some(folder) = kept {
        eprintln!("kept for inspection: {}", folder.display());
    }
    outcome?;
    match session.failure {
        Some(message) => Err(LocalError::Fabric(message)),
        None => ended,
    }
}

/// The folder or file to read; built-in manifests are written out first.
fn manifests(manifests: &Manifests, state: &Path) -> Result<PathBuf, LocalError> {
    match manifests {
        Manifests::Path(path) if !path.exists() => Err(LocalError::NoManifests(path.clone())),
        Manifests::Path(path) => path.canonicalize().map_err(LocalError::io("manifests")),
        Manifests::BuiltIn(files) => {
            let folder = state.join("manifests");
            std::fs::create_dir_all(&folder).map_err(LocalError::io("manifests"))?;
            for (name, text) in *files {
                std::fs::write(folder.join(name), text).map_err(LocalError::io(*name))?;
            }
            println!("running the built-in sample; its manifests are in {}", folder.display());
            Ok(folder)
        }
    }
}

/// Everything that can be known to be wrong before anything is started.
fn check(options: &Options, manifests: &Path) -> Result<(), LocalError> {
    let images = Images::new(options.images.clone(), options.executable.clone()).with_envoy(options.envoy.clone());
    let loaded = documents::load(manifests)?;
    let mesh = mesh::load(options.mesh_config.as_deref(), &loaded.objects);
    let config = mesh.as_ref().map(|mesh| mesh.config.clone()).unwrap_or_default();
    let workloads = crate::workload::desired(&loaded.objects, &images, &config);
    let mut wrong = loaded.errors;
    wrong.extend(workloads.errors.into_iter().map(|problem| documents::placed(problem).to_string()));
    if wrong.is_empty() {
        wrong.extend(mesh.err().into_iter().flatten());
    }
    if !wrong.is_empty() {
        return Err(LocalError::Manifests(wrong));
    }
    if workloads.list.is_empty() {
        return Err(LocalError::NothingToRun(manifests.to_owned()));
    }
    Ok(())
}

fn require_programs() -> Result<(), LocalError> {
    for (program, package) in [("ip", "iproute2"), ("iptables-restore", "iptables")] {
        let path = crate::net::search_path();
        if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            return Err(LocalError::Missing { program, package });
        }
    }
    Ok(())
}

fn listen(address: std::net::IpAddr, port: u16, option: &'static str) -> Result<TcpListener, LocalError> {
    TcpListener::bind((address, port)).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => LocalError::PortTaken { address: address.to_string(), port, option },
        _ => LocalError::Listen { address: address.to_string(), port, source },
    })
}

/// Waits for the child to end; after [`PATIENCE`] kills the first process inside, and with it everything there.
async fn wait_or_kill(child: &mut std::process::Child, init: Option<i32>) -> Result<(), LocalError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => return Ok(()),
            Ok(None) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(10)).await,
            Ok(None) => {
                if let Some(init) = init {
                    let _ = kill(Pid::from_raw(init), Signal::SIGKILL);
                }
                let _ = child.kill();
                return Ok(());
            }
            Err(source) => return Err(LocalError::io("waiting for the fabric")(source)),
        }
    }
}

struct Session<'a> {
    options: &'a Options,
    start: Instant,
    /// The process between, whose network namespace is the fabric's.
    between: i32,
    init: Option<i32>,
    listener: Option<TcpListener>,
    forwarder: Option<Forwarder>,
    /// Gateway port to the host's.
    published: BTreeMap<u16, (Publish, SocketAddr)>,
    colour: bool,
    /// Ports that come later are told one by one.
    ready: bool,
    failure: Option<String>,
}

impl Session<'_> {
    /// Shows what the inside reports until it ends or a signal asks for the end.
    async fn attend(&mut self, events: std::process::ChildStdout) -> Result<(), LocalError> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(LocalError::io("signals"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(LocalError::io("signals"))?;
        let mut hangup = signal(SignalKind::hangup()).map_err(LocalError::io("signals"))?;
        let pipe = Receiver::from_owned_fd(events.into()).map_err(LocalError::io("talking to the fabric"))?;
        let mut lines = BufReader::new(pipe).lines();
        loop {
            tokio::select! {
                line = lines.next_line() => match line {
                    Ok(Some(line)) => self.show(&line)?,
                    Ok(None) | Err(_) => {
                        self.failure.get_or_insert_with(|| "the fabric ended of itself".to_owned());
                        return Ok(());
                    }
                },
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = hangup.recv() => break,
            }
        }
        self.say("stopping");
        Ok(())
    }

    fn say(&self, text: &str) {
        // A closed terminal must not stop the orderly end.
        let _ = writeln!(std::io::stdout(), "{text}");
        let _ = std::io::stdout().flush();
    }

    fn show(&mut self, line: &str) -> Result<(), LocalError> {
        let event: Event = match serde_json::from_str(line) {
            Ok(event) => event,
            Err(_) => {
                self.say(line);
                return Ok(());
            }
        };
        match event {
            Event::Init { pid } => self.init = Some(pid),
            Event::Line { text } => self.say(&text),
            Event::Output { source, text } if self.colour => self.say(&format!("\x1b[2m{source}\x1b[0m {text}")),
            Event::Output { source, text } => self.say(&format!("{source} {text}")),
            Event::Gateway { address, ports } => self.publish(address, &ports)?,
            Event::Ready { workloads } => self.ready(workloads)?,
            Event::Failed { message } => self.failure = Some(message),
        }
        Ok(())
    }

    /// Makes a listener of the host lead to an address inside; says where it listens.
    fn forward(&mut self, listener: TcpListener, target: SocketAddr) -> Result<SocketAddr, LocalError> {
        let local = listener.local_addr().map_err(LocalError::io("listener"))?;
        if self.forwarder.is_none() {
            self.forwarder = Some(Forwarder::start(self.between)?);
        }
        if let Some(forwarder) = &self.forwarder {
            forwarder.forward(listener, target)?;
        }
        Ok(local)
    }

    fn publish(&mut self, address: Ipv4Addr, ports: &[Publish]) -> Result<(), LocalError> {
        for publish in ports {
            if self.published.contains_key(&publish.port) {
                continue;
            }
            let listener = match (publish.port, self.listener.take()) {
                (80, Some(listener)) => listener,
                (443, listener) => {
                    self.listener = listener;
                    self.listen_https()?
                }
                (port, listener) => {
                    self.listener = listener;
                    let same = (port >= 1024).then(|| listen(self.options.address, port, "--port").ok()).flatten();
                    same.map_or_else(|| listen(self.options.address, 0, "--port"), Ok)?
                }
            };
            let local = self.forward(listener, SocketAddr::from((address, publish.target)))?;
            self.published.insert(publish.port, (*publish, local));
            if self.ready {
                self.tell(*publish, local);
            }
        }
        Ok(())
    }

    fn listen_https(&self) -> Result<TcpListener, LocalError> {
        let address = self.options.address;
        match self.options.https_port {
            Some(port) => listen(address, port, "--https-port"),
            None => listen(address, 8443, "--https-port").or_else(|_| listen(address, 0, "--https-port")),
        }
    }

    fn tell(&self, publish: Publish, local: SocketAddr) {
        let scheme = match (publish.http, publish.tls) {
            (true, true) => "https",
            (true, false) => "http",
            (false, true) => "tls",
            (false, false) => "tcp",
        };
        self.say(&format!("gateway port {}: {scheme}://{local}", publish.port));
    }

    fn ready(&mut self, workloads: usize) -> Result<(), LocalError> {
        self.ready = true;
        // On loopback whatever the gateway's address: the pages show the whole mesh.
        let debug = self.forward(listen(Ipv4Addr::LOCALHOST.into(), 0, "--port")?, DEBUG)?;
        let seconds = self.start.elapsed().as_secs_f64();
        self.say(&format!("{workloads} workloads serve after {seconds:.1} s; Ctrl-C ends them"));
        for (publish, local) in self.published.values().filter(|(publish, _)| publish.port != 80) {
            self.tell(*publish, *local);
        }
        self.say(&format!("control plane: http://{debug}/debug/syncz"));
        if let Some((_, local)) = self.published.get(&80) {
            self.say(&format!("ready: http://{local}"));
        }
        Ok(())
    }
}
