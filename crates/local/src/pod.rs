//! One replica: a thread in a network and a mount namespace of its own, where its programs and its proxy run.
//!
//! Whatever this thread starts and connects is inside; the capture rules are the same that a Kubernetes pod gets.
//! Ends by closing the namespaces, which takes the link with it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use meltemi_netfilter::{Bypass, Capture, Dns, Family, List};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};
use tokio::sync::{mpsc, watch};

use crate::address::{FABRIC, Slot};
use crate::error::LocalError;
use crate::process::{Events, Life, Program, stopped, supervise};
use crate::workload::{Replica, Role};
use crate::{namespaces, net};

mod informed;
mod probe;
mod proxy;

pub(crate) use informed::Expected;
pub(crate) use proxy::SOCKET_MARK;

/// What every replica shares.
pub(crate) struct Shared {
    pub state: PathBuf,
    pub executable: PathBuf,
    pub root_certificate: PathBuf,
    /// What identities of this mesh begin with.
    pub trust_domain: String,
    pub mesh_id: String,
    pub verbose: bool,
    pub events: Events,
    /// Becomes true when discovery accepts.
    pub discovery: watch::Receiver<bool>,
    /// For replicas outside of the mesh: [`crate::service_rules`] as they now are.
    pub service_rules: watch::Receiver<String>,
    /// What proxies must know before the mesh is announced.
    pub expected: watch::Receiver<Expected>,
}

/// What a replica tells its keeper: its key, and how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Status {
    Served(probe::Served),
    /// Its proxy knows what was expected as of this generation.
    Informed(u64),
    Failed(String),
    Ended,
}

pub(crate) type Statuses = mpsc::Sender<(String, Status)>;

/// A replica's thread, before its link exists and after.
pub(crate) struct Handle {
    pub thread: Pid,
    linked: Option<std::sync::mpsc::SyncSender<()>>,
    stop: watch::Sender<bool>,
}

impl Handle {
    /// Tells the thread that its end of the link is there.
    pub fn linked(&mut self) {
        if let Some(linked) = self.linked.take() {
            let _ = linked.send(());
        }
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// For stopping later, when the handle may be gone.
    pub fn stopper(&self) -> watch::Sender<bool> {
        self.stop.clone()
    }
}

/// One replica's part of the work.
pub(crate) struct Pod {
    pub replica: Arc<Replica>,
    pub slot: Slot,
    pub token: String,
    pub shared: Arc<Shared>,
    pub statuses: Statuses,
}

/// Starts the thread; returns once it has its namespaces.
pub(crate) fn start(pod: Pod) -> Result<Handle, LocalError> {
    let (entered, has_entered) = std::sync::mpsc::sync_channel(1);
    let (linked, is_linked) = std::sync::mpsc::sync_channel(1);
    let (stop, stopping) = watch::channel(false);
    let name = pod.replica.name.clone();
    let body = move || {
        let result = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).map(|()| gettid());
        let _ = entered.send(result);
        // Without a link there is nothing to do: the keeper has given up.
        if is_linked.recv().is_ok() {
            pod.live(stopping);
        }
    };
    thread::Builder::new().name(name.clone()).spawn(body).map_err(LocalError::io("replica's thread"))?;
    match has_entered.recv() {
        Ok(Ok(thread)) => Ok(Handle { thread, linked: Some(linked), stop }),
        Ok(Err(errno)) => Err(LocalError::sys(format!("{name}: namespaces"))(errno)),
        Err(_) => Err(LocalError::Fabric(format!("{name}: its thread ended"))),
    }
}

