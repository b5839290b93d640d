//! `meltemi x support`: which field of which document takes effect, from the one table of each half.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use meltemi_config::support::Status;
use meltemi_plan::support::Class;
use serde_json::json;

/// sysexits' EX_USAGE: the command was used wrongly.
const USAGE: u8 = 64;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi x support                              # what is not enforced yet, of Istio's documents and of Envoy's
  meltemi x support --all VirtualService         # every field of a kind
  meltemi x support -o json envoy.config.cluster.v3.Cluster

Exit codes: 0 printed; 64 no kind or message has such a name")]
pub struct Arguments {
    /// Only kinds and messages whose name holds this
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Fields that take effect as well
    #[arg(long)]
    all: bool,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

struct Row {
    of: String,
    field: String,
    status: &'static str,
    note: String,
}

fn config_rows() -> impl Iterator<Item = Row> {
    meltemi_config::support::fields().map(|field| {
        let (status, values) = match field.status {
            Status::Enforced => ("enforced", &[][..]),
            Status::PartlyEnforced(values) => ("partly", values),
            Status::NotEnforced => ("warning", &[][..]),
            Status::NoEffect => ("no effect", &[][..]),
            Status::NotUsed => ("unused", &[][..]),
        };
        let note = match (values, field.note) {
            ([], note) => note.to_owned(),
            (values, note) => format!("not {}. {note}", values.join(", ")).trim_end().to_owned(),
        };
        Row { of: field.of.to_owned(), field: field.path, status, note }
    })
}

fn plan_rows() -> impl Iterator<Item = Row> {
    meltemi_plan::support::entries().map(|(message, field, class)| {
        let (status, note) = match class {
            Class::Honoured => ("enforced", ""),
            Class::Refused(reason) => ("refused", reason),
            Class::Ignored(reason) => ("ignored", reason),
        };
        Row { of: message.to_owned(), field: field.to_owned(), status, note: note.to_owned() }
    })
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name = arguments.name.as_deref().unwrap_or_default();
    let named = |row: &Row| row.of.to_lowercase().contains(&name.to_lowercase());
    let mut rows: Vec<Row> = config_rows().chain(plan_rows()).filter(named).collect();
    if rows.is_empty() {
        eprintln!("error: no kind and no message has {name:?} in its name");
        return Ok(ExitCode::from(USAGE));
    }
    rows.retain(|row| arguments.all || !matches!(row.status, "enforced" | "unused"));
    if rows.is_empty() {
        eprintln!("every field of {name} that is used takes effect; --all lists them");
    }
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| json!({"of": row.of, "field": row.field, "status": row.status, "note": row.note}))
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).len()).max().unwrap_or_default().min(64);
    let (first, second) = (width(|row| &row.of), width(|row| &row.field));
    for row in &rows {
        let line = format!("{:first$}  {:second$}  {:9}  {}", row.of, row.field, row.status, row.note);
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}
