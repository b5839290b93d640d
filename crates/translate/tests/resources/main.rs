//! Generated resources, field by field.

mod gateways;
mod listeners;
mod mesh;
mod routes;
