//! `meltemi revision`: the control planes of a cluster.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use meltemi_install::revision::{Revision as Found, look};

use super::{ClusterArguments, block_on, output};

#[derive(Debug, Clone, Subcommand)]
pub enum Revision {
    /// List the revisions
    List(List),
    /// Show one revision with all that belongs to it
    Describe(Describe),
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi revision list
  meltemi revision list -o json")]
pub struct List {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json", "table"])]
    output: String,
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi revision describe canary

Exit codes: 0 it is there; 1 it is not; 2 wrong usage")]
pub struct Describe {
    /// Name of the revision
    #[arg(value_name = "REVISION")]
    name: String,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub fn run(command: &Revision) -> anyhow::Result<ExitCode> {
    block_on(async {
        match command {
            Revision::List(arguments) => list(arguments).await,
            Revision::Describe(arguments) => describe(arguments).await,
        }
    })
}

async fn list(arguments: &List) -> anyhow::Result<ExitCode> {
    let revisions = look(&arguments.cluster.connect().await?).await?;
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        writeln!(out, "{}", serde_json::to_string_pretty(&revisions)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["REVISION", "TAGS", "CONTROL-PLANE", "READY", "NAMESPACES", "PROXIES"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(revisions.iter().map(|revision| {
        let planes: Vec<_> = revision.control_planes.iter().map(|it| format!("{}/{}", it.namespace, it.name)).collect();
        let ready: Vec<_> = revision.control_planes.iter().map(|it| format!("{}/{}", it.ready, it.wanted)).collect();
        let counts = [revision.namespaces.len().to_string(), revision.proxies.len().to_string()];
        let [namespaces, proxies] = counts;
        vec![revision.name.clone(), dash(&revision.tags), dash(&planes), dash(&ready), namespaces, proxies]
    }));
    output::table(&mut out, &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn dash(names: &[String]) -> String {
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

async fn describe(arguments: &Describe) -> anyhow::Result<ExitCode> {
    let revisions = look(&arguments.cluster.connect().await?).await?;
    let Some(revision) = revisions.iter().find(|revision| revision.name == arguments.name) else {
        let names: Vec<_> = revisions.iter().map(|revision| revision.name.as_str()).collect();
        bail!("there is no revision {}; there are: {}", arguments.name, names.join(", "));
    };
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        writeln!(out, "{}", serde_json::to_string_pretty(revision)?)?;
    } else {
        out.write_all(described(revision).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn described(revision: &Found) -> String {
    let mut text = format!("Revision: {}\nTags: {}\n", revision.name, dash(&revision.tags));
    let planes = revision.control_planes.iter();
    let planes =
        planes.map(|it| format!("{}/{}, {} of {} ready, {}", it.namespace, it.name, it.ready, it.wanted, it.image));
    for (title, names) in [
        ("Control planes", planes.collect()),
        ("Webhooks", revision.webhooks.clone()),
        ("Gateways", revision.gateways.clone()),
        ("Injected namespaces", revision.namespaces.clone()),
        ("Proxies", revision.proxies.clone()),
    ] {
        text.push_str(&format!("{title}:\n"));
        let names: Vec<String> = names;
        text.extend(names.iter().map(|name| format!("  {name}\n")));
    }
    text
}
