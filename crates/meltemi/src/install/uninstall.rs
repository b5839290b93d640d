//! `meltemi uninstall`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use meltemi_install::lifecycle::remove::{Removal, Scope, plan, remove};
use meltemi_install::operator::Request;
use meltemi_install::render::{Rendered, render};
use meltemi_kubernetes::apply::Cluster;
use serde_json::json;

use super::{ClusterArguments, DATA_ERROR, block_on, contents, output, resolve, source};

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi uninstall --purge -y                 # everything, with all documents of the mesh's kinds
  meltemi uninstall --revision canary
  meltemi uninstall -f mesh.yaml --dry-run

Exit codes: 0 done; 1 it failed, or nobody agreed; 2 wrong usage; 65 a document is wrong")]
pub struct Uninstall {
    /// All revisions, the kinds of the API with all documents of them, and what the control plane wrote
    #[arg(long)]
    purge: bool,
    /// One revision with its gateways
    #[arg(short = 'r', long, conflicts_with = "purge", value_name = "NAME")]
    revision: Option<String>,
    /// What these IstioOperator documents come to
    #[arg(short = 'f', long, conflicts_with_all = ["purge", "revision"], required_unless_present_any = ["purge", "revision"],
        value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// A setting below spec, for the documents
    #[arg(short = 's', long = "set", requires = "filename", value_name = "PATH=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Do not ask
    #[arg(short = 'y', long = "skip-confirmation")]
    yes: bool,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub fn run(arguments: &Uninstall) -> anyhow::Result<ExitCode> {
    let rendered = match of_documents(arguments)? {
        Ok(rendered) => rendered,
        Err(code) => return Ok(code),
    };
    block_on(async {
        let cluster = arguments.cluster.connect().await?;
        let scope = match (&arguments.revision, &rendered) {
            (Some(revision), _) => Scope::Revision(revision),
            (None, Some(rendered)) => Scope::Rendered(rendered),
            (None, None) => Scope::Everything,
        };
        let removal = plan(&cluster, &scope).await?;
        perform(arguments, &cluster, &removal).await
    })
}

fn of_documents(arguments: &Uninstall) -> anyhow::Result<Result<Option<Rendered>, ExitCode>> {
    if arguments.filename.is_empty() {
        return Ok(Ok(None));
    }
    let documents = arguments.filename.iter().map(|path| source(path)).collect::<anyhow::Result<_>>()?;
    let request = Request { documents, settings: arguments.settings.clone(), ..Request::default() };
    let operator = match resolve(&request, None) {
        Ok(operator) => operator,
        Err(code) => return Ok(Err(code)),
    };
    Ok(render(&operator, &contents()).map(Some).map_err(|error| {
        eprintln!("error: {error}");
        ExitCode::from(DATA_ERROR)
    }))
}

async fn perform(arguments: &Uninstall, cluster: &Cluster, removal: &Removal) -> anyhow::Result<ExitCode> {
    if !removal.proxies.is_empty() {
        let count = removal.proxies.len();
        output::warn(format!("{count} pods keep their proxy until they are restarted: {}", some(&removal.proxies)));
    }
    let question = format!("Remove {} objects?", removal.objects.len());
    let removed = if arguments.dry_run {
        removal.objects.clone()
    } else {
        if !output::confirm(&question, arguments.yes || removal.objects.is_empty())? {
            eprintln!("Nothing was removed.");
            return Ok(ExitCode::FAILURE);
        }
        remove(cluster, removal, &mut |event| output::progress(&event)).await?
    };
    let names: Vec<String> = removed.iter().map(ToString::to_string).collect();
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        let report = json!({"dryRun": arguments.dry_run, "removed": names, "proxies": removal.proxies});
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else if arguments.dry_run {
        names.iter().try_for_each(|name| writeln!(out, "{name}"))?;
    } else {
        writeln!(out, "{} removed", names.len())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The first few of many.
fn some(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(5).cloned().collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
