use super::*;
use crate::kind::Kind;

#[test]
fn the_nearest_name_is_one_slip_away() {
    let fields = ["route", "redirect", "rewrite", "timeout", "mirrors", "mirror", "match"];
    for (word, expected) in [
        ("rout", Some("route")),
        ("roots", None),
        ("timout", Some("timeout")),
        ("tiemout", Some("timeout")),
        ("Match", Some("match")),
        ("mirrorPercentages", None),
        ("zzz", None),
        ("", None),
    ] {
        assert_eq!(nearest(word, fields), expected, "{word}");
    }
    assert_eq!(nearest("port_level_mtls", ["portLevelMtls"]), Some("portLevelMtls"));
}

#[test]
fn a_problem_reads_as_one_line() {
    let problem = Problem {
        severity: Severity::Warning,
        source: Source { file: "a.yaml".into(), line: 3 },
        object: Some(Key::new(Kind::Namespace, "", "n")),
        path: "metadata.labels".into(),
        message: "odd".into(),
        suggestion: Some("even".into()),
    };
    assert_eq!(problem.to_string(), "a.yaml:3: warning: Namespace n: metadata.labels: odd; did you mean `even`?");
}
