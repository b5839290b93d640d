use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: i}]}\n";

/// A folder with one file, and the command line with `@` for that file.
fn parsed(name: &str, content: &str, line: &[&str]) -> (tempfile::TempDir, Arguments) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, content).unwrap();
    let line: Vec<String> = line.iter().map(|part| part.replace('@', &file.display().to_string())).collect();
    let line = std::iter::once("kube-inject".to_owned()).chain(line);
    (folder, Line::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).arguments)
}

fn injected(content: &str, line: &[&str]) -> String {
    let (_folder, arguments) = parsed("file", content, line);
    arguments.inject(POD).unwrap().text
}

fn refused(content: &str, line: &[&str]) -> String {
    let (_folder, arguments) = parsed("file", content, line);
    match arguments.inject(POD).unwrap_err() {
        Wrong::Document(error) => error.to_string(),
        Wrong::Settings(error) => format!("{error:#}"),
    }
}

#[test]
fn files_flags_and_the_revision_are_obeyed() {
    let text = injected(
        "",
        &["-f", "-", "--revision", "canary", "--set", "values.global.hub=h", "--set", "values.global.tag=t"],
    );
    assert!(text.contains("image: h/meltemi:t"), "{text}");
    assert!(text.contains("istiod-canary.istio-system.svc:15012"), "{text}");
    assert!(text.contains("istio.io/rev: canary"), "{text}");
    let mesh = injected("trustDomain: example.org", &["-f", "-", "--meshConfigFile", "@"]);
    assert!(mesh.contains("value: example.org"), "{mesh}");
    let operator = "kind: IstioOperator\nspec: {values: {global: {network: n7}}}";
    let operated = injected(operator, &["-f", "-", "--operatorFileName", "@"]);
    assert!(operated.contains("value: n7"), "{operated}");
}

#[test]
fn a_template_may_stand_for_the_whole_configuration() {
    let template = "spec:\n  containers:\n  - {name: istio-proxy, image: mine}\n";
    let text = injected(template, &["-f", "-", "--injectConfigFile", "@"]);
    assert!(text.contains("image: mine"), "{text}");
    let config = "policy: enabled\ntemplates:\n  sidecar: |\n    metadata: {labels: {mine: 'yes'}}\n";
    let text = injected(config, &["-f", "-", "--injectConfigFile", "@"]);
    assert!(text.contains("mine: yes") || text.contains("mine: \"yes\"") || text.contains("mine: 'yes'"), "{text}");
}

#[test]
fn wrong_files_and_flags_are_named() {
    for (content, line, expected) in [
        ("trustDomian: x", &["--meshConfigFile", "@"][..], "trustDomian"),
        ("[1]", &["--valuesFile", "@"], "could not parse configuration values"),
        ("kind: Pod", &["--operatorFileName", "@"], "kind: \"Pod\" is not IstioOperator"),
        ("policy: enabled\ntemplates: {sidecar: '{{ if }}'}", &["--injectConfigFile", "@"], "template \"sidecar\""),
        ("policy: never\ntemplates: {sidecar: ''}", &["--injectConfigFile", "@"], "never"),
        ("", &["--set", "nonsense"], "not of the form path=value"),
    ] {
        let line: Vec<&str> = ["-f", "-"].into_iter().chain(line.iter().copied()).collect();
        let error = refused(content, &line);
        assert!(error.contains(expected), "{line:?}: {error}");
    }
}

#[test]
fn wrong_usage_is_refused() {
    for line in [&["kube-inject"][..], &["kube-inject", "-f", "a", "--case", "b"], &["kube-inject", "-f"]] {
        assert!(Line::try_parse_from(line).is_err(), "{line:?}");
    }
}

#[test]
fn a_wrong_document_ends_with_65_and_a_missing_file_with_an_error() {
    let (_folder, arguments) = parsed("pod.yaml", "kind: [", &["-f", "@"]);
    assert_eq!(format!("{:?}", run(&arguments).unwrap()), format!("{:?}", ExitCode::from(DATA_ERROR)));
    let (folder, mut arguments) = parsed("pod.yaml", POD, &["-f", "@"]);
    arguments.filename = Some(folder.path().join("absent.yaml"));
    assert!(run(&arguments).unwrap_err().to_string().contains("absent.yaml"));
}

