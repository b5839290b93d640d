//! `meltemi up` from outside: what it says where it cannot run, that its first answer is good, that edits and crashes are taken,
//! and that it leaves nothing behind.

use crate::mesh::{Mesh, Workload, can_run, processes_of, service, settles};
use crate::support::{get, meltemi, signal_process};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/shop");
/// The end of a mesh, with every process and file of it.
const END: Duration = Duration::from_secs(10);

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
    }
}

/// Everything that the front end of the sample called was answered.
fn whole(answer: &crate::support::Answer) -> Result<(), String> {
    let report: Value = serde_json::from_slice(&answer.body).map_err(|e| format!("{e}: {}", answer.text()))?;
    let calls = report["calls"].as_array().ok_or("no calls")?;
    let good = |call: &Value| {
        call["error"].is_null() && !call["body"].is_null() && (call["status"].is_null() || call["status"] == 200)
    };
    if answer.status == 200 && calls.len() == 3 && calls.iter().all(good) {
        return Ok(());
    }
    Err(format!("{} {report:#}", answer.status))
}

/// Keeps every processor busy until dropped.
struct Load(Arc<AtomicBool>);

impl Load {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Nothing of the mesh whose temporary folder this is runs, and nothing is in the folder.
fn nothing_left(tmp: &Path) -> Result<(), String> {
    let processes: Vec<_> = processes_of(tmp).into_iter().map(|(pid, line, _)| format!("{pid} {line}")).collect();
    let files: Vec<_> = std::fs::read_dir(tmp).expect("folder").flatten().map(|entry| entry.path()).collect();
    if processes.is_empty() && files.is_empty() { Ok(()) } else { Err(format!("{processes:#?} {files:#?}")) }
}

#[test]
fn the_first_request_after_ready_succeeds_on_a_busy_machine_and_nothing_outlives_the_mesh() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let starts = std::env::var("MELTEMI_STARTS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    for start in 0..starts {
        let dir = tempfile::tempdir().expect("folder");
        let load = Load::start();
        let began = Instant::now();
        let mut mesh = Mesh::over(&mut meltemi(), Path::new(SAMPLES), dir.path());
        let answer = get(mesh.ingress, "shop.example", "/").expect("an answer");
        println!("start {start}: ready after {:.1} s", began.elapsed().as_secs_f64());
        if let Err(reason) = whole(&answer) {
            panic!("start {start}: {reason}\n{}", mesh.process.output());
        }
        drop(load);
        let tmp = dir.path().join("tmp");
        assert!(nothing_left(&tmp).is_err(), "the test must see what runs");
        let signal = ["INT", "KILL", "TERM"][start % 3];
        mesh.process.signal(signal);
        let status = mesh.process.wait(END);
        if signal != "KILL" {
            assert_eq!(status.code(), Some(0), "{}", mesh.process.output());
            assert!(mesh.process.output().contains("stopping"), "{}", mesh.process.output());
            assert_eq!(nothing_left(&tmp), Ok(()), "after SIG{signal}");
        }
        if let Err(left) = settles(|| nothing_left(&tmp)) {
            panic!("after SIG{signal}: {left}");
        }
    }
}

