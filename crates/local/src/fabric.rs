//! The keeper of the mesh, the first process inside: makes what runs be what the manifests ask for.
//!
//! Owns the bridge, discovery, the replicas' threads and the documents that discovery reads. Follows the manifests as
//! they change. Everything it starts ends with it, by the kernel's hand if need be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::BufRead;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meltemi_config::mesh::MeshConfig;
use meltemi_config::{Key, Object, Problem, Str};
use meltemi_store::{ChangeSet, Changes, ConfigSet, ConfigStore, FileStore};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use crate::address::{FABRIC, Slot, Slots};
use crate::docs::{self, Folder};
use crate::error::LocalError;
use crate::images::Images;
use crate::pod::{self, Expected, Handle, Pod, Shared, Status, accepts};
use crate::process::{Life, Program, stopped, supervise};
use crate::protocol::{Event, Plan, Publish, STOP};
use crate::resolver::{self, Zone};
use crate::workload::{self, Replica, Role};
use crate::{Credentials, Discovery, manifests, mesh, namespaces, net, report, service_rules};

mod files;
mod readiness;

use files::Files;

/// How long a replaced replica serves on while its successor starts.
const REPLACEMENT: Duration = Duration::from_secs(10);
/// Between taking a replica's endpoints away and stopping it: connections under way end, proxies hear of it.
const DRAIN: Duration = Duration::from_millis(700);
/// How long the inside may take to end in order.
const ENDING: Duration = Duration::from_millis(600);
/// How long the announcement waits, once every replica serves, for what proxies do not come to know or to listen on.
const PATIENCE: Duration = Duration::from_secs(20);
const DISCOVERY_PORT: u16 = 15012;

/// Runs until the host's process says stop.
pub(crate) fn run(executable: &Path, credentials: &dyn Credentials) -> Result<(), LocalError> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(LocalError::io("hearing the host"))?;
    let plan: Plan = serde_json::from_str(&line).map_err(|error| LocalError::Fabric(format!("plan: {error}")))?;
    let stop = follow_host(plan.state.clone())?;
    namespaces::mount_proc();
    for folder in ["logs", "pods", "ca"] {
        fs::create_dir_all(plan.state.join(folder)).map_err(LocalError::io("state folder"))?;
    }
    net::make_bridge()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(LocalError::io("runtime"))?;
    runtime.block_on(Fabric::main(plan, executable, credentials, stop))
}

/// A thread that hears the host's process: `stop` is passed on, and its death is the end of everything.
fn follow_host(state: PathBuf) -> Result<watch::Receiver<bool>, LocalError> {
    let (sender, stop) = watch::channel(false);
    let body = move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line == STOP {
                sender.send_replace(true);
            }
        }
        if !*sender.borrow() {
            let _ = fs::remove_dir_all(&state);
            std::process::exit(1);
        }
    };
    std::thread::Builder::new().name("host".to_owned()).spawn(body).map_err(LocalError::io("thread"))?;
    Ok(stop)
}

/// A replica that runs.
struct Running {
    replica: Arc<Replica>,
    slot: Slot,
    handle: Handle,
    ready: bool,
    /// Up to which generation its proxy knows what is expected of it.
    informed: u64,
    /// Since when it is no longer wanted.
    retired: Option<Instant>,
    stopping: bool,
}

struct Fabric<'a> {
    plan: Plan,
    credentials: &'a dyn Credentials,
    images: Images,
    folder: Folder,
    service_rules: watch::Sender<String>,
    zone: Zone,
    slots: Slots,
    shared: Arc<Shared>,
    statuses: pod::Statuses,
    running: BTreeMap<String, Running>,
    objects: Vec<Object>,
    wanted: BTreeMap<String, Arc<Replica>>,
    /// Why the replicas are not those that the manifests ask for.
    unrunnable: Vec<Problem>,
    published: Option<(Ipv4Addr, Vec<Publish>)>,
    files: Files,
    mesh: Option<mesh::Followed>,
    /// As it was at the start.
    mesh_config: MeshConfig,
    announced: bool,
    /// What proxies must know before the announcement; dropped with it.
    expected: Option<watch::Sender<Expected>>,
    /// Since when everything serves but for what proxies do not know yet.
    complete: Option<Instant>,
}

