//! Follows the control plane: subscriptions, acceptance and rejection, warming, secrets.
//!
//! One task. Each response is applied in order and answered at once; the world is published after it.

#[cfg(test)]
mod tests;

use super::SecretSource;
use crate::admin::AdminState;
use crate::configurator::{Held, Source, Wanted};
use crate::demand::{Question, Waiting};
use meltemi_base::intern;
use meltemi_plan::Bootstrap;
use meltemi_upstream::Cluster;
use meltemi_xds::client::{self, Client, Event, Events, Outcome, Update};
use meltemi_xds::{Resource, WILDCARD, types};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// A cluster whose hosts do not come is used without them after this (Envoy's `initial_fetch_timeout`).
const WARMING_TIMEOUT: Duration = Duration::from_secs(15);
/// How often what was asked for on demand is looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// A rejection names at most this many resources.
const MAX_REPORTED: usize = 10;

pub struct Subscriber {
    state: Arc<AdminState>,
    secrets: Option<Box<dyn SecretSource>>,
    client: Option<Client>,
    wanted: Wanted,
    /// Clusters that wait for their hosts, and until when, in order.
    deadlines: VecDeque<(Instant, Weak<Cluster>)>,
    /// Of workers that miss something.
    questions: Option<mpsc::Receiver<Question>>,
    waiting: Waiting,
    on_demand_idle: Duration,
    /// Types of which a first response was applied.
    /// Types of which everything comes from the control plane.
    follows: Vec<&'static str>,
    seen: BTreeSet<Arc<str>>,
    /// Local secrets as last installed.
    installed:
        std::collections::BTreeMap<Arc<str>, meltemi_proto::envoy::extensions::transport_sockets::tls::v3::Secret>,
}

enum Step {
    Event(Option<Event>),
    Warmed,
    /// The first deadline has passed.
    Late,
    Secrets,
    /// A worker misses something.
    Asked(Question),
    /// Time to look at what was asked for.
    Sweep,
}

impl Subscriber {
    pub fn new(state: Arc<AdminState>, secrets: Option<Box<dyn SecretSource>>) -> Self {
        let mut subscriber = Self {
            state,
            secrets,
            client: None,
            wanted: Wanted::default(),
            deadlines: VecDeque::new(),
            questions: None,
            waiting: Waiting::default(),
            on_demand_idle: Duration::MAX,
            follows: vec![types::CLUSTER, types::LISTENER],
            seen: BTreeSet::new(),
            installed: Default::default(),
        };
        subscriber.refresh_secrets();
        subscriber
    }

    /// Follows what the bootstrap names of these types, and leaves the others to itself.
    pub fn follow_only(&mut self, bootstrap: &Bootstrap) {
        let named = [(types::CLUSTER, bootstrap.follows_clusters), (types::LISTENER, bootstrap.follows_listeners)];
        self.follows = named.into_iter().filter(|(_, follows)| *follows).map(|(kind, _)| kind).collect();
    }

    /// Runs until dropped. Without a control plane only secrets change.
    pub async fn run(mut self, control_plane: Option<client::Options>) {
        let mut events: Option<Events> = None;
        if let Some(options) = control_plane {
            let (client, received) = Client::spawn(options);
            self.follows.iter().for_each(|kind| client.subscribe(kind, [WILDCARD]));
            (self.client, events) = (Some(client), Some(received));
        }
        let warmed = self.state.configurator.lock().warmed();
        let mut sweep = tokio::time::interval(SWEEP);
        self.settle();
        loop {
            let step = tokio::select! {
                event = next(&mut events) => Step::Event(event),
                () = warmed.notified() => Step::Warmed,
                () = passed(self.deadlines.front()) => Step::Late,
                () = changed(&mut self.secrets) => Step::Secrets,
                question = asked(&mut self.questions) => Step::Asked(question),
                _ = sweep.tick(), if self.state.configurator.lock().needs_time() => Step::Sweep,
            };
            match step {
                Step::Event(Some(Event::Update(update))) => self.apply(update),
                Step::Event(Some(Event::Connected)) => tracing::info!("connected to the control plane"),
                Step::Event(Some(Event::Disconnected(reason))) => tracing::warn!(reason, "control plane lost"),
                Step::Event(None) => events = None,
                Step::Warmed => {}
                Step::Late => {
                    let late = self.deadlines.pop_front().and_then(|(_, cluster)| cluster.upgrade());
                    late.inspect(|cluster| cluster.set_warm());
                }
                Step::Secrets => self.refresh_secrets(),
                Step::Asked(question) => self.demand(question),
                Step::Sweep => {
                    self.state.configurator.lock().give_up_unused(Instant::now(), self.on_demand_idle);
                }
            }
            self.settle();
        }
    }

