//! Development tasks: `cargo xtask deps` checks the direction of crate dependencies, `cargo xtask-gen` regenerates the
//! committed protobuf code.

mod deps;
#[cfg(feature = "gen")]
mod proto_gen;

use anyhow::{Result, bail};
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("deps") => deps::check(),
        #[cfg(feature = "gen")]
        Some("gen") => proto_gen::run(),
        #[cfg(not(feature = "gen"))]
        Some("gen") => bail!("built without the protobuf compiler: run `cargo xtask-gen`"),
        _ => bail!("usage: cargo xtask deps | cargo xtask-gen"),
    }
}
