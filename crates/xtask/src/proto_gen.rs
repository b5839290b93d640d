//! Generates `crates/proto/src/gen` from the .proto files of the `envoy-types` package and of `crates/proto/protos`.
//!
//! Each file is compiled alone and the descriptors merged, since protox resolves shadowed names among all files of a
//! compiler, where protoc looks only at the imported ones.

use crate::root;
use anyhow::{Context, Result};
use prost::Message as _;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The one file that needs an absolute name under protox.
const SHADOWED: &str = "envoy/extensions/clusters/dynamic_forward_proxy/v3/cluster.proto";

/// Folders of the package that others are imported from.
const INCLUDED: &[&str] = &[
    "data-plane-api",
    "xds",
    "googleapis",
    "protoc-gen-validate",
    "cel-spec/proto",
    "cel-spec",
    "opentelemetry-proto",
    "client_model",
    "ratelimit/api",
];

fn envoy_protos() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO")).args(["metadata", "--format-version=1"]).current_dir(root()).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .context("envoy-types is not among the fetched packages")?;
    Ok(Path::new(manifest).with_file_name("proto"))
}

fn files_below(dir: &Path, base: &Path, into: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files_below(&path, base, into)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            into.push(path.strip_prefix(base)?.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

/// A folder that goes before the others, with what is changed.
fn patched(protos: &Path) -> Result<PathBuf> {
    let patched = root().join("target/patched-protos");
    let shadowed = protos.join("data-plane-api").join(SHADOWED);
    let text = std::fs::read_to_string(&shadowed)?.replace(
        " common.dynamic_forward_proxy.v3.DnsCacheConfig",
        " .envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig",
    );
    std::fs::create_dir_all(patched.join(SHADOWED).parent().context("no parent")?)?;
    std::fs::write(patched.join(SHADOWED), text)?;
    Ok(patched)
}

/// Everything that the wanted files need, by name.
fn descriptors(wanted: &[String], includes: &[PathBuf]) -> Result<prost_types::FileDescriptorSet> {
    let mut merged = BTreeMap::new();
    for file in wanted {
        let mut compiler = protox::Compiler::new(includes)?;
        compiler.include_imports(true).include_source_info(false);
        compiler.open_file(file).with_context(|| file.clone())?;
        for descriptor in compiler.file_descriptor_set().file {
            merged.entry(descriptor.name.clone().unwrap_or_default()).or_insert(descriptor);
        }
    }
    Ok(prost_types::FileDescriptorSet { file: merged.into_values().collect() })
}

pub fn run() -> Result<()> {
    let protos = envoy_protos()?;
    let own = root().join("crates/proto/protos");
    let mut includes = vec![patched(&protos)?, own.clone()];
    includes.extend(INCLUDED.iter().map(|name| protos.join(name)).filter(|dir| dir.is_dir()));
    let mut wanted = Vec::new();
    for base in [protos.join("data-plane-api"), own, protos.join("opentelemetry-proto")] {
        files_below(&base, &base, &mut wanted)?;
    }
    wanted.sort();
    let set = descriptors(&wanted, &includes)?;
    let out = root().join("crates/proto/src/gen");
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    std::fs::create_dir_all(&out)?;
    let mut config = prost_build::Config::new();
    config
        .btree_map(["."])
        .bytes(["."])
        .enable_type_names()
        .extern_path(".google.protobuf.Any", "crate::Any")
        .disable_comments(["."])
        .out_dir(&out)
        .include_file("mod.rs");
    std::fs::write(root().join("crates/proto/src/descriptors.bin"), set.encode_to_vec())?;
    tonic_prost_build::configure().out_dir(&out).include_file("mod.rs").compile_fds_with_config(set, config)?;
    println!("generated from {} files", wanted.len());
    Ok(())
}
