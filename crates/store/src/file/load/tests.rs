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