impl Pod {
    fn live(self, stopping: watch::Receiver<bool>) {
        let key = self.replica.key();
        let tell = |status| drop(self.statuses.blocking_send((key.clone(), status)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let prepared = self.prepare().and_then(|folder| Ok((folder, runtime.map_err(LocalError::io("runtime"))?)));
        match prepared {
            Ok((folder, runtime)) => runtime.block_on(self.run(&folder, stopping)),
            Err(error) => tell(Status::Failed(format!("{}: {error}", self.replica.name))),
        }
        let _ = fs::remove_dir_all(self.folder());
        tell(Status::Ended);
    }

    fn address(&self) -> Ipv4Addr {
        self.slot.address()
    }

    fn folder(&self) -> PathBuf {
        self.shared.state.join("pods").join(format!(
            "{}.{}.{}",
            self.replica.namespace,
            self.replica.name,
            self.slot.link()
        ))
    }

    /// Network, name resolution, identity and capture.
    fn prepare(&self) -> Result<PathBuf, LocalError> {
        let folder = self.folder();
        fs::create_dir_all(&folder).map_err(LocalError::io("pod folder"))?;
        net::configure_link(self.slot)?;
        self.resolution(&folder)?;
        if self.replica.role != Role::Plain {
            proxy::write_files(self, &folder)?;
        }
        if self.replica.role == Role::Sidecar {
            let program = meltemi_netfilter::Program { flavour: None, lock_file: Some(folder.join("xtables.lock")) };
            let captured = meltemi_netfilter::install(&self.capture()?, &[Family::V4], &program);
            captured.map_err(|error| LocalError::Fabric(error.to_string()))?;
        }
        Ok(folder)
    }

    /// `/etc/resolv.conf`, `/etc/hosts` and the order of their use, as a container has them.
    fn resolution(&self, folder: &Path) -> Result<(), LocalError> {
        let Replica { name, namespace, .. } = &*self.replica;
        let place = |file: &str, target: &str, content: String| {
            let path = folder.join(file);
            fs::write(&path, content).map_err(LocalError::io(file.to_owned()))?;
            if Path::new(target).exists() { namespaces::bind(&path, Path::new(target)) } else { Ok(()) }
        };
        let search = format!("{namespace}.svc.cluster.local svc.cluster.local cluster.local");
        place(
            "resolv.conf",
            "/etc/resolv.conf",
            format!("nameserver {FABRIC}\nsearch {search}\noptions ndots:5 timeout:2 attempts:2\n"),
        )?;
        let istiod = "istiod.istio-system.svc istiod.istio-system.svc.cluster.local";
        let address = self.address();
        place(
            "hosts",
            "/etc/hosts",
            format!("127.0.0.1 localhost\n::1 localhost\n{address} {name}\n{FABRIC} {istiod}\n"),
        )?;
        // Some systems ask a resolver of the host's through a socket, which would answer with the host's view.
        let order = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
        let own = order.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
        let order: String = own.chain(["hosts: files dns"]).map(|line| format!("{line}\n")).collect();
        place("nsswitch.conf", "/etc/nsswitch.conf", order)
    }

    /// Everything but the proxy's own ports, as the annotations narrow it.
    fn capture(&self) -> Result<Capture, LocalError> {
        let says =
            |key: &str| self.replica.annotations.get(&format!("traffic.sidecar.istio.io/{key}")).map(String::as_str);
        let wrong = |error: meltemi_netfilter::CaptureError| LocalError::Fabric(error.to_string());
        let mut exclude = Capture::parse_ports("excludeInboundPorts", says("excludeInboundPorts").unwrap_or_default())
            .map_err(wrong)?;
        exclude.extend([15090, 15021, 15020]);
        let ports = |key: &'static str| Capture::parse_ports(key, says(key).unwrap_or_default()).map_err(wrong);
        let inbound = says("includeInboundPorts").unwrap_or("*");
        let ranges = says("includeOutboundIPRanges").unwrap_or("*");
        let excluded_ranges = says("excludeOutboundIPRanges").unwrap_or_default();
        Ok(Capture {
            bypass: Bypass::Mark(SOCKET_MARK),
            inbound_ports: Capture::parse_port_list("includeInboundPorts", inbound).map_err(wrong)?,
            inbound_ports_exclude: exclude,
            outbound_ports: ports("includeOutboundPorts")?,
            outbound_ports_exclude: ports("excludeOutboundPorts")?,
            outbound_ranges: Capture::parse_range_list("includeOutboundIPRanges", ranges).map_err(wrong)?,
            outbound_ranges_exclude: Capture::parse_ranges("excludeOutboundIPRanges", excluded_ranges)
                .map_err(wrong)?,
            owner_groups: List::All,
            dns: Dns::All,
            ..Capture::default()
        })
    }

    async fn run(&self, folder: &Path, mut stopping: watch::Receiver<bool>) {
        let mut tasks = tokio::task::JoinSet::new();
        let mut lives = Vec::new();
        for program in self.programs(folder) {
            let life = Life::default();
            tasks.spawn(supervise(program, self.shared.events.clone(), stopping.clone(), life.clone()));
            lives.push(life);
        }
        if self.replica.role != Role::Plain {
            let program = proxy::program(self, folder);
            let (events, mut stopping, mut discovery) =
                (self.shared.events.clone(), stopping.clone(), self.shared.discovery.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = stopped(&mut discovery) => {}
                    () = stopped(&mut stopping) => return,
                }
                supervise(program, events, stopping, Life::default()).await;
            });
        }
        // In the mesh only what the proxy itself dials by a service's address, and what capture leaves alone, comes here.
        let pause = if self.replica.role == Role::Plain { Duration::ZERO } else { LAZY };
        let lock = folder.join("xtables.lock");
        tasks.spawn(follow_services(self.shared.service_rules.clone(), stopping.clone(), lock, pause));
        let serves = async || probe::serves(&self.replica, self.address(), &lives).await;
        let watch = probe::watch(serves, |served| {
            let told = self.statuses.try_send((self.replica.key(), Status::Served(served)));
            told.is_ok()
        });
        let informed = async {
            if self.replica.role != Role::Plain {
                let tell =
                    |generation| self.statuses.try_send((self.replica.key(), Status::Informed(generation))).is_ok();
                informed::watch(self.shared.expected.clone(), tell).await;
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            () = watch => {}
            () = informed => {}
            () = stopped(&mut stopping) => {}
        }
        while tasks.join_next().await.is_some() {}
    }

    fn programs(&self, folder: &Path) -> Vec<Program> {
        let containers = self.replica.containers.iter();
        containers
            .map(|container| {
                let environment = self.environment(&container.environment);
                let known: BTreeMap<_, _> = environment.iter().cloned().collect();
                let arguments = container.arguments.iter();
                let label = format!("{}/{}", self.replica.name, container.name);
                Program {
                    program: container.program.clone(),
                    arguments: arguments.map(|text| crate::workload::expand(text, &known)).collect(),
                    environment,
                    folder: container.folder.as_ref().map_or_else(|| folder.to_owned(), PathBuf::from),
                    log: self.log(&container.name),
                    verbose: self.shared.verbose,
                    label,
                }
            })
            .collect()
    }

    fn log(&self, container: &str) -> PathBuf {
        let Replica { name, namespace, .. } = &*self.replica;
        self.shared.state.join("logs").join(format!("{namespace}.{name}.{container}.log"))
    }

    fn environment(&self, plan: &[(String, crate::workload::EnvValue)]) -> Vec<(String, String)> {
        use crate::workload::EnvValue;
        let mut known = BTreeMap::from([("HOSTNAME".to_owned(), self.replica.name.clone())]);
        let mut environment = vec![("HOSTNAME".to_owned(), self.replica.name.clone())];
        for (name, value) in plan {
            let text = match value {
                EnvValue::Text(text) => crate::workload::expand(text, &known),
                EnvValue::PodName => self.replica.name.clone(),
                EnvValue::PodAddress => self.address().to_string(),
                EnvValue::HostAddress => FABRIC.to_string(),
            };
            known.insert(name.clone(), text.clone());
            environment.push((name.clone(), text));
        }
        environment
    }
}

/// How long a change of services may wait for others where few connections depend on it.
const LAZY: Duration = Duration::from_millis(250);

/// Keeps the way to services in this namespace up to date; each change waits a `pause` for more.
async fn follow_services(
    mut rules: watch::Receiver<String>,
    mut stopping: watch::Receiver<bool>,
    lock: PathBuf,
    pause: Duration,
) {
    let program = meltemi_netfilter::Program { flavour: None, lock_file: Some(lock) };
    let hooked = program.restore(Family::V4, &crate::service_rules::hook_text());
    if let Err(error) = hooked {
        return tracing::warn!(%error, "services are out of reach");
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopped(&mut stopping) => return,
        }
        let text = rules.borrow_and_update().clone();
        if let Err(error) = program.restore(Family::V4, &text) {
            tracing::warn!(%error, "services are out of reach");
        }
        tokio::select! {
            changed = rules.changed() => if changed.is_err() { return },
            () = stopped(&mut stopping) => return,
        }
    }
}

/// Whether something accepts at an address, as seen from the calling thread's network namespace.
pub(crate) async fn accepts(address: SocketAddr) -> bool {
    const PATIENCE: Duration = Duration::from_millis(500);
    matches!(tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(address)).await, Ok(Ok(_)))
}
