//! `meltemi diff`: what a change to the configuration does, before it is applied.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use meltemi_explain::Mesh;
use meltemi_explain::diff::{Group, diff};
use serde_json::json;

use crate::explain::world::{in_force, read_all, read_one};
use crate::explain::wrong;

/// As `diff` and `kubectl diff` have it.
const DIFFERENT: u8 = 1;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Two configurations are compared by what every sidecar and gateway would be sent: routes in words, the rest field by field. \
With --discovery the documents of -f are applied, in thought, over what is in force there. Pods, addresses and a gateway \
that the documents do not have are made up, as `meltemi up` does.

Examples:
  meltemi diff ./manifests ./manifests-new
  meltemi diff -f routing.yaml --discovery http://127.0.0.1:8080
  meltemi diff -o json old.yaml new.yaml

Exit codes: 0 nothing differs; 1 something does; 2 wrong usage; 65 an input is wrong")]
pub struct Diff {
    /// Files or folders of documents: as they are, and as they are to be
    #[arg(value_names = ["OLD", "NEW"], num_args = 2)]
    paths: Vec<PathBuf>,
    /// Documents that are to be applied over what is in force
    #[arg(short = 'f', long, value_name = "PATH", num_args = 1.., requires = "discovery", conflicts_with = "paths")]
    filename: Vec<PathBuf>,
    /// The debug port of a running control plane
    #[arg(long, value_name = "URL", requires = "filename")]
    discovery: Option<String>,
    /// A file with mesh settings (MeshConfig), of both sides unless --newMeshConfig says otherwise
    #[arg(long = "meshConfig", visible_alias = "mesh-config", value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// A file with the mesh settings as they are to be
    #[arg(long = "newMeshConfig", visible_alias = "new-mesh-config", value_name = "FILE")]
    new_mesh_config: Option<PathBuf>,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub fn run(arguments: &Diff) -> anyhow::Result<ExitCode> {
    let (old, new) = match sides(arguments) {
        Ok(sides) => sides,
        Err(error) => return wrong(&error),
    };
    if let Err(error) = check(&old, &new) {
        return wrong(&error);
    }
    let groups = diff(&old, &new);
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        let groups: Vec<_> = groups.iter().map(Group::json).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&json!({"groups": groups}))?)?;
    } else {
        for (index, group) in groups.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(out, "{gap}{}", group.text())?;
        }
        if groups.is_empty() {
            writeln!(out, "no proxy is sent anything else")?;
        }
    }
    Ok(if groups.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

fn sides(arguments: &Diff) -> anyhow::Result<(Mesh, Mesh)> {
    let config = arguments.mesh_config.as_ref().map(read_one).transpose()?;
    let later = arguments.new_mesh_config.as_ref().map(read_one).transpose()?.or_else(|| config.clone());
    if let Some(url) = &arguments.discovery {
        let (_, in_force) = in_force(url)?;
        if !in_force.is_whole {
            bail!("{url} tells of no Kubernetes documents: compare files with files");
        }
        let over = read_all(&arguments.filename)?;
        return Ok((in_force.mesh(&[], config.as_ref())?, in_force.mesh(&over, later.as_ref())?));
    }
    let [old, new] = arguments.paths.as_slice() else { bail!("OLD and NEW: which documents? Or -f and --discovery") };
    let read = |path: &PathBuf| read_all(std::slice::from_ref(path));
    Ok((Mesh::read(&read(old)?, config.as_ref())?, Mesh::read(&read(new)?, later.as_ref())?))
}

/// What is to come must be right; what is there is as it is.
fn check(old: &Mesh, new: &Mesh) -> anyhow::Result<()> {
    for problem in old.refused.iter().filter(|problem| !new.refused.contains(problem)) {
        eprintln!("{problem} (not in force, and left out here)");
    }
    if new.refused.is_empty() {
        return Ok(());
    }
    for problem in &new.refused {
        eprintln!("{problem}");
    }
    bail!("{} problems: what is wrong would not come into force", new.refused.len())
}