#[test]
fn edits_take_effect_broken_ones_do_not_and_what_crashes_is_started_again() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let manifests = dir.path().join("manifests");
    copy(Path::new(SAMPLES), &manifests);
    let mesh = Mesh::over(&mut meltemi(), &manifests, dir.path());
    // A route written while the mesh runs takes effect, and so does its change.
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: probe, namespace: shop}\nspec:\n  hosts: [probe.example]\n  gateways: [shop]\n  http:\n  - directResponse: {status: 218, body: {string: written}}\n";
    let status = |wanted: u16| {
        settles(|| match mesh.get("probe.example", "/") {
            Ok(answer) if answer.status == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        })
    };
    mesh.write("probe.yaml", route);
    status(218).expect("a new route");
    // A broken one is told with its place, and the last good one goes on.
    mesh.write("probe.yaml", &route.replace("directResponse", "directRespons").replace("218", "219"));
    let told = settles(|| {
        let output = mesh.process.output();
        let parts = ["probe.yaml:8", "directRespons", "did you mean `directResponse`"];
        if parts.iter().all(|part| output.contains(part)) { Ok(()) } else { Err(output) }
    });
    told.expect("the mistake is told");
    status(218).expect("the last good configuration");
    mesh.write("probe.yaml", &route.replace("218", "220"));
    status(220).expect("put right");
    mesh.told("probe.yaml: in force").expect("a file that is right again");
    // A workload whose manifest is wrong keeps running as it is.
    let services = std::fs::read_to_string(manifests.join("services.yaml")).expect("text");
    mesh.write("services.yaml", &services.replacen("image: meltemi:latest", "image: nobody/knows:1", 1));
    settles(|| {
        let output = mesh.process.output();
        let told = output.contains("image `nobody/knows:1` is unknown on this machine");
        let line = 1 + services.lines().position(|line| line.contains("image: meltemi:latest")).expect("an image");
        let placed = output.contains(&format!("services.yaml:{line}: error: Deployment "));
        if told && placed && output.contains("the replicas stay as they are") { Ok(()) } else { Err(output) }
    })
    .expect("an unknown image is told");
    assert!(!mesh.process.output().contains("services.yaml: in force"), "{}", mesh.process.output());
    whole(&get(mesh.ingress, "shop.example", "/").expect("an answer")).expect("served as before");
    mesh.write("services.yaml", &services);
    mesh.told("services.yaml: in force").expect("a workload that is right again");
    crashes_are_mended(&mesh);
    // A new replica's endpoint is used, and one that goes is not missed.
    let more = services.replacen("replicas: 1", "replicas: 2", 1);
    mesh.write("services.yaml", &more);
    settles(|| if mesh.pods("frontend-v1").len() == 2 { Ok(()) } else { Err(mesh.process.output()) })
        .expect("a replica");
    mesh.write("services.yaml", &services);
    settles(|| {
        whole(&get(mesh.ingress, "shop.example", "/")?)?;
        if mesh.pods("frontend-v1").len() == 1 { Ok(()) } else { Err(mesh.process.output()) }
    })
    .expect("one replica again");
}

#[test]
fn the_trust_domain_is_the_meshs_and_the_control_planes_pages_are_for_this_machine() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let settings = dir.path().join("mesh.yaml");
    std::fs::write(&settings, "trustDomain: foo.com\n").expect("write");
    let mut command = meltemi();
    command.arg("--mesh-config").arg(&settings);
    let mesh = Mesh::over(&mut command, Path::new(SAMPLES), dir.path());
    whole(&get(mesh.ingress, "shop.example", "/").expect("an answer")).expect("served under another trust domain");
    let output = mesh.process.output();
    let page = output.lines().find_map(|line| line.trim().strip_prefix("control plane: http://"));
    let address = page.and_then(|page| page.strip_suffix("/debug/syncz")?.parse().ok()).expect("an address");
    let json = |path: &str| -> Value {
        let answer = get(address, "istiod", path).expect("an answer");
        serde_json::from_slice(&answer.body).unwrap_or_else(|e| panic!("{path}: {e}: {}", answer.text()))
    };
    assert_eq!(json("/debug/mesh")["trustDomain"], "foo.com");
    let proxies = json("/debug/adsz");
    let identities = proxies["clients"].as_array().expect("proxies").iter().map(|client| client["identity"].clone());
    let identities: Vec<_> = identities.collect();
    let foreign = |identity: &&Value| !identity.as_str().is_some_and(|id| id.starts_with("spiffe://foo.com/ns/"));
    assert!(identities.len() > 1 && !identities.iter().any(|identity| foreign(&identity)), "{identities:?}");
    // A workload is not a client of this machine.
    let refused = mesh.pod("frontend-v1").curl("http://istiod.istio-system.svc:8080/debug/syncz");
    assert_eq!(refused.expect("an answer").status, 401);
}

