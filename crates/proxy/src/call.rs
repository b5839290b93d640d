//! Requests of filters' own: to a cluster of one world, over the worker's pools, with a deadline and a bounded answer.
//!
//! Owns the one way in which a filter speaks to a service: breakers, counters and outlier detection are the cluster's as for
//! any request. No retries; whoever wants them calls again.

use std::{
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use meltemi_filters::{Answer, Call, CallError, Caller, Calling};
use meltemi_http::{ClientStream, Error, Frame, Headers, ResponseHead};
use meltemi_upstream::{Cluster, Outcome, PickContext, PickError, RoutingPriority};

use crate::{
    admission,
    demand::Need,
    router::{Active, Destination, Failure, Preface, mode, tls_context},
    worker::Worker,
    world::World,
};

/// Calls by the clusters of one world, or of whichever is current.
pub(crate) struct Calls<'a> {
    pub worker: &'a Rc<Worker>,
    pub world: &'a Arc<World>,
    /// A cluster that is not there is asked for.
    pub on_demand: bool,
}

impl Caller for Calls<'_> {
    fn call(&self, call: Call) -> Calling {
        let cluster = self.world.clusters.get(&call.cluster).cloned();
        let (worker, on_demand) = (Rc::clone(self.worker), self.on_demand);
        Box::pin(async move {
            let cluster = match cluster {
                Some(cluster) => cluster,
                None if on_demand => obtain(&worker, &call).await.ok_or(CallError::NoCluster)?,
                None => return Err(CallError::NoCluster),
            };
            run(&worker, &cluster, call).await
        })
    }
}

/// Calls of a task that outlives worlds: each by the one that is current then.
pub(crate) struct CurrentCalls(pub Rc<Worker>);

impl Caller for CurrentCalls {
    fn call(&self, call: Call) -> Calling {
        let world = self.0.world();
        Calls { worker: &self.0, world: &world, on_demand: admission::anything_waits(&world) }.call(call)
    }
}

/// A cluster that has not come yet, if it comes in the time of the call.
async fn obtain(worker: &Worker, call: &Call) -> Option<Arc<Cluster>> {
    let world = worker.ask(Need::Cluster(Arc::clone(&call.cluster)), call.timeout).await?;
    world.clusters.get(&call.cluster).cloned()
}

async fn run(worker: &Rc<Worker>, cluster: &Arc<Cluster>, call: Call) -> Result<Answer, CallError> {
    let endpoint = worker.pick(cluster, &PickContext::default()).map_err(unpicked)?;
    let Some(active) = Active::begin(cluster, RoutingPriority::Default, &endpoint) else {
        return Err(CallError::Overflow);
    };
    let timeout = call.timeout;
    let conversation = async {
        let mut upstream = stream(worker, cluster, &endpoint, &call).await?;
        converse(&mut upstream, call).await
    };
    let answer = tokio::time::timeout(timeout, conversation).await.unwrap_or(Err(CallError::Timeout));
    match &answer {
        Ok(answer) => {
            active.answered(&endpoint);
            cluster.stats.traffic.response(answer.status.as_u16());
            cluster.report(&endpoint, Outcome::Status(answer.status.as_u16()));
        }
        Err(CallError::Timeout) => {
            cluster.stats.traffic.upstream_rq_timeout().inc();
            cluster.report(&endpoint, Outcome::Timeout);
        }
        Err(CallError::Reset) => cluster.report(&endpoint, Outcome::Reset),
        // A connection that failed was reported where it did.
        Err(
            CallError::Connect | CallError::Overflow | CallError::NoCluster | CallError::NoHost | CallError::TooLarge,
        ) => {}
    }
    answer
}

fn unpicked(error: PickError) -> CallError {
    tracing::debug!(%error, "no host for a filter's call");
    CallError::NoHost
}

async fn stream(
    worker: &Rc<Worker>,
    cluster: &Arc<Cluster>,
    endpoint: &Arc<meltemi_upstream::Endpoint>,
    call: &Call,
) -> Result<ClientStream, CallError> {
    let mode = mode(&cluster.plan, call.head.protocol);
    let (tls, transport) = tls_context(worker, cluster, endpoint, mode, (None, &call.head.authority));
    let destination = Destination {
        cluster: Arc::clone(cluster),
        endpoint: Arc::clone(endpoint),
        priority: RoutingPriority::Default,
        mode,
        tls,
        preface: Preface::of(cluster, endpoint, None),
        transport,
    };
    let (pool, ready) = destination.try_stream(worker);
    if let Some(stream) = ready {
        return Ok(stream);
    }
    Box::pin(destination.wait_for_stream(&pool)).await.map_err(|failure| match failure {
        Failure::Overflow => CallError::Overflow,
        Failure::NoHealthyHost => CallError::NoHost,
        Failure::Connect(_) | Failure::Unsupported => CallError::Connect,
        Failure::Reset(_) => CallError::Reset,
        Failure::Expired(_) => CallError::Timeout,
    })
}

async fn converse(upstream: &mut ClientStream, call: Call) -> Result<Answer, CallError> {
    let Call { head, body, limit, .. } = call;
    upstream.send_head(&head, body.is_empty());
    if !body.is_empty() {
        upstream.send_frame(Frame::Data(body));
        upstream.finish();
    }
    let mut receiving = Receiving { upstream, head: None, body: BytesMut::new(), trailers: Headers::new(), limit };
    poll_fn(|cx| receiving.poll(cx)).await?;
    let head = receiving.head.take().ok_or(CallError::Reset)?;
    let body = Bytes::from(std::mem::take(&mut receiving.body));
    Ok(Answer { status: head.status, headers: head.headers, body, trailers: receiving.trailers })
}

/// An answer on its way, in no more memory than its limit.
struct Receiving<'a> {
    upstream: &'a mut ClientStream,
    head: Option<ResponseHead>,
    body: BytesMut,
    trailers: Headers,
    limit: usize,
}

impl Receiving<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        let reset = |_: Error| CallError::Reset;
        // A host may answer and close before it has read everything: its answer counts, so a failed write is not the end.
        let _ = self.upstream.poll_flush(cx);
        while self.head.is_none() {
            let head = ready!(self.upstream.poll_response(cx)).map_err(reset)?;
            self.head = Some(head).filter(|head| !head.status.is_informational());
        }
        while !self.upstream.response_ended() {
            match ready!(self.upstream.poll_frame(cx)).map_err(reset)? {
                Some(Frame::Data(data)) if data.len() > self.limit - self.body.len() => {
                    return Poll::Ready(Err(CallError::TooLarge));
                }
                Some(Frame::Data(data)) => self.body.extend_from_slice(&data),
                Some(Frame::Trailers(trailers)) => self.trailers = trailers,
                None => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
