//! How cases in folders are judged: a line for each, and under it what is wrong.

use std::fmt::Display;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// `play` gives the differences of a case; none is a pass. Fails where one case did.
pub fn judge<D: Display>(
    folders: &[PathBuf],
    play: impl Fn(&Path) -> anyhow::Result<Vec<D>>,
) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let mut code = ExitCode::SUCCESS;
    for folder in folders {
        let differences = play(folder)?;
        if differences.is_empty() {
            writeln!(out, "pass {}", folder.display())?;
            continue;
        }
        code = ExitCode::FAILURE;
        writeln!(out, "fail {}", folder.display())?;
        for difference in differences {
            writeln!(out, "  {difference}")?;
        }
    }
    Ok(code)
}
