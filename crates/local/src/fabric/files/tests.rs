use meltemi_config::Source;

use super::*;

fn problem(file: &Path, severity: Severity, message: &str) -> Problem {
    Problem {
        severity,
        source: Source { file: file.display().to_string().into(), line: 3 },
        object: None,
        path: String::new(),
        message: message.to_owned(),
        suggestion: None,
    }
}

#[test]
fn an_edit_is_said_to_be_in_force_once_and_a_broken_one_when_it_is_right_again() {
    let dir = tempfile::tempdir().expect("folder");
    let (a, b) = (dir.path().join("a.yaml"), dir.path().join("b.yaml"));
    std::fs::write(&a, "").expect("write");
    let name = |path: &Path| -> Str { path.display().to_string().into() };
    let mut files = Files::default();
    let mut news = |problems: &[Problem], touched: &[&Path]| {
        files.said.clear();
        files.news(problems, touched.iter().map(|path| name(path)).collect(), dir.path())
    };
    let broken = problem(&a, Severity::Error, "odd");
    let odd = problem(&a, Severity::Warning, "even");
    let empty: [String; 0] = [];
    assert_eq!(news(&[], &[]), empty);
    assert_eq!(news(&[], &[&a]), ["a.yaml: in force"]);
    assert_eq!(news(std::slice::from_ref(&broken), &[]), [broken.to_string()]);
    // Another document of the same file took effect; the file as a whole is not in force.
    assert_eq!(news(std::slice::from_ref(&broken), &[&a]), empty);
    // Put right without a change of what was in force.
    assert_eq!(news(&[], &[]), ["a.yaml: in force"]);
    assert_eq!(news(std::slice::from_ref(&odd), &[&a]), [odd.to_string(), "a.yaml: in force".to_owned()]);
    assert_eq!(news(std::slice::from_ref(&odd), &[&b]), ["b.yaml: gone, and what it held with it"]);
}

#[test]
fn what_comes_in_two_parts_is_said_once() {
    let dir = tempfile::tempdir().expect("folder");
    let a = dir.path().join("a.yaml");
    std::fs::write(&a, "").expect("write");
    let touched = || BTreeSet::from([Str::from(a.display().to_string())]);
    let mut files = Files::default();
    files.news(&[problem(&a, Severity::Error, "odd")], BTreeSet::new(), dir.path());
    assert_eq!(files.news(&[], BTreeSet::new(), dir.path()), ["a.yaml: in force"]);
    assert!(files.news(&[], touched(), dir.path()).is_empty());
}
