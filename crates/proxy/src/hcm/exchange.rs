//! One request and its response, top to bottom.

use std::{
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{StatusCode, header};
use meltemi_filters::{
    Around, Early, Flow, LocalReply, LogType, RequestFields, ResponseFlags, Scope, StreamFilters, StreamInfo,
    headers as rules,
};
use meltemi_http::{Headers, Method, RequestHead, ResponseHead, ServerStream, name};
use meltemi_net::timer::Deadline;
use meltemi_plan::anomaly::Record;
use meltemi_plan::{
    Route, RouteAction, RouteRequest, VirtualHost,
    route::{DirectResponse, Forward, TlsRequirement, find},
};
use meltemi_upstream::Cluster;

use super::{Context, early, local_reply, reply, request, response, stats::ActiveRequest};
use crate::{
    call::Calls,
    demand::Need,
    router::{self, redirect},
    world::World,
};

/// The state of one exchange, from its head to its access log entry.
pub struct Exchange<'a> {
    pub context: &'a Context,
    pub stream: &'a mut ServerStream,
    pub deadline: &'a mut Deadline,
    /// Taken once: a request never sees two configurations.
    pub world: Arc<World>,
    pub info: StreamInfo,
    pub request: RequestHead,
    /// One number for every decision by chance, so that repeated ones agree.
    pub random: u64,
    /// The route's cluster, if there is one by that name.
    pub cluster: Option<Arc<Cluster>>,
    /// As it was sent.
    pub response: Option<ResponseHead>,
    /// The response's, as they passed.
    pub trailers: Option<Headers>,
    pub filters: StreamFilters,
    /// Of the request's body, what a filter asked for.
    pub early: Option<Box<Early>>,
}

/// How a request came out of its filters.
enum Filtered {
    On,
    /// Another route was chosen on the way, or there is none any more.
    Rerouted(Result<(Arc<VirtualHost>, Arc<Route>), Box<LocalReply>>),
    Reply(Box<LocalReply>),
    /// The client left meanwhile.
    Gone,
}

/// What moving the bodies needs, borrowed apart.
pub struct StreamParts<'a> {
    pub stream: &'a mut ServerStream,
    pub deadline: &'a mut Deadline,
    pub info: &'a mut StreamInfo,
    pub filters: &'a mut StreamFilters,
    pub trailers: &'a mut Option<Headers>,
}

/// Serves one request to its end.
pub(super) async fn run(context: &Context, stream: &mut ServerStream, deadline: &mut Deadline, head: RequestHead) {
    let counted = ActiveRequest::new(context.http.stats(), head.protocol);
    let mut exchange = Exchange {
        world: context.worker.world(),
        info: StreamInfo::new(context.connection.clone()),
        random: context.worker.random(),
        filters: context.http.filters.stream(),
        context,
        stream,
        deadline,
        request: head,
        cluster: None,
        response: None,
        trailers: None,
        early: None,
    };
    exchange.info.protocol = Some(exchange.request.protocol);
    exchange.info.request_header_bytes = exchange.request.headers.byte_size() as u64;
    let tunnel = exchange.request.upgrade.is_some() || exchange.request.method == Method::CONNECT;
    if exchange.stream.request_ended() && !tunnel {
        exchange.info.last_downstream_byte_received = Some(exchange.info.start);
    }
    if let Err(reply) = exchange.serve().await {
        exchange.reply(*reply).await;
    }
    exchange.end();
    counted.ended(&exchange.info);
}