#[test]
fn a_crash_loop_is_not_ready_and_the_mesh_is_once_it_ends() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let manifests = dir.path().join("manifests");
    std::fs::create_dir_all(&manifests).expect("folder");
    let workload = |script: &str| {
        let command = format!("[sh, -c, '{script}']");
        Workload { name: "web", labels: "app: web", command: &command, args: "[]", ports: &[], ..Workload::default() }
            .yaml()
    };
    std::fs::write(manifests.join("web.yaml"), workload("sleep 0.1; exit 1")).expect("write");
    let mut command = up(&manifests, &["--port", "0", "--https-port", "0"]);
    let process = crate::support::Process::start("up", command.env("TMPDIR", dir.path()), dir.path());
    let said = |part: &str| settles(|| if process.output().contains(part) { Ok(()) } else { Err(process.output()) });
    said("(run 4)").expect("a crash loop");
    assert!(!process.output().contains("ready:"), "{}", process.output());
    std::fs::write(manifests.join("web.yaml"), workload("exec sleep 1000")).expect("write");
    said("web.yaml: in force").expect("the edit is told");
    said("ready: http://").expect("ready in the end");
}

/// Kills an application twice and a proxy once.
fn crashes_are_mended(mesh: &Mesh) {
    for (part, label, run, pause) in [
        (" echo ", "frontend", "run 1", "0.2 s"),
        (" echo ", "frontend", "run 2", "0.4 s"),
        (" proxy ", "istio-proxy", "run 1", "0.2 s"),
    ] {
        let mut killed = None;
        settles(|| {
            killed = mesh.process_ids("frontend-v1", part).first().copied();
            killed.map(drop).ok_or_else(|| mesh.process.output())
        })
        .expect("a process");
        signal_process(killed.expect("a process"), "KILL");
        settles(|| {
            let output = mesh.process.output();
            let line = format!("/{label}: ended by SIGKILL; starting it again in {pause} ({run})");
            if output.contains(&line) { Ok(()) } else { Err(format!("{line:?} is not in\n{output}")) }
        })
        .expect("the crash is told");
        settles(|| whole(&get(mesh.ingress, "shop.example", "/")?)).expect("serves again");
    }
}

/// What `meltemi up` says and the code it ends with, where it must not start.
fn refusal(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().expect("output");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(!text.contains("ready:"), "{text}");
    (status.code(), text)
}

fn up(manifests: &Path, arguments: &[&str]) -> Command {
    let mut command = meltemi();
    command.args(["up", "-f"]).arg(manifests).args(arguments);
    command
}

#[test]
fn what_is_wrong_in_a_manifest_is_said_before_anything_starts() {
    let tools = can_run();
    let dir = tempfile::tempdir().expect("folder");
    let check_bytes = |text: &[u8], parts: &[&str]| {
        std::fs::write(dir.path().join("m.yaml"), text).expect("write");
        let (code, said) = refusal(&mut up(dir.path(), &["--port", "0"]));
        assert_eq!(code, Some(65), "{said}");
        assert!(!said.starts_with("error: /"), "the place comes first: {said}");
        for part in parts {
            assert!(said.contains(part), "{part} in {said}");
        }
    };
    let check = |text: &str, parts: &[&str]| check_bytes(text.as_bytes(), parts);
    if let Err(reason) = tools {
        return println!("{reason}");
    }
    let field = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  http:\n  - rout: []\n";
    check(field, &["m.yaml:7", "rout", "route"]);
    check("apiVersion: v1\nkind: Service\nmetadata: {name: a\n", &["m.yaml:"]);
    let image = Workload { name: "web", labels: "app: web", ..Workload::default() }
        .yaml()
        .replace("image: meltemi", "image: 'team/web:1'");
    let unknown = "spec.template.spec.containers[0].image: image `team/web:1` is unknown on this machine: give the program that stands for it with `--image team/web=PATH`, or a `command`";
    check(&image, &["m.yaml:12: error: Deployment app/web", unknown]);
    check_bytes(b"# a\n# \xff\n", &["m.yaml:2: error: not UTF-8: a byte 0xff"]);
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    trustDomian: a\n";
    let mistake = "m.yaml:6: error: ConfigMap istio-system/istio: data.mesh.trustDomian: unknown field; did you mean `trustDomain`?";
    check(map, &[mistake]);
    check(
        &service("app", "web", "ports: [{port: 80}]"),
        &["nothing to run: no Deployment, StatefulSet, DaemonSet or Pod in"],
    );
    let (code, said) = refusal(&mut up(Path::new("/nonexistent/folder"), &[]));
    assert_eq!(
        (code, said.trim()),
        (Some(65), "error: /nonexistent/folder: no such folder or file; give the manifests with -f DIR")
    );
}

