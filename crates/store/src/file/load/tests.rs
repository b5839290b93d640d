use super::*;

fn rule(name: &str, host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec: {{host: {host}}}\n"
    )
}

#[test]
fn a_part_of_a_file_that_stays_is_not_parsed_again() {
    let mut state = FileState::default();
    let first = state.parse("f", &format!("{}---\n{}", rule("a", "same"), rule("b", "one")));
    let second = state.parse("f", &format!("{}---\n{}", rule("a", "same"), rule("b", "two")));
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(Arc::ptr_eq(&first[0], &second[0]));
    assert!(!Arc::ptr_eq(&first[1], &second[1]));
    // Moved by a line: its problems would be reported at the wrong place.
    let third = state.parse("f", &format!("\n{}---\n{}", rule("a", "same"), rule("b", "two")));
    assert!(third.iter().zip(&second).all(|(new, old)| !Arc::ptr_eq(new, old)));
    assert_eq!(state.parts.len(), 2);
}

#[test]
fn a_folder_without_changes_is_not_composed_again() {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("a.yaml"), rule("a", "one")).expect("write");
    let mut loader = Loader::new(dir.path(), FileStoreOptions::default());
    assert!(loader.reload());
    let set = loader.set().clone();
    assert!(!loader.reload());
    // The same objects from another text: in force is what was.
    std::fs::write(dir.path().join("a.yaml"), format!("# a comment\n{}", rule("a", "one"))).expect("write");
    assert!(loader.reload());
    assert!(Arc::ptr_eq(&set, loader.set()));
}

/// Looking at the files that changed comes to the same as looking at all, and reads no others.
#[test]
fn looking_at_changed_files_is_as_good_as_looking_everywhere() {
    let dir = tempfile::tempdir().expect("dir");
    let at = |name: &str| dir.path().join(name);
    let broken = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a}\nspec: {hots: x}\n";
    let both = format!("{}---\n{}", rule("a", "b.yaml"), rule("b", "b.yaml"));
    let steps: [(&str, Option<&str>); 9] = [
        ("b.yaml", Some(&both)),
        ("a.yaml", Some(&rule("a", "a.yaml"))),
        ("a.yaml", Some(broken)),
        ("c.yaml", Some(&rule("b", "c.yaml"))),
        ("b.yaml", Some(&rule("c", "b.yaml"))),
        ("a.yaml", None),
        ("never.yaml", None),
        ("b.yaml", Some(&both)),
        ("c.yaml", None),
    ];
    let options = || FileStoreOptions { max_files: 3, ..FileStoreOptions::default() };
    let mut looking = Loader::new(dir.path(), options());
    looking.reload();
    for (number, (name, text)) in steps.into_iter().enumerate() {
        match text {
            Some(text) => std::fs::write(at(name), text).expect("write"),
            None if at(name).exists() => std::fs::remove_file(at(name)).expect("remove"),
            None => {}
        }
        looking.look(&Look::Files([at(name)].into()));
        let mut everywhere = Loader::new(dir.path(), options());
        everywhere.reload();
        let shown = |loader: &Loader| -> (Vec<String>, Vec<String>) {
            let objects = loader.set().iter().map(|object| format!("{} {:?}", object.key(), object.spec)).collect();
            (objects, loader.problems().iter().map(ToString::to_string).collect())
        };
        let (mut found, mut expected) = (shown(&looking), shown(&everywhere));
        if number >= 2 && at("a.yaml").exists() {
            // What broke keeps its last good version, which a new reader cannot know.
            found.0.retain(|object| !object.contains("/a"));
            expected.0.retain(|object| !object.contains("/a"));
            found.1.retain(|problem| !problem.contains("already defined"));
            expected.1.retain(|problem| !problem.contains("already defined"));
        }
        assert_eq!(found, expected, "step {number}");
    }
    std::fs::write(at("x.yaml"), rule("x", "x")).expect("write");
    std::fs::write(at("y.yaml"), rule("y", "y")).expect("write");
    std::fs::write(at("z.yaml"), rule("z", "z")).expect("write");
    looking.look(&Look::Files([at("x.yaml"), at("y.yaml"), at("z.yaml")].into()));
    assert!(looking.problems().iter().any(|problem| problem.message.contains("more than 3 files")));
}