    /// Takes questions of workers; what traffic has not used for `idle` is given up.
    pub fn on_demand(&mut self, questions: mpsc::Receiver<Question>, idle: Duration) {
        (self.questions, self.on_demand_idle) = (Some(questions), idle);
    }

    fn demand(&mut self, question: Question) {
        let need = self.waiting.add(question);
        if !self.state.configurator.lock().demand(&need, Instant::now()) {
            tracing::warn!(?need, "too much is asked for on demand");
            self.waiting.refuse(&need);
        }
    }

    fn apply(&mut self, update: Update) {
        let Update { type_url, resources, removed, reply, .. } = update;
        let refused = self.take(&type_url, &resources, &removed);
        self.seen.insert(type_url.clone());
        self.settle();
        if refused.is_empty() {
            return reply.accept();
        }
        let text = describe(&refused);
        tracing::warn!(type_url = %type_url, reason = text, "configuration refused");
        reply.answer(Outcome::PartlyRejected {
            names: refused.into_iter().map(|(name, _)| name).collect(),
            message: text,
        });
    }

    /// Takes what came and drops what is gone; nothing is in force before all of it was looked at. What was refused, and why.
    fn take(&mut self, type_url: &str, resources: &[Resource], removed: &[Arc<str>]) -> Vec<(Arc<str>, String)> {
        // What goes makes room: a listener may take the address of another that leaves with the same update.
        for name in removed {
            self.remove(type_url, name);
        }
        let mut set = |resource: &Resource| Some((resource.name.clone(), self.set(type_url, resource).err()?));
        let refused: Vec<_> = resources.iter().filter_map(&mut set).collect();
        if type_url != types::LISTENER {
            return refused;
        }
        // So does what moves, whichever of the two came first.
        let again = resources.iter().filter(|resource| refused.iter().any(|(name, _)| *name == resource.name));
        again.filter_map(set).collect()
    }

    fn set(&mut self, type_url: &str, resource: &Resource) -> Result<(), String> {
        let bytes = &*resource.body.value;
        let mut configurator = self.state.configurator.lock();
        match type_url {
            types::CLUSTER => {
                let plan = refusal(meltemi_plan::encoded_cluster(bytes))?;
                if let Some(cluster) = configurator.set_cluster(held(plan, resource))? {
                    self.deadlines.push_back((Instant::now() + WARMING_TIMEOUT, Arc::downgrade(&cluster)));
                }
            }
            types::ENDPOINT => {
                let plan = refusal(meltemi_plan::encoded_load_assignment(bytes))?;
                configurator.set_assignment(&plan, source(resource));
            }
            types::LISTENER => {
                configurator.set_listener(held(refusal(meltemi_plan::encoded_listener(bytes))?, resource))?;
            }
            types::ROUTE => {
                configurator.set_routes(held(refusal(meltemi_plan::encoded_route_configuration(bytes))?, resource));
            }
            types::VIRTUAL_HOST => {
                configurator
                    .set_host(held(refusal(meltemi_plan::encoded_virtual_host(bytes))?, resource), Instant::now());
            }
            types::SECRET => configurator.set_secret(&refusal(meltemi_plan::encoded_secret(bytes))?)?,
            other => return Err(format!("resources of type {other} are not used here")),
        }
        Ok(())
    }

    fn remove(&mut self, type_url: &str, name: &str) {
        let mut configurator = self.state.configurator.lock();
        match type_url {
            types::CLUSTER => configurator.remove_cluster(name),
            types::LISTENER => configurator.remove_listener(name),
            types::ROUTE => configurator.remove_routes(name),
            types::ENDPOINT => configurator.assignment_absent(name),
            types::VIRTUAL_HOST => configurator.host_absent(name),
            // Secrets go with what names them.
            _ => {}
        }
    }

