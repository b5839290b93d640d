//! The TLS port.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::Stream;
use meltemi_ca::PeerCertificate;
use meltemi_config::mesh::MeshConfig;
use meltemi_tls::{
    CertSlot, Identity, PeerInfo, ServerOptions, ServerTls, SpiffeId, TrustAnchors, TrustDomain, TrustSlot, Validation,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::options::Options;
use crate::{State, authority};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once; more wait in the accept queue.
const MAX_HANDSHAKES: usize = 512;
/// Certificates of ours are renewed long before they end.
const RENEW_EVERY: Duration = Duration::from_secs(24 * 3600);
/// How often the mesh configuration and the clock are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a failure.
const RETRY: Duration = Duration::from_secs(10);

/// A listener that hands out connections whose handshake is done.
pub(crate) struct SecureListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    renewal: Renewal,
}

struct Renewal {
    /// With the life of what is in it. None: the certificate is given.
    slot: Option<(Arc<CertSlot>, Life)>,
    anchors: Arc<TrustSlot>,
    changes: watch::Receiver<u64>,
    state: Arc<State>,
}

impl SecureListener {
    /// For gRPC.
    pub(crate) fn new(listener: TcpListener, state: Arc<State>) -> Result<Self> {
        Self::speaking(b"h2", listener, state)
    }

    /// For webhooks.
    pub(crate) fn of_http(listener: TcpListener, state: Arc<State>) -> Result<Self> {
        Self::speaking(b"http/1.1", listener, state)
    }

    fn speaking(protocol: &[u8], listener: TcpListener, state: Arc<State>) -> Result<Self> {
        let options = &state.options;
        let changes = options.authority.subscribe();
        let identity = match &options.certificate {
            Some((chain, key)) => Identity::from_pem(chain, key)?,
            None => issue(options, &state.trust_domain)?,
        };
        let life = Life::of(&identity, SystemTime::now());
        let slot = CertSlot::new(identity);
        let anchors = TrustSlot::new(anchors(options, &state.pusher.snapshot().mesh)?);
        let tls = ServerTls::new(ServerOptions {
            certificates: vec![slot.clone()],
            // A workload without a certificate yet proves itself by token.
            validation: Some(Validation { anchors: anchors.clone(), ..Validation::default() }),
            require_client_certificate: false,
            alpn: vec![protocol.to_vec()],
            ..ServerOptions::default()
        })?;
        let slot = options.certificate.is_none().then_some((slot, life));
        let renewal = Renewal { slot, anchors, changes, state };
        Ok(Self { listener, acceptor: TlsAcceptor::from(tls.config()), renewal })
    }

    /// Accepts for as long as the stream is held.
    pub(crate) fn incoming(self) -> impl Stream<Item = io::Result<SecureStream>> {
        let (sender, mut accepted) = mpsc::channel(16);
        let Self { listener, acceptor, renewal } = self;
        tokio::spawn(async move {
            tokio::select! {
                () = accept(listener, acceptor, &sender) => {}
                () = renew(renewal) => {}
                () = sender.closed() => {}
            }
        });
        futures_util::stream::poll_fn(move |context| accepted.poll_recv(context))
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, sender: &mpsc::Sender<io::Result<SecureStream>>) {
    let limit = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let Ok(permit) = limit.clone().acquire_owned().await else { return };
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            let _permit = permit;
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let peer = PeerInfo::of(stream.get_ref().1).map(Arc::new);
                    // Closed: the server is going away.
                    let _ = sender.send(Ok(SecureStream { stream, remote, peer })).await;
                }
                Ok(Err(error)) => tracing::debug!(%remote, %error, "TLS handshake"),
                Err(_) => tracing::debug!(%remote, "TLS handshake took too long"),
            }
        });
    }
}

/// The life of a certificate, by the clock that others judge it by: a machine that slept, or whose clock was put right, may find it
/// over, or not begun.
#[derive(Debug, Clone, Copy)]
struct Life {
    begins: SystemTime,
    renewed_at: SystemTime,
}

