//! The HTTP filters, each a plain struct with what it does to a request and to a response.

mod alpn;
mod cors;
mod ext_authz;
mod fault;
mod grpc;
mod health_check;
mod jwt_authn;
mod local_ratelimit;
mod mutation;
mod peer_exchange;
mod ratelimit;
mod rbac;
mod session;
#[cfg(test)]
mod tests;

pub use alpn::AlpnOverrides;
pub(crate) use cors::{Cors, CorsMatch};
pub(crate) use ext_authz::ExtAuthz;
pub(crate) use fault::{ActiveFault, Fault};
pub(crate) use grpc::GrpcCounter;
pub(crate) use health_check::HealthCheck;
pub use jwt_authn::KeyFetcher;
pub(crate) use jwt_authn::{JwtAuthn, JwtStats, KeyStore};
pub(crate) use local_ratelimit::LocalRateLimit;
pub(crate) use mutation::HeaderMutation;
pub(crate) use peer_exchange::PeerExchange;
pub(crate) use ratelimit::RateLimit;
pub(crate) use rbac::Rbac;
pub(crate) use session::StatefulSession;
pub use session::{Session, Wanted, set_cookie};