impl Exchange<'_> {
    /// Every stage in order; an early end is a local reply.
    async fn serve(&mut self) -> Result<(), Box<LocalReply>> {
        let admitted = request::admit(self.context, &mut self.request, self.random).inspect_err(|reply| {
            if reply.status == StatusCode::BAD_REQUEST {
                self.stream.close_after_response();
            }
        })?;
        self.info.remote = admitted.remote;
        self.expect_continue();
        self.info.is_grpc = self.request.is_grpc();
        let found = match self.find_route() {
            // Boxed: rare, and no exchange need be as large for it.
            Err(reply) => match self.missing_host() {
                Some(wanted) => Box::pin(self.obtain_route(wanted)).await,
                None => Err(reply),
            },
            found => found,
        };
        let (host, route) = match found {
            Ok(found) => found,
            // Boxed: rare, as above.
            Err(reply) => return Box::pin(self.without_route(reply)).await,
        };
        if let Some(forward) = route.forward()
            && let Some(missing) = router::resolve(self, forward)
        {
            Box::pin(self.obtain_cluster(missing, forward)).await;
        }
        self.check_upgrade(&route)?;
        self.trace();
        let (host, route) = match self.filter().await {
            Filtered::On => (host, route),
            Filtered::Rerouted(found) => found?,
            Filtered::Gone => return router::gone(self),
            Filtered::Reply(mut reply) => {
                // Envoy has no rules at hand for a filter's reply on a route that goes nowhere.
                reply.header_rules &= route.forward().is_some();
                return Err(reply);
            }
        };
        self.act(&host, &route).await
    }

    /// Does with the request what its route says.
    async fn act(&mut self, host: &Arc<VirtualHost>, route: &Arc<Route>) -> Result<(), Box<LocalReply>> {
        match &route.action {
            RouteAction::Forward(forward) => {
                let forwarded = router::forward(self, host, route, forward).await;
                forwarded.map_err(|reply| self.tell_attempts(host, reply))
            }
            RouteAction::Redirect(redirect) => Err(Box::new(redirect::reply(self, redirect, route))),
            RouteAction::DirectResponse(direct) => Err(Box::new(self.direct_response(direct))),
            RouteAction::NonForwarding => Err(Box::new(LocalReply::new(StatusCode::NOT_FOUND, "", "route_not_found"))),
        }
    }

    /// Filters see a request that goes nowhere too: they may answer it themselves, or find out what a route asks for, such as
    /// the claims of a token.
    async fn without_route(&mut self, reply: Box<LocalReply>) -> Result<(), Box<LocalReply>> {
        self.trace();
        match self.filter().await {
            Filtered::Reply(mut earlier) => {
                earlier.header_rules = false;
                Err(earlier)
            }
            Filtered::Gone => router::gone(self),
            Filtered::Rerouted(Ok((host, route))) => {
                self.check_upgrade(&route)?;
                self.act(&host, &route).await
            }
            Filtered::On | Filtered::Rerouted(Err(_)) => Err(reply),
        }
    }

    /// Runs the request filters, and does for them what they ask for on the way.
    async fn filter(&mut self) -> Filtered {
        let mut rerouted = None;
        loop {
            let on_demand = self.context.http.plan.on_demand.is_some_and(|waits| waits.clusters);
            let caller = Calls { worker: &self.context.worker, world: &self.world, on_demand };
            let around = Around { caller: &caller, early: self.early.as_deref() };
            match self.filters.on_request(&mut self.request, &mut self.info, around).await {
                Flow::Continue => return rerouted.map_or(Filtered::On, Filtered::Rerouted),
                Flow::Reply(reply) => {
                    if reply.reroute {
                        let _ = self.reroute();
                    }
                    return Filtered::Reply(reply);
                }
                Flow::Reroute => rerouted = Some(self.reroute()),
                // Boxed: rare, as above.
                Flow::Body(most) => match Box::pin(early::read(self, most)).await {
                    Ok(()) => {}
                    Err(early::Broken::Gone) => return Filtered::Gone,
                    Err(early::Broken::Reply(reply)) => return Filtered::Reply(reply),
                },
            }
        }
    }

    /// Chooses the route once more, by what the request has become.
    fn reroute(&mut self) -> Result<(Arc<VirtualHost>, Arc<Route>), Box<LocalReply>> {
        (self.info.route, self.info.virtual_host, self.info.weighted) = (None, None, None);
        (self.cluster, self.info.upstream.cluster) = (None, None);
        let (host, route) = self.find_route()?;
        if let Some(forward) = route.forward() {
            let _ = router::resolve(self, forward);
        }
        Ok((host, route))
    }

    /// A reply in a host's stead says as an answer would how often was tried.
    fn tell_attempts(&self, host: &VirtualHost, mut reply: Box<LocalReply>) -> Box<LocalReply> {
        // The connection manager's own timers know nothing of attempts.
        let of_router =
            !reply.flags.contains(ResponseFlags::STREAM_IDLE_TIMEOUT) && reply.details != "max_duration_timeout";
        if of_router && host.include_attempt_count_in_response {
            let attempts = self.info.upstream.attempts.max(1);
            reply.headers.insert(name::X_ENVOY_ATTEMPT_COUNT, http::HeaderValue::from(attempts));
        }
        reply
    }

    fn expect_continue(&mut self) {
        if self.context.http.plan.proxy_100_continue {
            return;
        }
        let expects = self.request.headers.get(&header::EXPECT);
        if expects.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            self.request.headers.remove(&header::EXPECT);
            if !self.stream.request_ended() {
                self.stream.send_interim(StatusCode::CONTINUE, &Headers::new());
            }
        }
    }

    /// An upgrade or CONNECT that neither the connection manager nor the route allows is refused.
    fn check_upgrade(&mut self, route: &Route) -> Result<(), Box<LocalReply>> {
        let kind = match &self.request.upgrade {
            Some(kind) => kind.as_str(),
            None if self.request.method == Method::CONNECT => "connect",
            None => return Ok(()),
        };
        let of_route = route.forward().map_or(&[][..], |forward| &forward.upgrades);
        let of_route = of_route.iter().find(|upgrade| upgrade.kind.eq_ignore_ascii_case(kind));
        let upgrades = &self.context.http.plan.upgrades;
        let general = upgrades.iter().find(|upgrade| upgrade.kind.eq_ignore_ascii_case(kind));
        let allowed = match (of_route, general) {
            // The route's word goes, whether or not the connection manager has one.
            (Some(route), _) => route.enabled,
            (None, Some(general)) => general.enabled,
            (None, None) => false,
        };
        // In HTTP/1 a body before the upgrade could not be told from what follows it.
        let body = self.request.upgrade.is_some() && self.request.protocol.is_http1() && !self.stream.request_ended();
        if allowed && body {
            self.stream.close_after_response();
            return Err(Box::new(LocalReply::new(StatusCode::BAD_REQUEST, "", "upgrade_with_body")));
        }
        if allowed || !matches!(route.action, RouteAction::Forward(_)) {
            return Ok(());
        }
        self.stream.close_after_response();
        Err(Box::new(LocalReply::new(StatusCode::FORBIDDEN, "", "upgrade_failed")))
    }

    fn find_route(&mut self) -> Result<(Arc<VirtualHost>, Arc<Route>), Box<LocalReply>> {
        let plan = &self.context.http.plan;
        let not_found = || {
            let reply = LocalReply::new(StatusCode::NOT_FOUND, "", "route_not_found");
            Box::new(reply.with_flags(ResponseFlags::NO_ROUTE))
        };
        let routes = match &plan.route {
            meltemi_plan::RouteSource::Inline(routes) => Some(routes),
            meltemi_plan::RouteSource::Rds(name) => self.world.routes.get(name),
        };
        let routes = Arc::clone(routes.ok_or_else(not_found)?);
        let tls = self.context.connection.tls.as_ref();
        let view = RequestFields(&self.request);
        let query = RouteRequest {
            host: &self.request.authority,
            path: &self.request.path,
            headers: &view,
            random: self.random,
            is_connect: self.request.method == Method::CONNECT && self.request.upgrade.is_none(),
            tls_presented: tls.is_some_and(|tls| tls.peer.is_some()),
            tls_validated: tls.is_some_and(|tls| tls.peer.is_some()),
            metadata: self.info.metadata.as_deref(),
        };
        let host = routes.find_host(&query).ok_or_else(not_found)?;
        let needs_tls = match host.require_tls {
            TlsRequirement::None => false,
            TlsRequirement::ExternalOnly => self.request.headers.get_str(&name::X_ENVOY_INTERNAL) != Some("true"),
            TlsRequirement::All => true,
        };
        // Not by the scheme, which behind a proxy that ended TLS is its own: whom it told so would be sent round for ever.
        let forwarded = self.request.headers.get_str(&name::X_FORWARDED_PROTO).unwrap_or_default();
        if needs_tls && !forwarded.eq_ignore_ascii_case("https") {
            return Err(Box::new(redirect::to_https(&self.request)));
        }
        if let Some(usage) = &host.usage {
            usage.touch();
        }
        let route = routes.find_route(host, &query).ok_or_else(not_found)?;
        let found = (Arc::clone(host), Arc::clone(route));
        self.info.virtual_host = Some(Arc::clone(host));
        self.info.route = Some(Arc::clone(route));
        self.info.route_configuration = Some(routes);
        Ok(found)
    }

    /// The host to ask for, where the request names one that has not come yet, and how long to wait for it.
    fn missing_host(&self) -> Option<(Need, Duration)> {
        let plan = &self.context.http.plan;
        let meltemi_plan::RouteSource::Rds(name) = &plan.route else { return None };
        let routes = self.world.routes.get(name).filter(|routes| routes.on_demand)?;
        let waits = plan.on_demand.as_ref()?;
        let authority = &*self.request.authority;
        let host = if routes.ignore_port { find::without_port(authority) } else { authority };
        // Longer than any name can be: nobody's.
        let is_name = !host.is_empty() && host.len() <= MAX_HOST_NAME && routes.hosts.find(host).is_none();
        is_name.then(|| (Need::Host(format!("{name}/{}", host.to_ascii_lowercase()).into()), waits.timeout))
    }

    async fn obtain_route(
        &mut self,
        (need, limit): (Need, Duration),
    ) -> Result<(Arc<VirtualHost>, Arc<Route>), Box<LocalReply>> {
        let Some(world) = self.context.worker.ask(need, limit).await else {
            let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "", "on_demand_host_not_received");
            return Err(Box::new(reply.with_flags(ResponseFlags::NO_ROUTE)));
        };
        self.world = world;
        self.find_route()
    }

    /// Waits for a cluster that has not come yet, where the connection manager may; without it the request has none.
    async fn obtain_cluster(&mut self, name: Arc<str>, forward: &Forward) {
        let Some(waits) = self.context.http.plan.on_demand.filter(|waits| waits.clusters) else { return };
        if let Some(world) = self.context.worker.ask(Need::Cluster(name), waits.timeout).await {
            self.world = world;
            router::resolve(self, forward);
        }
    }

    fn direct_response(&self, direct: &DirectResponse) -> LocalReply {
        let body = direct.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
        let status = StatusCode::from_u16(direct.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut reply = LocalReply::new(status, body, "direct_response");
        if status == StatusCode::CREATED || status.is_redirection() {
            redirect::locate(&mut reply, &redirect::here(&self.request));
        }
        reply
    }

    /// Sends a local reply. After response headers have gone there is nothing left but to break the stream.
    pub async fn reply(&mut self, reply: LocalReply) {
        self.info.flags |= reply.flags;
        self.info.set_details(reply.details.clone());
        if self.response.is_some() {
            self.stream.abort();
            return;
        }
        if self.request.method == Method::CONNECT {
            // The client may take what follows for its tunnel.
            self.stream.close_after_response();
        }
        let late_flags = reply.late_flags;
        let reply = if reply.customizable {
            local_reply::customize(&self.context.http.plan.local_reply, reply, &self.request, &mut self.info)
        } else {
            reply
        };
        let (mut head, body) = reply::render(&reply, Some(&self.request));
        if reply.header_rules {
            self.apply_response_rules(&mut head);
        }
        self.filters.on_response(&self.request, &mut head, &mut self.info);
        self.complete(&mut head);
        self.info.bytes_sent += body.len() as u64;
        reply::send(self.stream, &head, body);
        self.info.observe_response(&head);
        self.info.flags |= late_flags;
        self.sent(head);
        self.flush().await;
    }

    /// The weighted cluster's, route's, virtual host's and configuration's response header rules.
    pub fn apply_response_rules(&mut self, head: &mut ResponseHead) {
        let info = &self.info;
        let (Some(routes), Some(host), Some(route)) = (&info.route_configuration, &info.virtual_host, &info.route)
        else {
            return;
        };
        let weighted = info.weighted_cluster().map(|weighted| &weighted.response_headers);
        let mut order =
            [weighted, Some(&route.response_headers), Some(&host.response_headers), Some(&routes.response_headers)];
        if routes.most_specific_header_mutations_wins {
            order.reverse();
        }
        for level in order.into_iter().flatten() {
            if !level.is_empty() {
                rules::apply_to_response(level, head, Some(&self.request), info);
            }
        }
    }

    /// The last changes before a final head goes out.
    pub fn complete(&mut self, head: &mut ResponseHead) {
        if let Some(tracer) = &self.context.http.tracer {
            tracer.answer_operation(&mut head.headers, &mut self.info);
        }
        response::complete(self.context, head, Some(&self.request), self.info.start_time);
        if self.context.handle.is_draining() {
            self.stream.close_after_response();
        }
    }

    /// Remembers the head for logs and metrics.
    pub fn sent(&mut self, head: ResponseHead) {
        self.info.note_response_head(&head, self.stream.announces_close());
        self.info.first_downstream_byte_sent = Some(Instant::now());
        self.response = Some(head);
    }

    /// Hands what is queued to the transport; bounded by the time that a peer may take to read a small answer.
    pub async fn flush(&mut self) {
        self.deadline.set(Some(tokio::time::Instant::now() + FLUSH));
        let (stream, deadline) = (&mut *self.stream, &mut *self.deadline);
        let flushed = poll_fn(|cx| {
            if let std::task::Poll::Ready(result) = stream.poll_flush(cx) {
                return std::task::Poll::Ready(result.is_ok());
            }
            deadline.poll(cx).map(|()| false)
        })
        .await;
        if !flushed {
            stream.abort();
        }
    }

    /// Decides whether this request is traced, and tells the hosts.
    fn trace(&mut self) {
        let Some(tracer) = &self.context.http.tracer else { return };
        let reason = tracer.begin(&self.request, &mut self.info);
        tracer.take_operation(&mut self.request.headers, &mut self.info);
        if self.context.http.plan.request_id.pack_trace_reason {
            request::pack_trace_reason(&mut self.request.headers, reason);
        }
    }

    pub fn parts(&mut self) -> StreamParts<'_> {
        StreamParts {
            stream: self.stream,
            deadline: self.deadline,
            info: &mut self.info,
            filters: &mut self.filters,
            trailers: &mut self.trailers,
        }
    }

    fn end(&mut self) {
        self.filters.on_end(&self.request, &mut self.info);
        if let Some(watch) = self.info.route.as_ref().and_then(|route| route.watch.as_ref()) {
            observe(&watch.record, &self.info);
        }
        let http = &self.context.http;
        if http.logs.is_empty() && http.tracer.is_none() {
            return;
        }
        let scope = Scope {
            request: Some(&self.request),
            response: self.response.as_ref(),
            trailers: self.trailers.as_ref(),
            log_type: LogType::DownstreamEnd,
            ..Scope::new(&self.info)
        };
        http.logs.log(&scope);
        if let Some(tracer) = &http.tracer {
            tracer.finish(&scope);
        }
    }
}

/// The client left.
const GONE: ResponseFlags = ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION;

/// What anomaly detection learns of a request. A client that left before there was an answer says nothing of the route.
fn observe(record: &Record, info: &StreamInfo) {
    let server_error = |status: u32| matches!(status, 4 | 8 | 13..=15);
    let failed = match (info.response_code, info.grpc_status) {
        (None | Some(0), _) if info.flags.contains(GONE) => return,
        (None | Some(0), _) => true,
        (Some(code), grpc) => code >= 500 || grpc.is_some_and(server_error),
    };
    record.ended(failed);
    let since = info.last_downstream_byte_received.unwrap_or(info.start);
    if let Some(answer) = info.upstream.timing.first_byte_received.filter(|_| !failed) {
        record.answered(answer.saturating_duration_since(since));
    }
}

/// Of DNS, with a final dot and some air.
const MAX_HOST_NAME: usize = 260;

/// How long a client may take to read a local reply.
const FLUSH: Duration = Duration::from_secs(60);
