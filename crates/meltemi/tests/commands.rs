//! What every command owes its user: output that may end early, wrong input that is said at once, and an exit code that tells them apart.

use std::fs::OpenOptions;
use std::io::Read;
use std::process::{Command, Output, Stdio};

fn meltemi(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meltemi"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let output = meltemi(arguments).output().expect("it runs");
    (output.status.code(), said(&output))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Commands that print and need nothing.
const PRINTING: &[&[&str]] = &[
    &["version"],
    &["version", "-o", "json"],
    &["completion", "bash"],
    &["completion", "zsh"],
    &["iptables", "--dry-run", "-i", "*", "-b", "*"],
    &["iptables", "--dry-run", "--cleanup-only"],
    &["x", "support"],
    &["x", "crds"],
    &["profile", "list"],
    &["profile", "dump", "demo"],
    &["manifest", "generate"],
    &["tag", "generate", "prod", "--revision", "one"],
];

#[test]
fn a_reader_that_leaves_is_no_failure() {
    for arguments in PRINTING {
        let mut child = meltemi(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = child.wait().unwrap();
        assert!(status.success() && said.is_empty(), "{arguments:?}: {status}, {said}");
    }
}

#[test]
fn a_full_disk_is_said() {
    for arguments in PRINTING {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = meltemi(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(said(&output), "error: No space left on device (os error 28)\n", "{arguments:?}");
    }
}

#[test]
fn settings_that_are_none_are_wrong_usage() {
    for (arguments, reason) in [
        (&["iptables", "--dry-run", "-m", "FOO"][..], "error: -m: mode `FOO` is neither REDIRECT nor TPROXY\n"),
        (&["iptables", "--dry-run", "-b", "99999"], "error: -b: `99999` is not a port number from 1 to 65535\n"),
        (&["--log-level", "loud", "version"], "unknown log level \"loud\""),
        (&["--log-format", "xml", "version"], "--log-format \"xml\": one of text, json"),
        (&["wait", "--url", "https://localhost/"], "only http is asked"),
    ] {
        let (code, said) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
}

#[test]
fn support_of_nothing_known_is_said() {
    let (code, said) = run(&["x", "support", "VirtualServise"]);
    assert_eq!((code, &*said), (Some(64), "error: no kind and no message has \"VirtualServise\" in its name\n"));
}

#[test]
fn a_file_without_end_is_refused() {
    let (code, said) = run(&["validate", "-f", "/dev/zero"]);
    assert_eq!((code, &*said), (Some(1), "error: /dev/zero: larger than 64 MiB\n"));
}

#[test]
fn a_control_plane_that_is_away_is_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let (code, said) = run(&["explain", "--discovery", &url, "--from", "web", "http://api/"]);
    assert_eq!(code, Some(65));
    assert_eq!(said, format!("error: /debug/configz?kinds=all: {url}: Connection refused (os error 111)\n"));
}

#[test]
fn folders_without_cases_are_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    for command in ["validate", "explain"] {
        assert_eq!(run(&[command, "--case", folder]), (Some(1), "error: no cases there\n".to_owned()), "{command}");
    }
}

/// Every command and its own, as `--help` lists them.
fn commands(of: &[&str], found: &mut Vec<String>) {
    let output = meltemi(&[of, &["--help"]].concat()).output().expect("it runs");
    assert!(output.status.success(), "{of:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let own = listed.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let names: Vec<&str> = own.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help").collect();
    for name in &names {
        commands(&[of, &[name]].concat(), found);
    }
    if names.is_empty() {
        found.push(text);
    }
}

#[test]
fn every_command_has_examples_and_a_word_for_each_argument() {
    let mut found = Vec::new();
    commands(&[], &mut found);
    assert!(found.len() > 30, "{}", found.len());
    for text in &found {
        let name = text.lines().find(|line| line.starts_with("Usage:")).unwrap();
        assert!(text.lines().any(|line| line.starts_with("  ") && line.contains("meltemi ")), "no example: {name}");
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in
            lines.iter().enumerate().filter(|(_, line)| line.starts_with("  [") || line.starts_with("  <"))
        {
            let word = lines.get(at + 1).map_or("", |next| next.trim());
            let here = line.trim().contains("  ");
            assert!(here || !(word.is_empty() || word.starts_with('[')), "{name}: {line}");
        }
    }
}
