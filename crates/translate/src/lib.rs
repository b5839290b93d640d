//! temporary
mod dialect;
mod listener;
pub mod names;
mod profile;
mod route;
pub mod simulation;
mod wire;
