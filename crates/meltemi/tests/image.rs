//! `scripts/image.sh`: the image and what it says of its parts, around a stand-in for the binary.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Makes an image; gives its file.
fn image(folder: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = folder.join("image.tar");
    let mut command = Command::new(root.join("scripts/image.sh"));
    command.arg(&file).env("BINARY", "/bin/true").env("IPTABLES", "0").env("SOURCE_DATE_EPOCH", "1700000000");
    let output = command.env("TARGET", "x86_64-unknown-linux-gnu").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    file
}

/// A file of a tar.
fn member(tar: &Path, name: &str) -> Vec<u8> {
    let output = Command::new("tar").arg("xOf").arg(tar).arg(name).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn json(tar: &Path, name: &str) -> Value {
    serde_json::from_slice(&member(tar, name)).unwrap()
}

#[test]
fn an_image_is_the_binary_its_roots_and_its_parts_list_and_the_same_bytes_twice() {
    if !is_there("python3") || !is_there("tar") || !Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        return println!("skipped: no python3, tar or ca-certificates");
    }
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (image(first.path()), image(second.path()));
    assert!(std::fs::read(&one).unwrap() == std::fs::read(two).unwrap(), "two runs differ");

    // As docker reads it, and as OCI does.
    let docker = json(&one, "manifest.json");
    assert_eq!(docker[0]["RepoTags"][0], format!("meltemi/meltemi:{}", env!("CARGO_PKG_VERSION")));
    let blob = |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
    let manifest = json(&one, &blob(&json(&one, "index.json")["manifests"][0]["digest"]));
    let layer = blob(&manifest["layers"][0]["digest"]);
    assert_eq!(docker[0]["Layers"][0], layer.as_str());
    let config = json(&one, &blob(&manifest["config"]["digest"]));
    assert_eq!(config["config"]["Entrypoint"][0], "/meltemi");
    assert_eq!(config["config"]["User"], "1337:1337");

    let unpacked = first.path().join("layer.tar.gz");
    std::fs::write(&unpacked, member(&one, &layer)).unwrap();
    assert!(member(&unpacked, "meltemi") == std::fs::read("/bin/true").unwrap());
    assert!(member(&unpacked, "etc/ssl/certs/ca-certificates.crt").starts_with(b"-----BEGIN"));
    let parts = json(&unpacked, "usr/share/sbom/meltemi.cdx.json");
    assert_eq!(parts["metadata"]["component"]["name"], "meltemi");
    let named = |name: &str| parts["components"].as_array().unwrap().iter().find(|part| part["name"] == name);
    assert!(named("rustls").is_some_and(|part| part["hashes"][0]["alg"] == "SHA-256" && part["licenses"].is_array()));
    assert!(named("proptest").is_none(), "tests' own crates are not in the binary");
}