#[test]
fn a_taken_port_is_said_with_the_way_out() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = taken.local_addr().expect("address").port().to_string();
    let (code, said) = refusal(&mut up(Path::new(SAMPLES), &["--port", &port]));
    let expected = format!(
        "error: port {port} on 127.0.0.1 is taken by another program; choose another with --port PORT, or --port 0 for any that is free"
    );
    assert_eq!((code, said.trim()), (Some(1), expected.as_str()));
}

/// A shell in namespaces of its own, as a user there.
fn unshared(flags: &[&str], script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).args(flags).args(["sh", "-c", script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_meltemi")).args(["up", "-f", SAMPLES, "--port", "0"]);
    command
}

#[test]
fn a_missing_iptables_is_said_with_its_package() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    // A machine without the folder in which iptables is; `ip` is found by PATH.
    let dir = tempfile::tempdir().expect("folder");
    let ip = Command::new("sh").args(["-c", "PATH=$PATH:/usr/sbin:/sbin command -v ip"]).output().expect("sh");
    let (tools, empty) = (dir.path().join("tools"), dir.path().join("empty"));
    for folder in [&tools, &empty] {
        std::fs::create_dir_all(folder).expect("folder");
    }
    let ip = std::fs::canonicalize(String::from_utf8_lossy(&ip.stdout).trim()).expect("ip");
    std::fs::copy(ip, tools.join("ip")).expect("copy");
    let script = "mount --bind \"$EMPTY\" /usr/sbin && if [ ! -L /sbin ]; then mount --bind \"$EMPTY\" /sbin; fi && PATH=$TOOLS exec \"$@\"";
    let mut command = unshared(&["--mount"], script);
    let (code, said) = refusal(command.env("EMPTY", &empty).env("TOOLS", &tools));
    let expected =
        "error: iptables-restore is missing; install it, on Debian or Ubuntu with `apt-get install iptables`";
    assert_eq!((code, said.trim()), (Some(1), expected));
}

#[test]
fn forbidden_user_namespaces_are_said_with_the_ways_out() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    // A user without rights, on a system where nobody may make a user namespace.
    let script =
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"";
    let (code, said) = refusal(&mut unshared(&[], script));
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "error: this system lets an ordinary user make no user namespace (unshare: ",
        "sysctl -w user.max_user_namespaces=15000",
        "Or run `meltemi up` as root",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
}

/// Where something inside ends that must not, the whole ends, and says so.
#[test]
fn a_killed_fabric_ends_the_whole() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let text = Workload { name: "web", labels: "app: web", ..Workload::default() }.yaml();
    let mut mesh = Mesh::start(dir.path(), &[("web.yaml", &text)], &[]);
    let tmp = dir.path().join("tmp");
    let inside = processes_of(&tmp).into_iter().find(|(_, line, _)| line.contains("fabric-inside"));
    signal_process(inside.expect("the inside").0, "KILL");
    let status = mesh.process.wait(END);
    assert_eq!(status.code(), Some(1), "{}", mesh.process.output());
    assert!(mesh.process.output().contains("error: the fabric ended of itself"), "{}", mesh.process.output());
    settles(|| nothing_left(&tmp)).expect("nothing left");
}
