//! `scripts/image.sh`: the image and what it says of its parts, around a stand-in for the binary.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Makes an image, with iptables (`1`) or without (`0`); gives its file.
fn image(folder: &Path, iptables: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = folder.join("image.tar");
    let mut command = Command::new(root.join("scripts/image.sh"));
    command.arg(&file).env("BINARY", "/bin/true").env("IPTABLES", iptables).env("SOURCE_DATE_EPOCH", "1700000000");
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
    let (one, two) = (image(first.path(), "0"), image(second.path(), "0"));
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
    // What no package has stands by itself.
    assert!(named("/etc/ssl/certs/ca-certificates.crt").is_some_and(|part| part["type"] == "file"));
}

/// Unpacks the only layer of an image; gives the parts list in it.
fn unpack(image: &Path, into: &Path) -> Value {
    let manifest = json(image, "manifest.json");
    let layer = into.with_extension("tar.gz");
    std::fs::write(&layer, member(image, manifest[0]["Layers"][0].as_str().unwrap())).unwrap();
    std::fs::create_dir(into).unwrap();
    let unpacked = Command::new("tar").arg("xzf").arg(&layer).arg("-C").arg(into).status().unwrap();
    assert!(unpacked.success());
    json(&layer, "usr/share/sbom/meltemi.cdx.json")
}

/// A program of the image, with nothing but the image, in a network namespace of its own.
fn within(root: &Path, arguments: &[&str], input: &str) -> std::process::Output {
    let mut command = Command::new("unshare");
    command.args(["--net", "chroot"]).arg(root).args(arguments);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LIBDIR", "/usr/lib/xtables");
    let pipe = std::process::Stdio::piped;
    let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The rules that an init container would make of these flags, in a namespace without IPv6.
fn rules(flags: &str) -> String {
    let mut command = Command::new("unshare");
    command.args(["--net", env!("CARGO_BIN_EXE_meltemi"), "iptables"]).args(flags.split(' ')).arg("--dry-run");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{flags}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_image_without_a_shell_captures_by_iptables_and_by_nft() {
    if !nix::unistd::geteuid().is_root() || !["python3", "unshare", "iptables", "nft"].iter().all(|it| is_there(it)) {
        return println!("skipped: needs root, python3, unshare, iptables and nft");
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let parts = unpack(&image(folder.path(), "1"), &root);
    assert!(!root.join("bin/sh").exists() && !root.join("usr/bin").exists());

    let flags = "-p 15001 -z 15006 -u 1337 -i * -x 10.9.0.0/16 -b * -d 15090,15021,15020 --drop-invalid";
    for flags in [flags.to_owned(), format!("{flags} -m TPROXY")] {
        for program in ["iptables-restore", "iptables-nft-restore"] {
            let output = within(&root, &[program, "--noflush"], &rules(&flags));
            assert!(output.status.success(), "{program} {flags}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let both = rules(&format!("{flags} --native-nftables --dual-stack"));
        let output = within(&root, &["nft", "-f", "-"], &both);
        assert!(output.status.success(), "nft {flags}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let output = within(&root, &["iptables-save"], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Each file of the image is one of a package that is named, or is named itself.
    let components = parts["components"].as_array().unwrap();
    let told: Vec<&str> = components
        .iter()
        .flat_map(|part| part["components"].as_array().into_iter().flatten().chain([part]))
        .filter(|part| part["type"] == "file")
        .map(|part| part["name"].as_str().unwrap())
        .collect();
    for file in ["/usr/sbin/xtables-nft-multi", "/usr/sbin/nft", "/usr/lib/xtables/libxt_owner.so", "/meltemi"] {
        assert!(told.contains(&file), "{file}: {told:?}");
        assert!(root.join(&file[1..]).exists(), "{file}");
    }
    assert!(
        components
            .iter()
            .any(|part| part["purl"].as_str().is_some_and(|it| it.starts_with("pkg:deb/debian/iptables@")))
    );
}
