//! `meltemi tag`: names that stand for revisions.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use meltemi_install::lifecycle::apply::apply_all;
use meltemi_install::lifecycle::{Options, remove};
use meltemi_install::object::{COMPONENT_LABEL, Object, REVISION_LABEL, TAG_LABEL, manifest};
use meltemi_install::operator::DEFAULT_NAMESPACE;
use meltemi_install::tag::{TagRequest, objects, tags};
use meltemi_kubernetes::apply::{Cluster, Resource};
use serde_json::Value;

use super::{ClusterArguments, block_on, output};

#[derive(Debug, Clone, Subcommand)]
pub enum Tag {
    /// Make a tag stand for a revision
    Set(Set),
    /// Print the objects that make a tag
    Generate(Generate),
    /// List the tags of a cluster
    List(List),
    /// Remove a tag
    Remove(Remove),
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi tag set prod --revision 1-20
  meltemi tag set prod --revision 1-21 --overwrite
  meltemi tag set default --revision canary    # what names no revision goes to this one")]
pub struct Set {
    #[command(flatten)]
    tag: What,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Let a tag that is there stand for another revision
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi tag generate prod --revision 1-20 | kubectl apply --server-side -f -")]
pub struct Generate {
    #[command(flatten)]
    tag: What,
}

#[derive(Debug, Clone, Args)]
struct What {
    /// Name of the tag
    #[arg(value_name = "TAG")]
    name: String,
    /// Revision that it stands for
    #[arg(short = 'r', long, value_name = "NAME")]
    revision: String,
    /// Namespace of the control plane
    #[arg(short = 'i', long = "istioNamespace", default_value = DEFAULT_NAMESPACE, value_name = "NAME")]
    namespace: String,
    /// Inject pods of namespaces without any label, too; for the tag default
    #[arg(long = "auto-inject-namespaces")]
    everywhere: bool,
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi tag list
  meltemi tag list -o json")]
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
  meltemi tag remove prod

Exit codes: 0 done; 1 there is no such tag, or nobody agreed; 2 wrong usage")]
pub struct Remove {
    /// Name of the tag
    #[arg(value_name = "TAG")]
    name: String,
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Do not ask, though namespaces are injected by it
    #[arg(short = 'y', long = "skip-confirmation")]
    yes: bool,
}

pub fn run(command: &Tag) -> anyhow::Result<ExitCode> {
    match command {
        Tag::Set(arguments) => block_on(set(arguments)),
        Tag::Generate(arguments) => generate(&arguments.tag),
        Tag::List(arguments) => block_on(list(arguments)),
        Tag::Remove(arguments) => block_on(remove_tag(arguments)),
    }
}

impl What {
    fn objects(&self) -> anyhow::Result<Vec<Object>> {
        for (flag, text) in [("TAG", &self.name), ("--revision", &self.revision)] {
            if !meltemi_install::operator::is_label(text) {
                bail!("{flag} {text:?}: is no DNS label: small letters, digits and dashes, at most 63");
            }
        }
        let request = TagRequest {
            name: &self.name,
            revision: &self.revision,
            namespace: &self.namespace,
            everywhere: self.everywhere,
        };
        Ok(objects(&request)?)
    }
}

fn generate(tag: &What) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(manifest(&tag.objects()?).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn resource(kind: &str) -> anyhow::Result<&'static Resource> {
    Resource::of_kind(kind).with_context(|| kind.to_owned())
}

async fn webhooks(cluster: &Cluster, labels: &str) -> anyhow::Result<Vec<Value>> {
    Ok(cluster.list(resource("MutatingWebhookConfiguration")?, "", labels).await?)
}

async fn set(arguments: &Set) -> anyhow::Result<ExitCode> {
    let made = arguments.tag.objects()?;
    let cluster = arguments.cluster.connect().await?;
    let (name, revision) = (&arguments.tag.name, &arguments.tag.revision);
    let of_revision = format!("{REVISION_LABEL}={revision},!{TAG_LABEL},{COMPONENT_LABEL}");
    if webhooks(&cluster, &of_revision).await?.is_empty() {
        bail!("there is no revision {revision} in this cluster; meltemi revision list says which there are");
    }
    let present = webhooks(&cluster, &format!("{TAG_LABEL}={name}")).await?;
    let stands_for = present.first().and_then(|it| it.pointer("/metadata/labels")?.get(REVISION_LABEL)?.as_str());
    if let Some(other) = stands_for.filter(|other| other != revision && !arguments.overwrite) {
        bail!("{name} stands for revision {other}; --overwrite changes that");
    }
    if name != "default" && !webhooks(&cluster, &format!("{REVISION_LABEL}={name},!{TAG_LABEL}")).await?.is_empty() {
        bail!("{name} is a revision itself: a tag of this name would inject twice");
    }
    let options = Options { dry_run: false, force: false, wait: None };
    apply_all(&cluster, &made, options, &mut |event| output::progress(&event)).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{name} stands for revision {revision}; namespaces get the label {REVISION_LABEL}={name}")?;
    Ok(ExitCode::SUCCESS)
}

async fn list(arguments: &List) -> anyhow::Result<ExitCode> {
    let cluster = arguments.cluster.connect().await?;
    let namespaces = cluster.list(resource("Namespace")?, "", "").await?;
    let tags = tags(&webhooks(&cluster, TAG_LABEL).await?, &namespaces);
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        writeln!(out, "{}", serde_json::to_string_pretty(&tags)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["TAG", "REVISION", "NAMESPACES"].map(str::to_owned).to_vec()];
    rows.extend(tags.into_iter().map(|tag| vec![tag.name, tag.revision, tag.namespaces.join(",")]));
    output::table(&mut out, &rows)?;
    Ok(ExitCode::SUCCESS)
}

async fn remove_tag(arguments: &Remove) -> anyhow::Result<ExitCode> {
    let cluster = arguments.cluster.connect().await?;
    let name = &arguments.name;
    let labels = format!("{TAG_LABEL}={name}");
    let mut removal = remove::Removal::default();
    for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
        let found = cluster.list(resource(kind)?, "", &labels).await?;
        removal
            .objects
            .extend(found.into_iter().filter_map(|value| Object::new(value).ok()).map(|object| object.key()));
    }
    if removal.objects.is_empty() {
        bail!("there is no tag {name} in this cluster");
    }
    let namespaces = cluster.list(resource("Namespace")?, "", "").await?;
    let injected = meltemi_install::tag::injected(name, &namespaces);
    let question = format!("Namespaces {} are injected by {name}; remove it?", injected.join(", "));
    if !output::confirm(&question, arguments.yes || injected.is_empty())? {
        eprintln!("Nothing was removed.");
        return Ok(ExitCode::FAILURE);
    }
    remove::remove(&cluster, &removal, &mut |event| output::progress(&event)).await?;
    writeln!(std::io::stdout().lock(), "{name} is removed")?;
    Ok(ExitCode::SUCCESS)
}
