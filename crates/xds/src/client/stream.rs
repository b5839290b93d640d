//! One ADS stream after another around a [`Session`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use meltemi_base::Backoff;
use meltemi_proto::envoy::config::core::v3::Node;
use meltemi_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use meltemi_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::MAX_UNSETTLED;
use super::connect::Target;
use super::session::{Batch, Outcome, Request, Session};
use crate::{Resource, Variant};

/// Requests handed to the transport and not written yet.
const MAX_QUEUED_REQUESTS: usize = 64;
/// A stream that lived this long makes the next failure the first.
const SETTLED_AFTER: Duration = Duration::from_secs(30);

/// Headers for each new stream, such as a bearer token that rotates.
pub type Metadata = Arc<dyn Fn() -> Vec<(String, String)> + Send + Sync>;

/// How to reach a control plane, and as whom.
#[derive(Clone)]
pub struct Options {
    pub target: Target,
    pub node: Node,
    pub variant: Variant,
    pub metadata: Option<Metadata>,
    /// Bounds of the wait between streams.
    pub backoff: (Duration, Duration),
    /// Largest response in bytes.
    pub max_message_bytes: usize,
}

impl Options {
    /// Incremental, 100 ms to 30 s between streams, responses of up to 200 MiB.
    pub fn new(target: Target, node: Node) -> Self {
        let backoff = (Duration::from_millis(100), Duration::from_secs(30));
        Self { target, node, variant: Variant::Delta, metadata: None, backoff, max_message_bytes: 200 << 20 }
    }
}

/// What a consumer sees.
#[derive(Debug)]
pub enum Event {
    Connected,
    /// The stream ended; what was applied stays in force.
    Disconnected(String),
    Update(Update),
}

/// One response. Apply it in order with the others, then answer through [`Update::reply`].
#[derive(Debug)]
pub struct Update {
    pub type_url: Arc<str>,
    pub version: String,
    pub resources: Vec<Resource>,
    /// Names of resources that are gone, or never were.
    pub removed: Vec<Arc<str>>,
    pub reply: Reply,
}

/// The answer to an [`Update`]. Dropped, it rejects.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Outcome>);

impl Reply {
    pub fn accept(self) {
        self.answer(Outcome::Accepted);
    }

    /// Says that nothing of the update was applied, and why.
    pub fn reject(self, message: impl Into<String>) {
        self.answer(Outcome::Rejected(message.into()));
    }

    /// Says that all but these names was applied.
    pub fn reject_some(self, names: Vec<Arc<str>>, message: impl Into<String>) {
        self.answer(Outcome::PartlyRejected { names, message: message.into() });
    }

    pub fn answer(self, outcome: Outcome) {
        // The client may have been shut down meanwhile.
        let _ = self.0.send(outcome);
    }
}

