//! Shadow traffic: a copy of the request to another cluster, whose response nobody sees.
//!
//! A mirror is a task of its own, fed by a bounded queue; one that falls behind is dropped rather than slowing the request.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use meltemi_filters::{AlpnOverrides, RequestFields};
use meltemi_http::{ByteStr, ClientStream, Frame, RequestHead};
use meltemi_plan::{
    HeaderLookup, VirtualHost,
    route::{Forward, MirrorCluster, MirrorPolicy},
};
use meltemi_upstream::{Cluster, PickContext, RoutingPriority};

use super::{
    connect::{self, Destination},
    preface::Preface,
};
use crate::{hcm::Exchange, worker::Worker};

/// Bytes that one mirror may be behind.
const BEHIND: usize = 256 * 1024;
/// Longer than this nobody waits for an answer that is thrown away.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
    finished: bool,
    overrun: bool,
    waker: Option<Waker>,
}

/// The mirrors of one request.
#[derive(Default)]
pub(super) struct Mirrors(Vec<Rc<RefCell<Queue>>>);

impl Mirrors {
    pub fn frame(&self, frame: &Frame) {
        for queue in &self.0 {
            let mut queue = queue.borrow_mut();
            if let Frame::Data(data) = frame {
                queue.bytes += data.len();
            }
            if queue.bytes > BEHIND {
                queue.overrun = true;
                queue.frames.clear();
            } else {
                queue.frames.push_back(frame.clone());
            }
            wake(&mut queue);
        }
    }

    pub fn finish(&self) {
        for queue in &self.0 {
            let mut queue = queue.borrow_mut();
            queue.finished = true;
            wake(&mut queue);
        }
    }
}

impl Drop for Mirrors {
    fn drop(&mut self) {
        self.finish();
    }
}

fn wake(queue: &mut Queue) {
    if let Some(waker) = queue.waker.take() {
        waker.wake();
    }
}

/// Starts the mirrors that a request's route asks for: the route's, else the host's, else the configuration's.
pub(super) fn start(exchange: &Exchange<'_>, host: &VirtualHost, forward: &Forward) -> Mirrors {
    let of_routes = exchange.info.route_configuration.as_ref().map_or(&[][..], |routes| &routes.mirrors);
    let policies = [&forward.mirrors[..], &host.mirrors[..], of_routes].into_iter().find(|list| !list.is_empty());
    let mut mirrors = Mirrors::default();
    for policy in policies.unwrap_or_default() {
        if let Some(queue) = start_one(exchange, policy) {
            mirrors.0.push(queue);
        }
    }
    if exchange.stream.request_ended() {
        mirrors.finish();
    }
    mirrors
}

fn start_one(exchange: &Exchange<'_>, policy: &MirrorPolicy) -> Option<Rc<RefCell<Queue>>> {
    if !policy.fraction.hits(exchange.context.worker.random()) || exchange.request.upgrade.is_some() {
        return None;
    }
    let name = match &policy.cluster {
        MirrorCluster::Named(name) => Arc::clone(name),
        MirrorCluster::Header(key) => {
            String::from_utf8(RequestFields(&exchange.request).value(key)?.into_owned()).ok()?.into()
        }
    };
    let cluster = Arc::clone(exchange.world.clusters.get(&name)?);
    let mut head = exchange.request.clone();
    if let Some(host) = &policy.host_rewrite {
        head.authority = ByteStr::from(&**host);
    } else if policy.shadow_suffix {
        head.authority = shadowed(&head.authority);
    }
    let queue = Rc::new(RefCell::new(Queue::default()));
    let worker = Rc::clone(&exchange.context.worker);
    let alpn = exchange.info.upstream.alpn.clone();
    let task = run(worker, (cluster, alpn), head, Rc::clone(&queue));
    tokio::task::spawn_local(async move {
        let _ = tokio::time::timeout(TIMEOUT, task).await;
    });
    Some(queue)
}

/// `host:port` becomes `host-shadow:port`.
fn shadowed(authority: &str) -> ByteStr {
    let bare = meltemi_plan::route::find::without_port(authority);
    ByteStr::from(format!("{bare}-shadow{}", &authority[bare.len()..]))
}

async fn run(
    worker: Rc<Worker>,
    (cluster, alpn): (Arc<Cluster>, Option<Arc<AlpnOverrides>>),
    head: RequestHead,
    queue: Rc<RefCell<Queue>>,
) -> Option<()> {
    let endpoint = worker.pick(&cluster, &PickContext::default()).ok()?;
    let mode = connect::mode(&cluster.plan, head.protocol);
    let (tls, transport) = connect::tls_context(&worker, &cluster, &endpoint, mode, (alpn.as_deref(), &head.authority));
    let priority = RoutingPriority::Default;
    let preface = Preface::of(&cluster, &endpoint, None);
    let destination = Destination { cluster, endpoint, priority, mode, tls, preface, transport };
    let (pool, connected) = destination.try_stream(&worker);
    let mut upstream = match connected {
        Some(stream) => stream,
        None => destination.wait_for_stream(&pool).await.ok()?,
    };
    let traffic = &destination.cluster.stats.traffic;
    traffic.upstream_rq_total().inc();
    let sent = {
        let queue = queue.borrow();
        queue.finished && queue.frames.is_empty()
    };
    upstream.send_head(&head, sent);
    let mut copy = Copy { upstream, queue, sent, responded: false };
    poll_fn(|cx| {
        if copy.send(cx).is_none() {
            return Poll::Ready(None);
        }
        if ready!(copy.receive_head(cx, |status| traffic.response(status))).is_none() {
            return Poll::Ready(None);
        }
        copy.receive_body(cx)
    })
    .await
}

/// One request on its way to a mirror; `None` from any step ends it.
struct Copy {
    upstream: ClientStream,
    queue: Rc<RefCell<Queue>>,
    /// All of the request has been handed to the connection.
    sent: bool,
    responded: bool,
}

impl Copy {
    fn send(&mut self, cx: &mut Context<'_>) -> Option<()> {
        while !self.sent && self.upstream.poll_ready(cx).is_ready() {
            let mut queue = self.queue.borrow_mut();
            if queue.overrun {
                return None;
            }
            match queue.frames.pop_front() {
                Some(frame) => {
                    if let Frame::Data(data) = &frame {
                        queue.bytes -= data.len();
                    }
                    self.upstream.send_frame(frame);
                }
                None if queue.finished => {
                    self.upstream.finish();
                    self.sent = true;
                }
                None => {
                    queue.waker = Some(cx.waker().clone());
                    break;
                }
            }
        }
        if let Poll::Ready(Err(_)) = self.upstream.poll_flush(cx) {
            return None;
        }
        Some(())
    }

    fn receive_head(&mut self, cx: &mut Context<'_>, count: impl Fn(u16)) -> Poll<Option<()>> {
        while !self.responded {
            match ready!(self.upstream.poll_response(cx)) {
                Err(_) => return Poll::Ready(None),
                Ok(head) => {
                    self.responded = !head.status.is_informational();
                    count(head.status.as_u16());
                }
            }
        }
        Poll::Ready(Some(()))
    }

    /// Reads the response away; ready once the request, too, has gone.
    fn receive_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        while !(self.upstream.response_ended() && self.sent) {
            match ready!(self.upstream.poll_frame(cx)) {
                Ok(Some(_)) => {}
                Ok(None) if self.sent => break,
                Ok(None) => return Poll::Pending,
                Err(_) => return Poll::Ready(None),
            }
        }
        Poll::Ready(Some(()))
    }
}