impl Fabric<'_> {
    async fn main(
        plan: Plan,
        executable: &Path,
        credentials: &dyn Credentials,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), LocalError> {
        let (events, mut shown) = mpsc::channel(4096);
        let (statuses, mut heard) = mpsc::channel(1024);
        let (accepting, discovery_accepts) = watch::channel(false);
        let service_rules = watch::Sender::new(service_rules::restore_text(&[], &BTreeMap::new(), std::iter::empty()));
        let folder = Folder::create(plan.state.join("config"))?;
        let store = FileStore::open(&plan.manifests).map_err(|error| LocalError::Fabric(error.to_string()))?;
        let changes = store.changes();
        let objects: Vec<Object> = changes.seen().iter().cloned().collect();
        let mesh = mesh::load(plan.mesh_config.as_deref(), &objects).map_err(LocalError::Manifests)?;
        let trust_domain = mesh.config.trust_domain.to_string();
        let discovery = credentials.prepare(&plan.state.join("ca"), &trust_domain).map_err(LocalError::Fabric)?;
        let expected = watch::Sender::new(Expected { generation: 1, ..Expected::default() });
        let shared = Shared {
            mesh_id: mesh_id(&mesh.config),
            trust_domain,
            expected: expected.subscribe(),
            state: plan.state.clone(),
            executable: executable.to_owned(),
            root_certificate: discovery.root_certificate.clone(),
            verbose: plan.verbose,
            events: events.clone(),
            discovery: discovery_accepts,
            service_rules: service_rules.subscribe(),
        };
        let mut fabric = Fabric {
            images: Images::new(plan.images.clone(), executable.to_owned()).with_envoy(plan.envoy.clone()),
            mesh: plan.mesh_config.clone().map(mesh::Followed::new),
            mesh_config: mesh.config,
            plan,
            credentials,
            folder,
            service_rules,
            zone: Zone::default(),
            slots: Slots::default(),
            shared: Arc::new(shared),
            statuses,
            running: BTreeMap::new(),
            objects: Vec::new(),
            wanted: BTreeMap::new(),
            unrunnable: Vec::new(),
            published: None,
            files: Files::default(),
            announced: false,
            expected: Some(expected),
            complete: None,
        };
        fabric.serve_names().await?;
        mesh.warnings.iter().for_each(|warning| fabric.say(warning));
        fabric.follow(objects)?;
        fabric.show_files(&store, BTreeSet::new());
        let program = fabric.discovery(discovery);
        let supervised = tokio::spawn(supervise(program, events, stop.clone(), Life::default()));
        tokio::spawn(readiness::of_discovery(accepting));
        fabric.attend(&store, changes, &mut shown, &mut heard, &mut stop).await?;
        fabric.end(heard, supervised).await;
        Ok(())
    }

    /// Answers the cluster's DNS from its zone, as long as the inside lives.
    async fn serve_names(&self) -> Result<(), LocalError> {
        let socket = UdpSocket::bind((FABRIC, 53)).await.map_err(LocalError::io("cluster DNS"))?;
        tokio::spawn(resolver::serve(socket, self.zone.clone()));
        Ok(())
    }

    /// Follows the manifests and what runs until told to stop.
    async fn attend(
        &mut self,
        store: &FileStore,
        mut changes: Changes,
        shown: &mut mpsc::Receiver<Event>,
        heard: &mut mpsc::Receiver<(String, Status)>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), LocalError> {
        let mut problems = store.watch_problems();
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                () = stopped(stop) => return Ok(()),
                Some(event) = shown.recv() => report(&event),
                Some((key, status)) = heard.recv() => self.hear(key, status)?,
                Some((set, changed)) = changes.next() => self.changed(store, &set, &changed)?,
                Ok(()) = problems.changed() => self.show_files(store, BTreeSet::new()),
                _ = tick.tick() => {
                    self.look_at_mesh();
                    self.retire().await?;
                }
            }
        }
    }

    /// Stops every replica and waits for them, but not for long: the kernel ends what remains.
    async fn end(&mut self, mut heard: mpsc::Receiver<(String, Status)>, discovery: tokio::task::JoinHandle<()>) {
        for running in self.running.values() {
            running.handle.stop();
        }
        let all = async {
            while !self.running.is_empty() {
                let Some((key, status)) = heard.recv().await else { break };
                if status == Status::Ended {
                    self.running.remove(&key);
                }
            }
            let _ = discovery.await;
        };
        let _ = tokio::time::timeout(ENDING, all).await;
    }

    fn discovery(&self, discovery: Discovery) -> Program {
        let address = |port: u16| format!("{FABRIC}:{port}");
        let mut arguments: Vec<String> = ["discovery", "--httpsAddr=", "--configDir"].map(str::to_owned).to_vec();
        arguments.push(self.folder.path().display().to_string());
        for (flag, port) in
            [("grpcAddr", 15010), ("secureGRPCAddr", DISCOVERY_PORT), ("httpAddr", 8080), ("monitoringAddr", 15014)]
        {
            arguments.extend([format!("--{flag}"), address(port)]);
        }
        // As the sidecars have it.
        arguments.extend(["--trust-domain".to_owned(), self.shared.trust_domain.clone()]);
        if let Some(mesh) = &self.plan.mesh_config {
            arguments.extend(["--meshConfig".to_owned(), mesh.display().to_string()]);
        }
        arguments.extend(discovery.arguments);
        Program {
            label: "istiod".to_owned(),
            program: self.shared.executable.clone(),
            arguments,
            environment: discovery.environment,
            folder: self.plan.state.clone(),
            log: self.plan.state.join("logs").join("istiod.log"),
            verbose: self.plan.verbose,
        }
    }

    fn say(&self, text: impl Into<String>) {
        report(&Event::Line { text: text.into() });
    }

    /// Takes an edit of the manifests.
    fn changed(&mut self, store: &FileStore, set: &ConfigSet, changed: &ChangeSet) -> Result<(), LocalError> {
        let touched = files::touched(&self.objects, set, changed);
        self.follow(set.iter().cloned().collect())?;
        self.show_files(store, touched);
        if !self.unrunnable.is_empty() {
            self.say("the replicas stay as they are until this is put right");
        }
        self.note_mesh(set, changed);
        Ok(())
    }

    /// Shows each problem once, when it appears, and each file that is in force after an edit.
    fn show_files(&mut self, store: &FileStore, touched: BTreeSet<Str>) {
        let problems: Vec<_> = store.problems().iter().chain(&self.unrunnable).cloned().collect();
        for line in self.files.news(&problems, touched, &self.plan.manifests) {
            self.say(line);
        }
    }

    fn look_at_mesh(&mut self) {
        let news = self.mesh.as_mut().map(|mesh| mesh.news(&self.shared.trust_domain)).unwrap_or_default();
        news.into_iter().for_each(|line| self.say(line));
    }

    /// Says what an edit of the ConfigMap `istio` does not do.
    fn note_mesh(&self, set: &ConfigSet, changed: &ChangeSet) {
        let Some(object) = set.get(&Key::mesh_config_map()).filter(|object| changed.upserted.contains(&object.key()))
        else {
            return;
        };
        if let Some(file) = &self.plan.mesh_config {
            return self.say(mesh::unused(file));
        }
        let now = mesh::load(None, std::slice::from_ref(object)).ok();
        let other = now.and_then(|mesh| mesh::other_trust_domain(&mesh.config, &self.shared.trust_domain));
        other.into_iter().for_each(|text| self.say(text));
    }

    /// Makes what runs follow these objects.
    fn follow(&mut self, objects: Vec<Object>) -> Result<(), LocalError> {
        let desired = workload::desired(&objects, &self.images, &self.mesh_config);
        self.objects = objects;
        self.unrunnable = desired.errors.into_iter().map(manifests::placed).collect();
        if !self.unrunnable.is_empty() {
            return self.sync();
        }
        if !self.announced {
            desired.warnings.into_iter().for_each(|warning| self.say(manifests::placed(warning).to_string()));
        }
        self.wanted = desired.list.into_iter().map(|replica| (replica.key(), replica)).collect();
        for (key, running) in &mut self.running {
            if self.wanted.contains_key(key) {
                running.retired = None;
            } else {
                running.retired.get_or_insert_with(Instant::now);
            }
        }
        self.start_missing()
    }

    /// Starts what is wanted and does not run, and tells discovery what runs.
    fn start_missing(&mut self) -> Result<(), LocalError> {
        let missing = self.wanted.iter().filter(|(key, _)| !self.running.contains_key(*key));
        let missing: Vec<_> = missing.map(|(_, replica)| Arc::clone(replica)).collect();
        let mut starting = Vec::new();
        for replica in &missing {
            starting.push(self.begin(replica)?);
        }
        let links: Vec<_> = starting.iter().map(|running| (running.slot, running.handle.thread)).collect();
        if !links.is_empty() {
            net::make_links(&links)?;
        }
        let started: Vec<_> = starting.iter().map(|running| running.replica.key()).collect();
        self.running.extend(starting.into_iter().map(|running| (running.replica.key(), running)));
        // The documents first: a proxy that asks discovery who it is must be found.
        self.sync()?;
        for key in started {
            if let Some(running) = self.running.get_mut(&key) {
                running.handle.linked();
            }
        }
        Ok(())
    }

    fn begin(&mut self, replica: &Arc<Replica>) -> Result<Running, LocalError> {
        let slot = self.slots.take().ok_or_else(|| LocalError::Fabric("no address is left".to_owned()))?;
        let token = self.credentials.token(&replica.namespace, &replica.service_account).map_err(LocalError::Fabric)?;
        if self.announced {
            self.say(format!("{}: starting", replica.name));
        }
        let handle = pod::start(Pod {
            replica: Arc::clone(replica),
            slot,
            token,
            shared: Arc::clone(&self.shared),
            statuses: self.statuses.clone(),
        })?;
        Ok(Running {
            replica: Arc::clone(replica),
            slot,
            handle,
            ready: false,
            informed: 0,
            retired: None,
            stopping: false,
        })
    }

    /// Writes the documents and names that follow from what is and what runs.
    fn sync(&mut self) -> Result<(), LocalError> {
        let addresses = docs::addresses(&self.objects);
        let ports = docs::gateway_ports(&self.objects);
        let mut files = docs::mirror(&self.objects, &addresses);
        if let Some(address) = addresses.get(&format!("{}/{}", workload::SYSTEM, workload::GATEWAY)) {
            files.extend(docs::gateway_service(&self.objects, *address, &ports));
        }
        let living = || self.running.values().filter(|running| !running.stopping);
        files.extend(living().map(|running| docs::pod(&running.replica, running.slot.address(), running.ready)));
        let ready = living().filter(|running| running.ready);
        let ready: Vec<_> = ready.map(|running| (&*running.replica, running.slot.address())).collect();
        self.zone.replace(docs::names(&self.objects, &addresses, ready.iter().copied()));
        let rules = service_rules::restore_text(&self.objects, &addresses, ready.iter().copied());
        self.service_rules.send_if_modified(|current| {
            let changed = *current != rules;
            *current = rules;
            changed
        });
        if let Some(expected) = &self.expected {
            let clusters = readiness::clusters(&self.objects, ready.iter().copied());
            expected.send_if_modified(|expected| {
                let changed = expected.clusters != clusters;
                expected.generation += u64::from(changed);
                expected.clusters = clusters;
                changed
            });
        }
        self.folder.sync(files)?;
        self.publish(ports);
        Ok(())
    }

    fn publish(&mut self, ports: Vec<Publish>) {
        let gateway = self.running.values().find(|running| running.replica.role == Role::Router && !running.stopping);
        let Some(address) = gateway.map(|running| running.slot.address()) else { return };
        if self.published.as_ref() != Some(&(address, ports.clone())) {
            self.published = Some((address, ports.clone()));
            report(&Event::Gateway { address, ports });
        }
    }

    fn hear(&mut self, key: String, status: Status) -> Result<(), LocalError> {
        let Some(running) = self.running.get_mut(&key) else { return Ok(()) };
        let name = running.replica.name.clone();
        match status {
            Status::Served(served) => {
                running.ready = served.is_ok();
                match served {
                    Ok(()) if self.announced => self.say(format!("{name}: serves")),
                    Ok(()) => {}
                    Err(lack) => self.say(format!("{name}: does not serve: {lack}")),
                }
                self.sync()
            }
            Status::Informed(generation) => {
                running.informed = generation;
                Ok(())
            }
            Status::Failed(message) if !self.announced => Err(LocalError::Fabric(message)),
            Status::Failed(message) => {
                self.say(message);
                Ok(())
            }
            Status::Ended => {
                let (slot, stopped) = (running.slot, running.stopping);
                self.running.remove(&key);
                self.slots.release(slot);
                // It may have been wanted again while it stopped.
                if stopped && self.wanted.contains_key(&key) { self.start_missing() } else { self.sync() }
            }
        }
    }

    /// Takes replicas that are no longer wanted out of service once their successors serve; announces readiness.
    async fn retire(&mut self) -> Result<(), LocalError> {
        let starting: BTreeSet<_> = self
            .running
            .iter()
            .filter(|(key, running)| self.wanted.contains_key(*key) && !running.ready)
            .map(|(_, running)| running.replica.workload())
            .collect();
        let mut changed = false;
        for running in self.running.values_mut().filter(|running| !running.stopping) {
            let Some(retired) = running.retired else { continue };
            let succeeded = !starting.contains(&running.replica.workload()) || retired.elapsed() > REPLACEMENT;
            if succeeded {
                (running.stopping, changed) = (true, true);
                report(&Event::Line { text: format!("{}: stopping", running.replica.name) });
                let stop = running.handle.stopper();
                tokio::spawn(async move {
                    tokio::time::sleep(DRAIN).await;
                    stop.send_replace(true);
                });
            }
        }
        if changed {
            self.sync()?;
        }
        if !self.announced {
            self.announce().await;
        }
        Ok(())
    }

    /// Once every replica serves, the gateway accepts, and every proxy knows all of it.
    async fn announce(&mut self) {
        if !self.complete() {
            self.complete = None;
            return;
        }
        let patient = self.complete.get_or_insert_with(Instant::now).elapsed() < PATIENCE;
        let lacking = self.lacking().await;
        if !lacking.is_empty() && patient {
            return;
        }
        for text in lacking {
            self.say(text);
        }
        (self.announced, self.expected) = (true, None);
        let workloads: BTreeSet<_> = self.running.values().map(|running| running.replica.workload()).collect();
        report(&Event::Ready { workloads: workloads.len() });
    }

    /// What is not as it should be although every replica serves.
    async fn lacking(&self) -> Vec<String> {
        let generation = self.expected.as_ref().map_or(0, |expected| expected.borrow().generation);
        let uninformed = self.running.values().filter(|running| {
            running.replica.role != Role::Plain && !running.stopping && running.informed != generation
        });
        let mut lacking: Vec<_> = uninformed
            .map(|running| {
                let name = &running.replica.name;
                format!("{name}: its proxy does not know every endpoint yet; first requests may fail")
            })
            .collect();
        let Some((address, ports)) = &self.published else { return lacking };
        // Without a route there is nothing to listen for on a port that is not HTTP.
        let named = docs::named_gateway_ports(&self.objects);
        for publish in ports.iter().filter(|publish| publish.http && named.contains(&publish.port)) {
            if !accepts(SocketAddr::from((*address, publish.target))).await {
                lacking.push(format!("gateway port {}: the gateway does not listen", publish.port));
            }
        }
        lacking
    }

    fn complete(&self) -> bool {
        self.wanted.keys().all(|key| self.running.get(key).is_some_and(|running| running.ready))
    }
}

/// The trust domain, where none is set.
fn mesh_id(config: &MeshConfig) -> String {
    let set = &config.default_config.mesh_id;
    if set.is_empty() { config.trust_domain.to_string() } else { set.to_string() }
}
