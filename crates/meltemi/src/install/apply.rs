//! `meltemi install` and `meltemi upgrade`.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use meltemi_install::lifecycle::{Change, Options, adopt, apply};
use meltemi_install::operator::{Operator, Request};
use meltemi_install::render::render;
use meltemi_kubernetes::apply::{Cluster, Resource};
use serde_json::{Value, json};

use super::{ClusterArguments, Inputs, block_on, contents, output, refused};

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi install --set profile=demo -y
  meltemi install -f mesh.yaml --dry-run       # the API server checks everything, and keeps nothing
  meltemi install --revision canary -y         # beside what runs; meltemi tag set moves namespaces to it
  meltemi upgrade -f mesh.yaml --wait=false -o json

A mesh that runs already, of Istio's too, is taken over: its configuration, its authority and the labels of namespaces
live on. What was taken over is said.

Exit codes: 0 done; 1 it failed or is not ready in time; 2 wrong usage; 65 a document is wrong")]
pub struct Install {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Do not ask
    #[arg(short = 'y', long = "skip-confirmation")]
    yes: bool,
    /// Change nothing; let the API server say what would become of each object
    #[arg(long)]
    dry_run: bool,
    /// Take objects over that are not of a mesh
    #[arg(long)]
    force: bool,
    /// Wait for each component until it is ready
    #[arg(long, num_args = 0..=1, default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    wait: bool,
    /// How long a component may take until it is ready
    #[arg(long, default_value = "5m", value_parser = output::duration, value_name = "DURATION")]
    readiness_timeout: Duration,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub fn install(arguments: &Install) -> anyhow::Result<ExitCode> {
    run(arguments, false)
}

pub fn upgrade(arguments: &Install) -> anyhow::Result<ExitCode> {
    run(arguments, true)
}

fn run(arguments: &Install, must_be_there: bool) -> anyhow::Result<ExitCode> {
    let (request, operator) = match arguments.inputs.operator()? {
        Ok(both) => both,
        Err(code) => return Ok(code),
    };
    block_on(async {
        let cluster = arguments.cluster.connect().await?;
        if must_be_there && !has_control_plane(&cluster).await? {
            bail!("there is no control plane to upgrade; meltemi install makes one");
        }
        let revision = operator.revision.as_deref().unwrap_or("default").to_owned();
        let question = format!("Install revision {revision} into namespace {}?", operator.namespace);
        if !output::confirm(&question, arguments.yes || arguments.dry_run)? {
            eprintln!("Nothing was changed.");
            return Ok(ExitCode::FAILURE);
        }
        perform(arguments, &cluster, request, &operator).await
    })
}

async fn has_control_plane(cluster: &Cluster) -> anyhow::Result<bool> {
    let Some(deployments) = Resource::of_kind("Deployment") else { return Ok(false) };
    Ok(!cluster.list(deployments, "", "app=istiod").await?.is_empty())
}

async fn perform(
    arguments: &Install,
    cluster: &Cluster,
    mut request: Request,
    operator: &Operator,
) -> anyhow::Result<ExitCode> {
    let adoption = adopt::look(cluster, &operator.namespace, operator.revision.as_deref()).await?;
    request.adopted.clone_from(&adoption.adopted);
    // Nothing new is said: the adopted configuration has been in force.
    let operator = match Operator::resolve(&request) {
        Ok(operator) => operator,
        Err(errors) => return Ok(refused(&errors)),
    };
    let mut rendered = match render(&operator, &contents()) {
        Ok(rendered) => rendered,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(super::DATA_ERROR));
        }
    };
    rendered.notices.iter().for_each(output::warn);
    adopt::note(&mut rendered, &adoption.adopted);
    adoption.report.iter().for_each(|line| eprintln!("taken over: {line}"));
    let wait = arguments.wait.then_some(arguments.readiness_timeout);
    let options = Options { dry_run: arguments.dry_run, force: arguments.force, wait };
    let mut listener = |event| output::progress(&event);
    let changes = apply::install(cluster, &operator, &rendered, options, &mut listener).await?;
    let notices = [operator.notices.clone(), rendered.notices.clone()].concat();
    say(arguments, &operator, &json!({"adopted": adoption.report, "notices": notices}), &changes)?;
    Ok(ExitCode::SUCCESS)
}

fn say(arguments: &Install, operator: &Operator, said: &Value, changes: &[Change]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        let report = json!({
            "namespace": operator.namespace,
            "revision": operator.revision.as_deref().unwrap_or("default"),
            "dryRun": arguments.dry_run,
            "notices": said["notices"],
            "adopted": said["adopted"],
            "changes": changes,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        let dry = if arguments.dry_run { " (dry run)" } else { "" };
        writeln!(out, "{}{dry}", output::summary(changes))?;
    }
    Ok(())
}
