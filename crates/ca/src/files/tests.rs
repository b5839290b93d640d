use super::*;
use crate::certificate::CaCertificate;
use crate::testing::options;
use crate::{Authority, AuthorityOptions};
use std::process::Command;

#[test]
fn a_file_without_end_is_not_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    for name in [SIGNING_CERTIFICATE, KEY, ROOTS, CHAIN] {
        fs::write(dir.path().join(name), vec![b'x'; 2 << 20]).unwrap();
    }
    let error = Plugged::new(dir.path()).read().err().unwrap().to_string();
    assert!(error.contains("more than 1048576 bytes"), "{error}");
}

#[test]
fn a_folder_that_was_left_half_written_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Kept::new(dir.path());
    fs::write(dir.path().join(".root-cert.pem.new"), "left behind").unwrap();
    kept.found("roots", "key").unwrap();
    let (roots, key) = kept.read().unwrap().unwrap();
    assert_eq!((&*roots, &**key), ("roots", "key"));
    kept.write_next("next").unwrap();
    assert_eq!(**kept.next().unwrap().unwrap().0, *"next");
    kept.promote().unwrap();
    assert_eq!(*kept.read().unwrap().unwrap().1, "next");
    assert!(!kept.has_next());
}

/// Runs openssl in a folder; false where there is none.
fn openssl(dir: &Path, arguments: &str) -> bool {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output();
    match output {
        Ok(output) => {
            assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
            true
        }
        Err(_) => {
            println!("skipped: there is no openssl");
            false
        }
    }
}

#[test]
fn authorities_made_by_openssl_are_taken_with_keys_of_every_form() {
    let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
                      subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n";
    for key in [
        "genrsa -traditional -out ca-key.pem 2048",
        "ecparam -name secp384r1 -genkey -noout -out ca-key.pem",
        "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out ca-key.pem",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let run = |arguments: &str| openssl(dir.path(), arguments);
        fs::write(dir.path().join("ca.cnf"), extensions).unwrap();
        let subject = "-subj /C=GR/O=Mesh/CN=";
        if !run("ecparam -name prime256v1 -genkey -noout -out root.key") {
            return;
        }
        run(&format!(
            "req -x509 -new -key root.key -days 30 -addext keyUsage=keyCertSign,cRLSign -out root-cert.pem {subject}root"
        ));
        run(key);
        run(&format!("req -new -key ca-key.pem -out ca.csr {subject}intermediate"));
        run(
            "x509 -req -in ca.csr -CA root-cert.pem -CAkey root.key -CAcreateserial -days 20 -extfile ca.cnf -out ca-cert.pem",
        );
        fs::copy(dir.path().join(SIGNING_CERTIFICATE), dir.path().join(CHAIN)).unwrap();
        run("ecparam -name prime256v1 -genkey -noout -out leaf.key");
        run(&format!("req -new -key leaf.key -out leaf.csr {subject}whoever"));
        let authority = Authority::plugged(dir.path(), AuthorityOptions { ..options() }).unwrap();
        let csr = fs::read_to_string(dir.path().join("leaf.csr")).unwrap();
        let id = "spiffe://cluster.local/ns/shop/sa/catalog".parse().unwrap();
        let issued = authority.sign(&csr, &id, None).unwrap();
        fs::write(dir.path().join("leaf.pem"), &issued.chain[0]).unwrap();
        // OpenSSL's own verifier, strict about what a certificate must have.
        run("verify -x509_strict -purpose sslserver -CAfile root-cert.pem -untrusted ca-cert.pem leaf.pem");
        assert_eq!(CaCertificate::all("roots", &issued.root).unwrap().len(), 1);
    }
}