    /// Follows the names that the configuration now refers to, and publishes.
    fn settle(&mut self) {
        let newly_wanted = self.state.configurator.lock().newly_wanted();
        if let Some(wanted) = newly_wanted {
            self.follow(wanted);
        }
        let mut configurator = self.state.configurator.lock();
        configurator.publish();
        self.waiting.answer(&configurator.world(), |need| configurator.is_met(need));
        let static_only = self.client.is_none();
        let first_answers = self.follows.iter().all(|kind| self.seen.contains(*kind));
        if (static_only || first_answers) && configurator.is_settled() && !*self.state.initialized.borrow() {
            tracing::info!("all configuration is in force");
            self.state.initialized.send_replace(true);
        }
    }

    fn follow(&mut self, wanted: Wanted) {
        if let Some(client) = &self.client {
            client.resubscribe(types::VIRTUAL_HOST, &self.wanted.hosts, &wanted.hosts);
            client.resubscribe(types::CLUSTER, &self.wanted.clusters, &wanted.clusters);
            client.resubscribe(types::ENDPOINT, &self.wanted.endpoints, &wanted.endpoints);
            client.resubscribe(types::ROUTE, &self.wanted.routes, &wanted.routes);
            client.resubscribe(types::SECRET, &self.wanted.ads_secrets, &wanted.ads_secrets);
        }
        if wanted != self.wanted {
            self.state.configurator.lock().forget_unwanted(&wanted);
        }
        let local_changed = wanted.local_secrets != self.wanted.local_secrets;
        self.wanted = wanted;
        if local_changed {
            self.refresh_secrets();
        }
    }

    /// Installs secrets of the local source that are new or changed.
    fn refresh_secrets(&mut self) {
        let Some(source) = &self.secrets else { return };
        let mut configurator = self.state.configurator.lock();
        for name in &self.wanted.local_secrets {
            let Some(secret) = source.secret(name) else { continue };
            if self.installed.get(name) == Some(&secret) {
                continue;
            }
            let result = meltemi_plan::secret(&secret).map_err(|e| e.to_string());
            match result.and_then(|plan| configurator.set_secret(&plan)) {
                Ok(()) => {
                    self.installed.insert(name.clone(), secret);
                }
                Err(reason) => tracing::warn!(secret = %name, reason, "secret refused"),
            }
        }
    }
}

/// The text of a resource's rejection.
fn refusal<P>(plan: Result<P, meltemi_plan::PlanError>) -> Result<P, String> {
    plan.map_err(|error| error.to_string())
}

fn held<P>(plan: P, resource: &Resource) -> Held<P> {
    Held { plan: Arc::new(plan), source: source(resource) }
}

fn source(resource: &Resource) -> Source {
    Source {
        // A copy: what came is a part of the whole response.
        body: Arc::from(&*resource.body.value),
        version: intern(&resource.version),
        updated: SystemTime::now(),
        fixed: false,
    }
}

fn describe(refused: &[(Arc<str>, String)]) -> String {
    let mut lines: Vec<String> =
        refused.iter().take(MAX_REPORTED).map(|(name, reason)| format!("{name}: {reason}")).collect();
    if refused.len() > MAX_REPORTED {
        lines.push(format!("and {} more", refused.len() - MAX_REPORTED));
    }
    lines.join("\n")
}

async fn next(events: &mut Option<Events>) -> Option<Event> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

async fn asked(questions: &mut Option<mpsc::Receiver<Question>>) -> Question {
    let question = match questions {
        Some(questions) => questions.recv().await,
        None => None,
    };
    match question {
        Some(question) => question,
        None => std::future::pending().await,
    }
}

async fn passed(deadline: Option<&(Instant, Weak<Cluster>)>) {
    match deadline {
        Some((at, _)) => tokio::time::sleep_until(*at).await,
        None => std::future::pending().await,
    }
}

async fn changed(secrets: &mut Option<Box<dyn SecretSource>>) {
    match secrets {
        Some(source) => source.changed().await,
        None => std::future::pending().await,
    }
}
