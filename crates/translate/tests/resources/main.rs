//! Generated resources, field by field.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

mod dynamic_dns;
mod gateway_api;
mod gateways;
mod like_istio;
mod listeners;
mod mesh;
mod on_demand;
mod resilience;
mod routes;
mod sessions;
