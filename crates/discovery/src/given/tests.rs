use super::*;

/// A root of this name with its key, in PEM.
fn pair(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn write(folder: &Path, (chain, key): &(String, String), roots: &str) -> GivenFiles {
    let [chain_file, key_file, roots_file] = ["c.pem", "k.pem", "r.pem"].map(|name| folder.join(name));
    std::fs::write(&chain_file, chain).unwrap();
    std::fs::write(&key_file, key).unwrap();
    std::fs::write(&roots_file, roots).unwrap();
    GivenFiles { certificate: Some((chain_file, key_file)), roots: Some(roots_file), is_mounted: false }
}

fn subject(given: &Given) -> String {
    given.certificate().unwrap().current().unwrap().info().subject.clone()
}

#[test]
fn what_is_wrong_with_files_is_said_with_their_flag() {
    let (folder, one, two) = (tempfile::tempdir().unwrap(), pair("one"), pair("two"));
    let refused = |pair: &(String, String), roots: &str| {
        format!("{:#}", Given::read(write(folder.path(), pair, roots)).err().unwrap())
    };
    assert!(refused(&(one.0.clone(), two.1.clone()), &one.0).starts_with("--tlsCertFile /"));
    assert!(refused(&one, "nothing").starts_with("--caCertFile /"));
    let files = write(folder.path(), &one, &one.0);
    std::fs::remove_file(folder.path().join("k.pem")).unwrap();
    assert!(format!("{:#}", Given::read(files).err().unwrap()).contains("k.pem: No such file"));
    let none = Given::read(GivenFiles::default()).unwrap();
    assert!(none.certificate().is_none() && none.roots().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_can_be_used_is_in_force_and_stays_when_files_are_wrong() {
    let (folder, one, two) = (tempfile::tempdir().unwrap(), pair("one"), pair("two"));
    let given = Given::read(write(folder.path(), &one, &one.0)).unwrap();
    assert_eq!((subject(&given).as_str(), given.roots().as_str()), ("CN=one", one.0.as_str()));
    let mut changes = given.subscribe();
    let changing = async {
        write(folder.path(), &(two.0.clone(), one.1.clone()), "torn");
        tokio::time::sleep(3 * LOOK_EVERY).await;
        assert_eq!((subject(&given).as_str(), given.roots().as_str()), ("CN=one", one.0.as_str()));
        changes.mark_unchanged();
        write(folder.path(), &two, &two.0);
        changes.changed().await.unwrap();
        assert_eq!((subject(&given).as_str(), given.roots().as_str()), ("CN=two", two.0.as_str()));
    };
    tokio::select! {
        () = given.follow() => {}
        () = changing => {}
    }
}

#[test]
fn what_is_mounted_is_used_where_no_flag_names_anything_and_roots_are_beside_it() {
    let base = tempfile::tempdir().unwrap();
    let put = |path: &str| {
        let path = base.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        path
    };
    let found = || GivenFiles::default().or_mounted(base.path());
    let [chain, key] = MOUNTED.map(put);
    assert_eq!(found(), GivenFiles::default());
    for roots in [MOUNTED_ROOTS[1], MOUNTED_ROOTS[0]] {
        let roots = put(roots);
        let certificate = Some((chain.clone(), key.clone()));
        assert_eq!(found(), GivenFiles { certificate, roots: Some(roots), is_mounted: true });
    }
    let named = GivenFiles { roots: Some("/roots.pem".into()), ..GivenFiles::default() };
    assert_eq!(named.clone().or_mounted(base.path()), named);
}

#[test]
fn who_asks_discovery_is_told_of_the_roots_beside_a_given_certificate() {
    let (folder, one, two) = (tempfile::tempdir().unwrap(), pair("one"), pair("two"));
    let files = write(folder.path(), &one, &format!("{}{}", two.0, one.0));
    let roots = |given: &Given| {
        let authority: Arc<str> = two.0.as_str().into();
        [given.vouching(authority.clone()), given.vouching_to_proxies(authority)]
            .map(|roots| roots.matches("BEGIN CERTIFICATE").count())
    };
    let given = |files: GivenFiles| Given::read(files).unwrap();
    assert_eq!(roots(&given(files.clone())), [2, 2], "each once");
    assert_eq!(roots(&given(GivenFiles { is_mounted: true, ..files.clone() })), [2, 1]);
    assert_eq!(roots(&given(GivenFiles { certificate: None, ..files })), [1, 1], "roots of clients are no servers'");
}
