//! Whole-system tests: the built binary, real sockets, and real peers where the machine has them. A test whose peer is
//! missing prints "skipped: …" and says which script installs it.

mod breakers;
mod changes;
mod connect;
mod control_plane;
mod differential;
mod dynamic_dns;
mod dynamic_forward;
mod echo;
mod envoy_sidecars;
mod fabric;
mod features;
mod foreign_ads;
mod gateway_api;
mod goaway;
mod http3;
mod ipv6;
mod load_tools;
mod localities;
mod lossless;
mod mesh;
mod observability;
mod on_demand;
mod proxy_protocol;
mod registration;
mod resilience;
mod retries;
mod root_rotation;
mod rotation;
mod spelling;
mod static_proxy;
mod support;
mod wire;
mod zones;
