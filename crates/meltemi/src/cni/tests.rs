use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn parse(line: &str) -> Result<Command, clap::Error> {
    let words = std::iter::once("cni").chain(line.split_whitespace());
    Ok(Line::try_parse_from(words)?.arguments.command)
}

fn options(line: &str) -> Options {
    match parse(&format!("daemon {line}")).unwrap() {
        Command::Daemon(daemon) => daemon.options().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_runtime_starts_the_plugin_by_its_name() {
    let check = |name: &str| is_plugin(Some(OsStr::new(name)));
    assert!(check("/opt/cni/bin/istio-cni"));
    assert!(check("meltemi-cni"));
    assert!(!check("/usr/bin/meltemi"));
    assert!(!is_plugin(None));
}

#[test]
fn the_daemon_does_what_a_daemonset_has_it_do() {
    let options = options("--exclude-namespaces kube-system,istio-system --native-nftables");
    assert_eq!(options.install.configurations, PathBuf::from("/host/etc/cni/net.d"));
    assert_eq!(options.install.programs, PathBuf::from("/host/opt/cni/bin"));
    assert_eq!(options.install.wanted.mode, Mode::Chained);
    assert_eq!(options.install.wanted.plugin["exclude_namespaces"], json!(["kube-system", "istio-system"]));
    assert_eq!(options.install.wanted.plugin["native_nftables"], json!(true));
    assert!(options.repair.is_none() && options.untaint && options.cleanup);
    assert_eq!((options.health.port(), options.metrics.port()), (8000, 15014));
}

#[test]
fn mending_wins_over_deleting_and_deleting_over_labelling() {
    let action = |line: &str| options(line).repair.map(|repair| repair.action);
    let label = Action::Label { key: "cni.istio.io/uninitialized".into(), value: "true".into() };
    assert_eq!(action("--repair-label-pods"), Some(label));
    assert_eq!(action("--repair-label-pods --repair-delete-pods"), Some(Action::Delete));
    assert_eq!(action("--repair-repair-pods --repair-delete-pods=true"), Some(Action::Mend));
    assert_eq!(action("--repair-repair-pods --repair-enabled false"), None);
}

#[test]
fn plugin_and_repair_write_rules_with_the_iptables_that_is_asked_for() {
    let legacy = options("--force-iptables-binary legacy --repair-repair-pods");
    assert_eq!(legacy.install.wanted.plugin["force_iptables_binary"], json!("legacy"));
    let expected = Backend::Iptables(Program { flavour: Some("legacy"), lock_file: None });
    assert_eq!(legacy.repair.unwrap().backend, expected);
    let default = options("--repair-repair-pods");
    assert!(!default.install.wanted.plugin.contains_key("force_iptables_binary"));
    assert_eq!(default.repair.unwrap().backend, Backend::Iptables(Program::default()));
    let nftables = options("--force-iptables-binary nft --native-nftables --repair-repair-pods");
    assert_eq!(nftables.repair.unwrap().backend, Backend::Nftables);
    assert!(parse("daemon --force-iptables-binary ebtables").is_err());
}

#[test]
fn where_the_plugin_goes_is_one_of_three() {
    let mode = |line: &str| options(line).install.wanted.mode;
    assert_eq!(mode("--chained-cni-plugin false"), Mode::Alone);
    assert_eq!(mode("--istio-owned-cni-config"), Mode::Owned("02-istio-cni.conflist".into()));
    assert_eq!(options("--cni-conf-name 10-x.conflist").install.wanted.file.as_deref(), Some("10-x.conflist"));
}

#[test]
fn what_is_not_done_is_refused() {
    let Command::Daemon(daemon) = parse("daemon --ambient-enabled").unwrap() else { panic!("no daemon") };
    assert!(daemon.options().unwrap_err().to_string().contains("--ambient-enabled"));
    assert!(parse("daemon --repair-enabled perhaps").is_err());
    assert!(parse("repair").is_err());
}
