use serde_json::{Value, json};

use super::*;
use crate::conflist::{Mode, PluginSettings, plugin};

/// A node's folders, and a program to install.
pub(crate) struct Node {
    pub folder: tempfile::TempDir,
    pub settings: Settings,
}

impl Node {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (configurations, programs) = (inside("net.d"), inside("bin"));
        let program = folder.path().join("meltemi");
        fs::write(&program, "a program").unwrap();
        let wanted = Wanted { mode: Mode::Chained, file: None, plugin: plugin(&PluginSettings::default()) };
        Node { settings: Settings { configurations, programs, program, wanted, group_read: false }, folder }
    }

    pub fn write(&self, name: &str, value: &Value) -> PathBuf {
        let path = self.settings.configurations.join(name);
        fs::write(&path, value.to_string()).unwrap();
        path
    }

    fn read(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.settings.configurations.join(name)).unwrap()).unwrap()
    }

    fn types(&self, name: &str) -> Vec<String> {
        let list = self.read(name);
        list["plugins"].as_array().unwrap().iter().map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

pub(crate) fn list() -> Value {
    json!({"name": "k8s", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]})
}

#[test]
fn the_program_and_the_configuration_are_put_in_place_once() {
    let node = Node::new();
    let path = node.write("10-bridge.conflist", &list());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(node.settings.programs.join("istio-cni.tmp.1"), "half").unwrap();
    assert_eq!(node.settings.install().unwrap(), State::Ready { file: path.clone(), changed: true });
    assert_eq!(node.types("10-bridge.conflist"), ["bridge", "istio-cni"]);
    assert_eq!(Node::names(&node.settings.programs), ["istio-cni"]);
    let program = node.settings.plugin_program();
    assert_eq!(fs::read(&program).unwrap(), b"a program");
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(node.settings.install().unwrap(), State::Ready { file: path, changed: false });
    fs::write(&node.settings.program, "a newer one").unwrap();
    assert!(matches!(node.settings.install().unwrap(), State::Ready { changed: true, .. }));
    assert_eq!(fs::read(&program).unwrap(), b"a newer one");
}

#[test]
fn a_single_configuration_makes_way_for_the_list() {
    let node = Node::new();
    node.write("10-bridge.conf", &json!({"cniVersion": "0.4.0", "name": "dbnet", "type": "bridge"}));
    node.settings.install().unwrap();
    assert_eq!(Node::names(&node.settings.configurations), ["10-bridge.conflist"]);
    assert_eq!(node.types("10-bridge.conflist"), ["bridge", "istio-cni"]);
}

#[test]
fn a_file_of_our_own_is_as_private_as_is_wanted() {
    for (group_read, expected) in [(false, 0o600), (true, 0o640)] {
        let mut node = Node::new();
        node.settings.group_read = group_read;
        node.settings.wanted.mode = Mode::Owned("02-istio-cni.conflist".into());
        node.write("10-bridge.conflist", &list());
        let State::Ready { file, .. } = node.settings.install().unwrap() else { panic!("not ready") };
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, expected);
        assert_eq!(node.read("10-bridge.conflist"), list());
    }
}

#[test]
fn all_of_it_goes_again() {
    let node = Node::new();
    node.write("10-bridge.conflist", &list());
    node.settings.install().unwrap();
    assert_eq!(node.settings.uninstall().unwrap().len(), 2);
    assert_eq!(node.read("10-bridge.conflist"), list());
    assert_eq!(Node::names(&node.settings.programs), Vec::<String>::new());
    assert_eq!(node.settings.uninstall().unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let mut node = Node::new();
    node.settings.configurations = node.folder.path().join("nowhere");
    let error = node.settings.install().unwrap_err().to_string();
    assert!(error.contains("nowhere: No such file"), "{error}");
}

#[tokio::test]
async fn what_others_change_is_mended() {
    let node = Node::new();
    let (ready, mut states) = watch::channel(false);
    let settings = node.settings.clone();
    let keeping = tokio::spawn(async move { settings.keep(&ready, |_| ()).await });
    // Nothing to chain into yet, then there is, then somebody writes it anew.
    node.write("10-bridge.conflist", &list());
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, states.wait_for(|ready| *ready)).await.unwrap().unwrap();
    let newer = json!({"name": "k8s", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}, {"type": "portmap"}]});
    node.write("10-bridge.conflist", &newer);
    let mended = async {
        while node.types("10-bridge.conflist") != ["bridge", "portmap", "istio-cni"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, mended).await.unwrap();
    keeping.abort();
}

#[test]
fn a_fight_is_told_of_once() {
    let mut fight = Fight::default();
    let changed = || Ok(State::Ready { file: PathBuf::new(), changed: true });
    let told = (0..20).filter(|_| fight.is_one(&changed())).count();
    assert_eq!(told, 1);
    assert!(!fight.is_one(&Ok(State::Waiting(String::new()))));
}