/// Warnings and errors, in words.
fn judged(content: &str, line: &[&str]) -> (Vec<String>, Vec<String>) {
    let (folder, arguments) = parsed("file", content, line);
    let (warnings, errors) = settings::judge(&arguments).unwrap();
    let file = folder.path().join("file").display().to_string();
    let words = |notice: &dyn ToString| notice.to_string().replace(&file, "@");
    (warnings.iter().map(|it| words(it)).collect(), errors.iter().map(|it| words(it)).collect())
}

#[test]
fn fields_that_nobody_reads_are_told_with_what_was_meant() {
    let unknown = "is no field of an IstioOperator, and has no effect";
    let set = format!("--set: spec.values.global.proxy.loglevel: {unknown}; did you mean `logLevel`?");
    let misspelt = ["-f", "-", "--set", "values.global.proxy.loglevel=debug"];
    assert_eq!(judged("", &misspelt), (vec![set.clone()], vec![]));
    assert_eq!(judged("", &[&misspelt[..], &["--strict"]].concat()), (vec![], vec![set]));
    let values = "global: {hub: h, netwrok: n}\nsidecarInjectorWebhook: {rewriteAppHTTPProbe: 3}\n";
    assert_eq!(
        judged(values, &["-f", "-", "--valuesFile", "@"]),
        (
            vec![format!("@: global.netwrok: {unknown}; did you mean `network`?")],
            vec!["@: sidecarInjectorWebhook.rewriteAppHTTPProbe: is a number, not a boolean".to_owned()]
        )
    );
    let operator = "kind: IstioOperator\nspec: {values: {global: {netwrok: n}}}";
    let told = format!("@: spec.values.global.netwrok: {unknown}; did you mean `network`?");
    assert_eq!(judged(operator, &["-f", "-", "--operatorFileName", "@"]), (vec![told], vec![]));
}

/// As `kubectl get configmap istio-sidecar-injector -o jsonpath='{.data.values}'` has them.
#[test]
fn values_of_an_installation_are_taken_without_a_word() {
    let installed = values::defaults().to_string();
    assert_eq!(judged(&installed, &["-f", "-", "--valuesFile", "@"]), (vec![], vec![]));
}

#[test]
fn settings_that_strictness_refuses_end_with_65() {
    let (_folder, arguments) =
        parsed("pod.yaml", POD, &["-f", "@", "--strict", "--set", "values.global.proxy.loglevel=debug"]);
    assert_eq!(format!("{:?}", run(&arguments).unwrap()), format!("{:?}", ExitCode::from(DATA_ERROR)));
}

#[test]
fn output_goes_to_a_file() {
    let (folder, mut arguments) = parsed("pod.yaml", POD, &["-f", "@"]);
    let output = folder.path().join("out.yaml");
    arguments.output = Some(output.clone());
    assert_eq!(format!("{:?}", run(&arguments).unwrap()), format!("{:?}", ExitCode::SUCCESS));
    assert!(std::fs::read_to_string(output).unwrap().contains("istio-proxy"));
}

#[test]
fn a_case_passes_or_fails() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
    write("case.yaml", "name: a\ninput: in.yaml\nexpected: out.yaml\nskip_webhook: true\n");
    write("in.yaml", service);
    write("out.yaml", service);
    let folders = [folder.path().to_owned()];
    assert_eq!(format!("{:?}", judge(&folders).unwrap()), format!("{:?}", ExitCode::SUCCESS));
    write("out.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: b}\n");
    assert_eq!(format!("{:?}", judge(&folders).unwrap()), format!("{:?}", ExitCode::FAILURE));
    write("case.yaml", "name: a\nunheard: of\n");
    assert!(judge(&folders).unwrap_err().to_string().contains("unheard"));
}
