//! The client against a server of the same crate over real sockets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3::Node;
use meltemi_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use meltemi_proto::envoy::service::discovery::v3::*;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::{Request as Call, Response as Answer, Status, Streaming};

use super::*;
use crate::server::{self, Scope, Verdict, Want};
use crate::types::CLUSTER;
use crate::{Variant, WILDCARD};

#[derive(Clone, Default)]
struct Fake {
    delta: bool,
    world: Arc<Mutex<Vec<crate::Resource>>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn answer(
        &self,
        session: &mut server::Session,
        received: server::Received,
        resumed: usize,
    ) -> Option<server::Response> {
        if received.want == Want::Everything {
            self.log.lock().unwrap().push(format!("first with {resumed} versions"));
        }
        match received.verdict {
            Verdict::None => {}
            Verdict::Rejected { message, .. } => self.log.lock().unwrap().push(format!("nack {message}")),
            Verdict::Accepted { .. } => self.log.lock().unwrap().push("ack".to_owned()),
            Verdict::Stale => self.log.lock().unwrap().push("stale".to_owned()),
        }
        let world = self.world.lock().unwrap().clone();
        session.push(&received.type_url, &world, Scope::Everything)
    }

    fn set(&self, resources: &[(&str, &str)]) {
        *self.world.lock().unwrap() = resources
            .iter()
            .map(|(name, version)| crate::Resource {
                name: (*name).into(),
                version: (*version).into(),
                body: Arc::new(Any {
                    type_url: CLUSTER.to_owned(),
                    value: [&[0x0a, name.len() as u8], name.as_bytes()].concat().into(),
                }),
            })
            .collect();
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Fake {
    type StreamAggregatedResourcesStream = BoxStream<'static, Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = BoxStream<'static, Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        call: Call<Streaming<DiscoveryRequest>>,
    ) -> Result<Answer<Self::StreamAggregatedResourcesStream>, Status> {
        let fake = self.clone();
        let mut session = server::Session::new(Variant::StateOfTheWorld, 7, "".into());
        let responses = call.into_inner().filter_map(move |request| {
            let response = request.ok().and_then(|request| {
                let received = session.on_sotw(&request).unwrap();
                fake.answer(&mut session, received, 0)
            });
            std::future::ready(response.map(|response| Ok(response.to_state_of_the_world())))
        });
        Ok(Answer::new(responses.boxed()))
    }

    async fn delta_aggregated_resources(
        &self,
        call: Call<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Answer<Self::DeltaAggregatedResourcesStream>, Status> {
        if !self.delta {
            return Err(Status::unimplemented("no"));
        }
        assert_eq!(call.metadata().get("authorization").unwrap(), "Bearer token");
        let fake = self.clone();
        let mut session = server::Session::new(Variant::Delta, 7, "".into());
        let responses = call.into_inner().filter_map(move |request| {
            let response = request.ok().and_then(|request| {
                let received = session.on_delta(&request).unwrap();
                fake.answer(&mut session, received, request.initial_resource_versions.len())
            });
            std::future::ready(response.map(|response| Ok(response.to_delta())))
        });
        Ok(Answer::new(responses.chain(stream::empty()).boxed()))
    }
}

/// Binds as soon as the server that had the address has let go of it, which ends in the background.
async fn bind(address: &str) -> TcpListener {
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tokio::time::Instant::now() < end => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{address}: {error}"),
        }
    }
}

/// Serves on a runtime of its own, so that dropping it drops the connections too.
async fn serve(fake: &Fake, address: &str) -> (String, Runtime) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (fake, address) = (fake.clone(), address.to_owned());
    let (sender, bound) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let listener = bind(&address).await;
        sender.send(listener.local_addr().unwrap().to_string()).unwrap();
        let service = AggregatedDiscoveryServiceServer::new(fake);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
    });
    (bound.await.unwrap(), runtime)
}

fn options(address: &str) -> Options {
    let mut options = Options::new(Target::Tcp(address.to_owned()), Node { id: "n".to_owned(), ..Default::default() });
    options.backoff = (Duration::from_millis(5), Duration::from_millis(20));
    options.metadata = Some(Arc::new(|| vec![("authorization".to_owned(), "Bearer token".to_owned())]));
    options
}

async fn update(events: &mut Events) -> Update {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await.expect("an event in time");
        if let Event::Update(update) = event.unwrap() {
            return update;
        }
    }
}

async fn logged(fake: &Fake, expected: &[&str]) {
    for _ in 0..200 {
        if *fake.log.lock().unwrap() == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(*fake.log.lock().unwrap(), expected);
}

fn names(update: &Update) -> Vec<(String, String)> {
    update.resources.iter().map(|r| (r.name.to_string(), r.version.to_string())).collect()
}

#[tokio::test]
async fn client_resumes_from_what_it_accepted() {
    let fake = Fake { delta: true, ..Fake::default() };
    fake.set(&[("a", "1"), ("b", "1")]);
    let (address, server) = serve(&fake, "127.0.0.1:0").await;
    let (client, mut events) = Client::spawn(options(&address));
    client.subscribe(CLUSTER, [WILDCARD]);
    let first = update(&mut events).await;
    assert_eq!(names(&first).len(), 2);
    first.reply.reject_some(vec!["b".into()], "b is bad");
    logged(&fake, &["first with 0 versions", "nack b is bad"]).await;

    server.shutdown_background();
    fake.set(&[("a", "1"), ("b", "2"), ("c", "1")]);
    let (_, server) = serve(&fake, &address).await;
    let second = update(&mut events).await;
    assert_eq!(names(&second), [("b".to_owned(), "2".to_owned()), ("c".to_owned(), "1".to_owned())]);
    second.reply.accept();
    logged(&fake, &["first with 0 versions", "nack b is bad", "first with 1 versions", "ack"]).await;
    client.close();
    while events.next().await.is_some() {}
    server.shutdown_background();
}

#[tokio::test]
async fn client_falls_back_to_state_of_the_world() {
    let fake = Fake::default();
    fake.set(&[("a", "1")]);
    let (address, server) = serve(&fake, "127.0.0.1:0").await;
    let (client, mut events) = Client::spawn(options(&address));
    client.subscribe(CLUSTER, ["a"]);
    let first = update(&mut events).await;
    assert_eq!(first.resources[0].name.as_ref(), "a");
    drop(first);
    logged(&fake, &["first with 0 versions", "nack the update was dropped"]).await;
    server.shutdown_background();
}
