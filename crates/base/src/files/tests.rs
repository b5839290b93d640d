use super::*;

#[test]
fn files_are_taken_when_they_change_and_tried_until_they_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| folder.path().join(name));
    let mut files = FollowedFiles::default();
    let mut tries = 0;
    let mut look = |answer: Result<(), &str>| {
        files.look(&paths, || {
            tries += 1;
            answer.map_err(str::to_owned)
        })
    };
    assert_eq!(look(Err("missing")), Look::Refused("missing".to_owned()));
    assert_eq!(look(Err("missing")), Look::Same, "told once");
    assert_eq!(look(Err("torn")), Look::Refused("torn".to_owned()));
    assert_eq!(look(Ok(())), Look::Taken);
    assert_eq!(look(Err("never asked")), Look::Same);
    fs::write(&paths[1], "new").unwrap();
    assert_eq!(look(Ok(())), Look::Taken);
    // As Kubernetes does it: another file under the name.
    fs::write(folder.path().join("next"), "old").unwrap();
    fs::rename(folder.path().join("next"), &paths[1]).unwrap();
    assert_eq!(look(Ok(())), Look::Taken);
    assert_eq!(tries, 6);
}

#[test]
fn files_that_are_in_force_are_taken_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "one").unwrap();
    let mut files = FollowedFiles::taken([&path]);
    assert_eq!(files.look([&path], || Err("not asked")), Look::Same);
    fs::remove_file(&path).unwrap();
    assert_eq!(files.look([&path], || Err("gone")), Look::Refused("gone".to_owned()));
}
