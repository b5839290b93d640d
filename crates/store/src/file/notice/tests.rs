use std::fs;
use std::os::unix::fs::symlink;

use notify::event::{CreateKind, EventKind, Flag};

use super::*;

fn event(paths: &[PathBuf]) -> notify::Result<notify::Event> {
    let created = notify::Event::new(EventKind::Create(CreateKind::Any));
    Ok(paths.iter().fold(created, |event, path| event.add_path(path.clone())))
}

#[test]
fn single_files_are_looked_at_where_only_documents_were_touched() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("sub/.git")).unwrap();
    for name in ["a.yaml", "sub/b.json", ".a.yaml.part", "notes.txt", "sub/.git/c.yaml"] {
        fs::write(at(name), "").unwrap();
    }
    symlink(at("a.yaml"), at("link.yaml")).unwrap();
    let files = |names: &[&str]| Look::Files(names.iter().map(|name| at(name)).collect());
    for (names, expected) in [
        (&["a.yaml"][..], files(&["a.yaml"])),
        (
            &["a.yaml", ".a.yaml.part", "sub/b.json", "notes.txt", "gone.yaml", ".gone.swp"],
            files(&["a.yaml", "gone.yaml", "sub/b.json"]),
        ),
        (&[], files(&[])),
        (&["a.yaml", "sub"], Look::Everywhere),
        (&["link.yaml"], Look::Everywhere),
        (&["..data"], Look::Everywhere),
        (&["..data_tmp"], Look::Everywhere),
        (&["sub/.git/c.yaml"], Look::Everywhere),
        // It may have been a folder.
        (&["gone"], Look::Everywhere),
        (&["../elsewhere.yaml"], Look::Everywhere),
    ] {
        let notices = Notices::default();
        if !names.is_empty() {
            notices.add(event(&names.iter().map(|name| at(name)).collect::<Vec<_>>()));
        }
        assert_eq!(notices.take(root), expected, "{names:?}");
        assert_eq!(notices.take(root), files(&[]), "{names:?}: taken once");
    }
}

#[test]
fn all_is_looked_at_where_events_may_be_missing_or_are_many() {
    let dir = tempfile::tempdir().unwrap();
    let many: Vec<PathBuf> = (0..=MAX_PATHS).map(|i| dir.path().join(format!("{i}.yaml"))).collect();
    for event in [
        event(&[]),
        event(&many),
        Err(notify::Error::generic("lost")),
        event(&[dir.path().join("a.yaml")]).map(|event| event.set_flag(Flag::Rescan)),
    ] {
        let notices = Notices::default();
        notices.add(event);
        assert_eq!(notices.take(dir.path()), Look::Everywhere);
    }
}
