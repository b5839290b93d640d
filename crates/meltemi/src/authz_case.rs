//! `meltemi x authz-case`: what becomes of policies, held against what a case expects.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use meltemi_explain::case::play_policies;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi x authz-case ./cases/http-allow-path      # AuthorizationPolicies to Envoy's filters
  meltemi x authz-case ./ambient/allow-groups       # a policy of the ambient data plane

Exit codes: 0 every case passed; 1 one did not, or could not be read; 2 wrong usage")]
pub struct Arguments {
    /// Folders of cases, each with case.yaml, input.yaml and what is expected
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    crate::cases::judge(&arguments.folders, |folder| Ok(play_policies(folder)?))
}
