//! The allowed edges between crates of this workspace, held against `cargo metadata`.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::process::Command;

/// crate → what it may use besides `base`. Control plane and data plane meet only in `proto`, `matchers`, `tls`, `xds`
/// and `telemetry`, and in the binary.
const ALLOWED: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("proto", &[]),
    ("matchers", &[]),
    ("tls", &[]),
    ("telemetry", &["proto"]),
    ("xds", &["proto", "telemetry"]),
    ("config", &["matchers", "proto"]),
    ("store", &["config"]),
    ("model", &["config", "matchers", "tls"]),
    ("gateway-api", &["config", "matchers", "model"]),
    ("registry", &["config", "gateway-api", "model", "store"]),
    ("translate", &["config", "matchers", "model", "proto"]),
    ("push", &["model", "proto", "telemetry", "translate", "xds"]),
    ("ca", &["proto", "telemetry", "tls"]),
    ("ratelimit", &["config", "model", "pages", "proto", "telemetry"]),
    (
        "discovery",
        &[
            "ca",
            "config",
            "gateway-api",
            "kubernetes",
            "model",
            "pages",
            "proto",
            "push",
            "registry",
            "store",
            "telemetry",
            "tls",
            "translate",
            "webhook",
            "xds",
        ],
    ),
    ("kubernetes", &["ca", "config", "gateway-api", "model", "registry", "store", "telemetry", "tls"]),
    ("webhook", &["config", "model", "telemetry"]),
    ("cni", &["kubernetes", "netfilter", "pages", "telemetry"]),
    ("install", &["config", "kubernetes", "webhook"]),
    ("plan", &["matchers", "proto", "tls"]),
    ("net", &["telemetry", "tls"]),
    ("http", &["net", "telemetry"]),
    ("upstream", &["http", "matchers", "net", "plan", "telemetry", "tls"]),
    ("filters", &["http", "matchers", "net", "plan", "proto", "telemetry", "tls"]),
    ("proxy", &["filters", "http", "matchers", "net", "plan", "proto", "telemetry", "tls", "upstream", "xds"]),
    ("agent", &["pages", "plan", "proto", "telemetry", "tls", "xds"]),
    ("netfilter", &[]),
    ("pages", &[]),
    ("local", &["config", "netfilter", "store"]),
    // Both halves: it reads what one sends as the other takes it.
    ("explain", &["config", "filters", "http", "matchers", "model", "plan", "proto", "registry", "tls", "translate"]),
    ("meltemi", &["*"]),
    ("bench", &["config", "model", "proto", "registry", "translate", "xds"]),
    ("fuzz", &["*"]),
    ("xtask", &[]),
];

fn short(name: &str) -> Option<&str> {
    match name {
        "meltemi" | "xtask" => Some(name),
        _ => name.strip_prefix("meltemi-"),
    }
}

fn violations(metadata: &Value) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().context("cargo metadata has no packages")? {
        let Some(from) = package["name"].as_str().and_then(short) else { continue };
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == from) else {
            found.push(format!("{from}: not in the table of allowed edges (crates/xtask/src/deps.rs)"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(to) = dependency["name"].as_str().and_then(short) else { continue };
            // Only a test may hold the two halves of the contract together, or make a mesh from documents.
            let pair_assertion =
                dependency["kind"].as_str() == Some("dev") && from == "translate" && matches!(to, "plan" | "registry");
            let fine = to == "base" || allowed.contains(&to) || allowed.contains(&"*") || pair_assertion;
            if !fine {
                found.push(format!("{from} must not use {to}"));
            }
        }
    }
    Ok(found)
}

pub fn check() -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(crate::root())
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let found = violations(&serde_json::from_slice(&output.stdout)?)?;
    if !found.is_empty() {
        bail!("crate directions:\n  {}", found.join("\n  "));
    }
    println!("crate directions: {} crates, no forbidden edge", ALLOWED.len());
    Ok(())
}