/// The consumer's end of a client; the client stops when it is dropped.
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` once the client has stopped.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

#[derive(Default)]
struct Changes {
    /// In order: type, name, whether it is wanted.
    names: Vec<(Arc<str>, Vec<Arc<str>>, bool)>,
    closed: bool,
}

struct Shared {
    changes: std::sync::Mutex<Changes>,
    changed: Notify,
}

/// A handle to subscribe with; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

impl Client {
    /// Starts a client on the current runtime.
    pub fn spawn(options: Options) -> (Self, Events) {
        let (events, receiver) = mpsc::channel(MAX_UNSETTLED);
        let shared = Arc::new(Shared { changes: Default::default(), changed: Notify::new() });
        let worker = Worker {
            session: Session::new(options.variant, options.node.clone()),
            options,
            shared: shared.clone(),
            events,
            unsettled: FuturesUnordered::new(),
        };
        tokio::spawn(worker.run());
        (Self(shared), Events(receiver))
    }

    /// Subscribes to the names, [`crate::WILDCARD`] for all. Names already subscribed to are left alone, so this may be called
    /// whenever traffic needs a resource.
    pub fn subscribe<N: Into<Arc<str>>>(&self, type_url: &str, names: impl IntoIterator<Item = N>) {
        self.change(type_url, names.into_iter().map(Into::into).collect(), true);
    }

    pub fn unsubscribe<N: Into<Arc<str>>>(&self, type_url: &str, names: impl IntoIterator<Item = N>) {
        self.change(type_url, names.into_iter().map(Into::into).collect(), false);
    }

    /// Makes the subscription to a type exactly `names`, given what it was.
    pub fn resubscribe(&self, type_url: &str, before: &BTreeSet<Arc<str>>, names: &BTreeSet<Arc<str>>) {
        self.change(type_url, names.difference(before).cloned().collect(), true);
        self.change(type_url, before.difference(names).cloned().collect(), false);
    }

    /// Ends the stream and the client.
    pub fn close(&self) {
        self.locked().closed = true;
        self.0.changed.notify_one();
    }

    fn change(&self, type_url: &str, names: Vec<Arc<str>>, wanted: bool) {
        if names.is_empty() {
            return;
        }
        self.locked().names.push((type_url.into(), names, wanted));
        self.0.changed.notify_one();
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Changes> {
        self.0.changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Why a stream ended.
enum End {
    Failed(String),
    /// The server speaks the other variant only.
    Unimplemented,
    /// The consumer is gone or asked to stop.
    Closed,
}

type Settled = (Arc<str>, String, Outcome);

struct Worker {
    session: Session,
    options: Options,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    unsettled: FuturesUnordered<BoxFuture<'static, Settled>>,
}

impl Worker {
    async fn run(mut self) {
        let (shortest, longest) = self.options.backoff;
        let mut backoff = Backoff::new(shortest, longest);
        loop {
            let started = tokio::time::Instant::now();
            let failure = match self.stream().await {
                End::Closed => return,
                End::Unimplemented if self.session.variant() == Variant::Delta => {
                    self.session.set_variant(Variant::StateOfTheWorld);
                    "the server does not speak the incremental variant".to_owned()
                }
                End::Unimplemented => "the server has no aggregated discovery service".to_owned(),
                End::Failed(cause) => cause,
            };
            if started.elapsed() >= SETTLED_AFTER {
                backoff.reset();
            }
            tracing::debug!(cause = failure, "stream ended");
            if self.events.send(Event::Disconnected(failure)).await.is_err() {
                return;
            }
            if self.wait(backoff.next()).await {
                return;
            }
        }
    }

    /// Waits between streams, settling what the consumer answers meanwhile. Says whether to stop.
    async fn wait(&mut self, delay: Duration) -> bool {
        let sleep = tokio::time::sleep(delay);
        tokio::pin!(sleep);
        loop {
            tokio::select! {
                () = &mut sleep => return false,
                () = self.events.closed() => return true,
                () = self.shared.changed.notified() => {
                    if self.absorb_changes() {
                        return true;
                    }
                }
                Some((type_url, nonce, outcome)) = self.unsettled.next() => self.session.settle(&type_url, &nonce, &outcome),
            }
        }
    }

    async fn stream(&mut self) -> End {
        if self.absorb_changes() {
            return End::Closed;
        }
        let channel = tokio::select! {
            channel = self.options.target.connect() => match channel {
                Ok(channel) => channel,
                Err(cause) => return End::Failed(format!("connect to {:?}: {}", self.options.target, chain(&*cause))),
            },
            () = self.events.closed() => return End::Closed,
        };
        // What is held must be known before the server is told, or the consumer may keep what the server never withdraws.
        while let Some((type_url, nonce, outcome)) = self.unsettled.next().await {
            self.session.settle(&type_url, &nonce, &outcome);
        }
        self.session.connected();
        match self.session.variant() {
            Variant::Delta => self.run_delta(channel).await,
            Variant::StateOfTheWorld => self.run_sotw(channel).await,
        }
    }

    async fn run_delta(&mut self, channel: Channel) -> End {
        let (sender, requests) = mpsc::channel::<DeltaDiscoveryRequest>(MAX_QUEUED_REQUESTS);
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(self.options.max_message_bytes);
        let request = self.request(ReceiverStream::new(requests));
        let opening = async move { client.delta_aggregated_resources(request).await.map(tonic::Response::into_inner) };
        let write = |request| match request {
            Request::Delta(request) => Some(request),
            Request::StateOfTheWorld(_) => None,
        };
        self.converse(opening, &sender, write, Session::on_delta as fn(&mut Session, DeltaDiscoveryResponse) -> _).await
    }

    async fn run_sotw(&mut self, channel: Channel) -> End {
        let (sender, requests) = mpsc::channel::<DiscoveryRequest>(MAX_QUEUED_REQUESTS);
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(self.options.max_message_bytes);
        let request = self.request(ReceiverStream::new(requests));
        let opening = async move { client.stream_aggregated_resources(request).await.map(tonic::Response::into_inner) };
        let write = |request| match request {
            Request::StateOfTheWorld(request) => Some(request),
            Request::Delta(_) => None,
        };
        self.converse(opening, &sender, write, Session::on_sotw as fn(&mut Session, DiscoveryResponse) -> _).await
    }

    fn request<T>(&self, body: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(body);
        for (name, value) in self.options.metadata.iter().flat_map(|metadata| metadata()) {
            let name = tonic::metadata::MetadataKey::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, value.parse()) {
                request.metadata_mut().insert::<tonic::metadata::MetadataKey<tonic::metadata::Ascii>>(name, value);
            }
        }
        request
    }

    /// Runs one stream of either variant to its end.
    async fn converse<Q, R>(
        &mut self,
        opening: impl Future<Output = Result<Streaming<R>, Status>>,
        requests: &mpsc::Sender<Q>,
        write: impl Fn(Request) -> Option<Q>,
        read: fn(&mut Session, R) -> Result<Batch, crate::Violation>,
    ) -> End {
        // Servers may send no headers before their first response, so requests must flow while the stream opens.
        let opening = opening.fuse();
        tokio::pin!(opening);
        let mut responses: Option<Streaming<R>> = None;
        loop {
            while requests.capacity() > 0 {
                let Some(request) = self.session.next_request().and_then(&write) else { break };
                if requests.try_send(request).is_err() {
                    break;
                }
            }
            let reading = self.unsettled.len() < MAX_UNSETTLED;
            let response = async {
                match &mut responses {
                    Some(responses) => responses.message().await.map(Opened::Message),
                    None => opening.as_mut().await.map(|stream| Opened::Stream(Box::new(stream))),
                }
            };
            tokio::select! {
                opened = response, if reading => match opened {
                    Ok(Opened::Stream(stream)) => {
                        responses = Some(*stream);
                        if self.events.send(Event::Connected).await.is_err() {
                            return End::Closed;
                        }
                    }
                    Ok(Opened::Message(Some(message))) => match read(&mut self.session, message) {
                        Ok(batch) => {
                            if !self.hand_over(batch).await {
                                return End::Closed;
                            }
                        }
                        Err(violation) => return End::Failed(violation.to_string()),
                    },
                    Ok(Opened::Message(None)) => return End::Failed("the server ended the stream".to_owned()),
                    Err(status) if status.code() == Code::Unimplemented => return End::Unimplemented,
                    Err(status) => return End::Failed(chain(&status)),
                },
                Some((type_url, nonce, outcome)) = self.unsettled.next() => self.session.settle(&type_url, &nonce, &outcome),
                () = self.shared.changed.notified() => {
                    if self.absorb_changes() {
                        return End::Closed;
                    }
                }
                () = self.events.closed() => return End::Closed,
                // The transport took a request while some were left to write.
                permit = requests.reserve(), if requests.capacity() == 0 => drop(permit),
            }
        }
    }

    /// Gives a batch to the consumer; false where it is gone.
    async fn hand_over(&mut self, batch: Batch) -> bool {
        let (reply, answer) = oneshot::channel();
        let (type_url, nonce) = (batch.type_url.clone(), batch.nonce);
        let settled = async move {
            let dropped = || Outcome::Rejected("the update was dropped".to_owned());
            (type_url, nonce, answer.await.unwrap_or_else(|_| dropped()))
        };
        self.unsettled.push(settled.boxed());
        let Batch { type_url, version, resources, removed, .. } = batch;
        let update = Update { type_url, version, resources, removed, reply: Reply(reply) };
        self.events.send(Event::Update(update)).await.is_ok()
    }

    /// Takes over subscriptions made through the handle; says whether to stop.
    fn absorb_changes(&mut self) -> bool {
        let changes =
            std::mem::take(&mut *self.shared.changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        for (type_url, names, wanted) in changes.names {
            if wanted {
                self.session.subscribe(&type_url, names);
            } else {
                self.session.unsubscribe(&type_url, names);
            }
        }
        changes.closed
    }
}

enum Opened<R> {
    Stream(Box<Streaming<R>>),
    Message(Option<R>),
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