impl Life {
    /// Of a certificate that is issued `now`: it may begin before.
    fn of(identity: &Identity, now: SystemTime) -> Self {
        let info = identity.info();
        let half = info.not_after.duration_since(now).unwrap_or_default() / 2;
        Self { begins: info.not_before, renewed_at: now + half.clamp(LOOK_EVERY, RENEW_EVERY) }
    }

    fn is_over(&self, now: SystemTime) -> bool {
        now < self.begins || now >= self.renewed_at
    }
}

/// Renews in time, and whenever the authority or the mesh configuration has it otherwise.
async fn renew(renewal: Renewal) {
    let Renewal { mut slot, anchors, mut changes, state } = renewal;
    let mut mesh = state.pusher.snapshot().mesh.clone();
    loop {
        let changed = tokio::select! {
            // The sender is in the authority that we hold.
            _ = changes.changed() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let current = state.pusher.snapshot().mesh.clone();
        if changed || current != mesh {
            mesh = current;
            match self::anchors(&state.options, &mesh) {
                Ok(current) => anchors.set(current),
                Err(error) => tracing::error!(%error, "the roots of the secure port stay as they are"),
            }
        }
        let due = slot.as_mut().filter(|(_, life)| changed || life.is_over(SystemTime::now()));
        let Some((slot, life)) = due else { continue };
        match issue(&state.options, &state.trust_domain) {
            Ok(identity) => {
                *life = Life::of(&identity, SystemTime::now());
                slot.set(identity);
            }
            Err(error) => {
                tracing::error!(%error, "the certificate of the secure port is not renewed");
                life.renewed_at = SystemTime::now() + RETRY;
            }
        }
    }
}

/// What clients are verified by.
fn anchors(options: &Options, mesh: &MeshConfig) -> Result<TrustAnchors> {
    Ok(authority::anchors(&options.authority.bundle(), &options.extra_roots, mesh)?)
}

/// A certificate under the names that proxies know us by.
fn issue(options: &Options, trust_domain: &TrustDomain) -> Result<Identity> {
    let namespace = &options.namespace;
    let mut names = vec!["istiod".to_owned(), "localhost".to_owned()];
    let of_revision = options.webhook.revision_service();
    for service in ["istiod", "istio-pilot", "istiod-remote"].into_iter().chain(of_revision.as_deref()) {
        names.push(format!("{service}.{namespace}"));
        names.push(format!("{service}.{namespace}.svc"));
        names.push(format!("{service}.{namespace}.svc.{}", options.domain));
    }
    let id = SpiffeId::new(trust_domain.clone(), namespace, "istiod")?;
    Ok(options.authority.server_identity(&names, &id)?)
}

/// A connection and whom its certificate names.
pub(crate) struct SecureStream {
    stream: TlsStream<TcpStream>,
    remote: SocketAddr,
    peer: Option<Arc<PeerInfo>>,
}

/// What requests of a TLS connection carry.
#[derive(Debug, Clone)]
pub(crate) struct SecureInfo {
    pub remote: SocketAddr,
    pub peer: Option<PeerCertificate>,
}

impl Connected for SecureStream {
    type ConnectInfo = SecureInfo;

    fn connect_info(&self) -> SecureInfo {
        SecureInfo { remote: self.remote, peer: self.peer.clone().map(PeerCertificate) }
    }
}

impl AsyncRead for SecureStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for SecureStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_half_of_its_life_and_wherever_the_clock_leads_out_of_it() {
        let hour = Duration::from_secs(3600);
        let begins = SystemTime::UNIX_EPOCH + 1000 * hour;
        let life = |hours: u32| Life { begins, renewed_at: begins + (hours * hour / 2).min(RENEW_EVERY) };
        for (life, hours, expected) in [
            (life(2), 0.5, false),
            (life(2), 1.0, true),
            (life(2), 5.0, true),
            (life(2), -0.1, true),
            (life(2400), 23.9, false),
            (life(2400), 24.0, true),
        ] {
            let now = SystemTime::UNIX_EPOCH + hour.mul_f64(1000.0 + hours);
            assert_eq!(life.is_over(now), expected, "{life:?} after {hours} h");
        }
    }
}
