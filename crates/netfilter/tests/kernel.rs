//! Rules put into a real kernel, in network namespaces that the tests make: skipped without root, `ip`, or the program.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use meltemi_netfilter::{Backend, Capture, Dns, Installation, Interception, List, Program, ambient, within};
use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, Socket, Type};

const POD_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PEER_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const POD_V6: &str = "fd77::2";
const PATIENCE: Duration = Duration::from_secs(10);

/// Two namespaces joined by a link: a pod, and the one it talks with.
struct Pair {
    pod: String,
    peer: String,
}

fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

impl Pair {
    /// None, having said so, where this machine cannot.
    fn new(name: &str) -> Option<Pair> {
        if !nix::unistd::geteuid().is_root() || !has("ip") {
            println!("skipped: network namespaces need root and `ip`");
            return None;
        }
        let id = std::process::id();
        let pair = Pair { pod: format!("mt-{name}-{id}-pod"), peer: format!("mt-{name}-{id}-peer") };
        for namespace in [&pair.pod, &pair.peer] {
            run(&format!("ip netns add {namespace}"));
            run(&format!("ip -n {namespace} link set lo up"));
        }
        run(&format!("ip -n {} link add eth0 type veth peer name eth0 netns {}", pair.pod, pair.peer));
        for (namespace, last) in [(&pair.pod, 2), (&pair.peer, 1)] {
            run(&format!("ip -n {namespace} address add 10.77.0.{last}/24 dev eth0"));
            run(&format!("ip -n {namespace} address add fd77::{last}/64 dev eth0 nodad"));
            // An address of the link's own would come into being at a time of its own.
            run(&format!("ip -n {namespace} link set eth0 addrgenmode none"));
            run(&format!("ip -n {namespace} link set eth0 up"));
        }
        run(&format!("ip -n {} route add default via 10.77.0.1", pair.pod));
        run(&format!("ip -n {} -6 route add default via fd77::1", pair.pod));
        Some(pair)
    }

    fn path(namespace: &str) -> PathBuf {
        Path::new("/run/netns").join(namespace)
    }

    fn in_pod<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&Self::path(&self.pod), work).unwrap()
    }

    fn in_peer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&Self::path(&self.peer), work).unwrap()
    }

    /// All rules and routes of the pod, without counters.
    fn state(&self) -> String {
        let pod = &self.pod;
        let mut state = String::new();
        for program in ["iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"] {
            if has(program) {
                state.push_str(&run(&format!("ip netns exec {pod} {program}")));
            }
        }
        if has("nft") {
            state.push_str(&run(&format!("ip netns exec {pod} nft -s list ruleset inet")));
        }
        for what in ["rule", "-6 rule", "address show dev lo", "route show table all"] {
            state.push_str(&run(&format!("ip -n {pod} {what}")));
        }
        let unsteady = |line: &&str| !line.starts_with('#') && !line.contains("valid_lft");
        let mut lines: Vec<_> = state.lines().filter(unsteady).map(|line| line.split(" [").next().unwrap()).collect();
        // A program that lists a table makes it, with empty chains of the kernel's.
        lines.retain(|line| !line.starts_with(':') && !line.starts_with('*') && *line != "COMMIT");
        lines.join("\n")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for namespace in [&self.pod, &self.peer] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

/// Every way by which rules can be written here.
fn backends() -> Vec<(&'static str, Backend)> {
    let program = |flavour| Backend::Iptables(Program { flavour: Some(flavour), lock_file: None });
    let all = [("iptables-nft", program("nft")), ("iptables-legacy", program("legacy")), ("nft", Backend::Nftables)];
    all.into_iter()
        .filter(|(name, _)| {
            has(name) || {
                println!("skipped: no {name}");
                false
            }
        })
        .collect()
}

fn sidecar() -> Capture {
    Capture {
        inbound_ports: List::All,
        inbound_ports_exclude: vec![15090, 15021, 15020],
        outbound_ranges: List::All,
        outbound_ranges_exclude: vec!["10.99.0.0/16".parse().unwrap()],
        outbound_ports_exclude: vec![2525],
        exclude_interfaces: vec!["net1".into()],
        drop_invalid: true,
        dns: Dns::All,
        ..Capture::default()
    }
}

fn transparent() -> Capture {
    Capture { interception: Interception::Tproxy { mark: 1337 }, ..sidecar() }
}

#[test]
fn rules_are_the_same_when_applied_twice_and_gone_when_cleaned_up() {
    for (name, backend) in backends() {
        for (mode, capture) in [("redirect", sidecar()), ("tproxy", transparent())] {
            let Some(pair) = Pair::new("twice") else { return };
            let before = pair.state();
            let installation = Installation::new(capture, true, backend.clone());
            let missing = pair.in_pod(|| installation.missing().unwrap());
            assert!(missing.len() > 4, "{name} {mode}: {missing:?}");
            pair.in_pod(|| installation.apply().unwrap());
            let once = pair.state();
            assert_ne!(before, once);
            assert_eq!(pair.in_pod(|| installation.missing().unwrap()), Vec::<String>::new(), "{name} {mode}\n{once}");
            pair.in_pod(|| installation.apply().unwrap());
            assert_eq!(once, pair.state(), "{name} {mode}");
            if mode == "tproxy" {
                assert!(once.contains("fwmark 0x539 lookup 133"), "{once}");
                assert!(once.contains("local default dev lo table 133"), "{once}");
            }
            pair.in_pod(|| installation.cleanup().unwrap());
            assert_eq!(before, pair.state(), "{name} {mode}");
            pair.in_pod(|| installation.cleanup().unwrap());
            assert_eq!(before, pair.state(), "{name} {mode}, cleaned up twice");
        }
    }
}

#[test]
fn another_captures_rules_are_replaced_and_foreign_rules_stay() {
    for (name, backend) in backends() {
        let Some(pair) = Pair::new("drift") else { return };
        let pod = pair.pod.clone();
        if let Backend::Iptables(Program { flavour: Some(flavour), .. }) = &backend {
            run(&format!("ip netns exec {pod} iptables-{flavour} -t nat -A OUTPUT -d 192.0.2.1 -j ACCEPT"));
        } else {
            run(&format!("ip netns exec {pod} nft add table inet foreign"));
        }
        let fresh = {
            let installation = Installation::new(sidecar(), true, backend.clone());
            pair.in_pod(|| installation.apply().unwrap());
            pair.state()
        };
        let other = Installation::new(Capture { dns: Dns::Off, ..transparent() }, true, backend.clone());
        pair.in_pod(|| other.apply().unwrap());
        assert_eq!(pair.in_pod(|| other.missing().unwrap()), Vec::<String>::new(), "{name}");
        let installation = Installation::new(sidecar(), true, backend);
        assert!(!pair.in_pod(|| installation.missing().unwrap()).is_empty(), "{name}");
        pair.in_pod(|| installation.apply().unwrap());
        let routes = |line: &&str| !line.contains("133") && !line.contains("0x539 lookup");
        let rules = |state: &str| {
            let mut lines: Vec<_> = state.lines().filter(routes).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(rules(&pair.state()), rules(&fresh), "{name}");
        assert!(fresh.contains("192.0.2.1") || fresh.contains("foreign"), "{name}");
    }
}

/// Accepts one connection and says where it came from, where it was going, and what the socket's own address is.
struct Accepted {
    local: SocketAddr,
    peer: SocketAddr,
    original: Option<SocketAddr>,
}

fn listener(address: SocketAddr, transparent: bool) -> TcpListener {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    if address.is_ipv6() {
        socket.set_only_v6(true).unwrap();
    }
    if transparent {
        // The option of IPv4 holds for sockets of IPv6, too.
        socket.set_ip_transparent_v4(true).unwrap();
    }
    socket.bind(&address.into()).unwrap();
    socket.listen(8).unwrap();
    socket.into()
}

fn original(stream: &TcpStream) -> Option<SocketAddr> {
    if stream.local_addr().unwrap().is_ipv4() {
        let raw = getsockopt(&stream.as_fd(), sockopt::OriginalDst).ok()?;
        return Some((Ipv4Addr::from(u32::from_be(raw.sin_addr.s_addr)), u16::from_be(raw.sin_port)).into());
    }
    let raw = getsockopt(&stream.as_fd(), sockopt::Ip6tOriginalDst).ok()?;
    Some((Ipv6Addr::from(raw.sin6_addr.s6_addr), u16::from_be(raw.sin6_port)).into())
}

fn accept(listener: &TcpListener) -> Accepted {
    let (mut stream, peer) = listener.accept().unwrap();
    stream.write_all(b"proxy").unwrap();
    Accepted { local: stream.local_addr().unwrap(), peer, original: original(&stream) }
}

fn greeting(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Makes a socket that the kernel takes for the proxy's.
fn as_the_proxy<T>(make: impl FnOnce() -> T) -> T {
    let before = nix::unistd::setfsuid(1337.into());
    let made = make();
    nix::unistd::setfsuid(before);
    made
}

fn any(v6: bool, port: u16) -> SocketAddr {
    let address: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    (address, port).into()
}

#[test]
fn what_a_pod_sends_reaches_the_proxys_outbound_port() {
    for (name, backend) in backends() {
        let Some(pair) = Pair::new("out") else { return };
        pair.in_pod(|| Installation::new(sidecar(), true, backend).apply().unwrap());
        for (v6, far) in [(false, "198.51.100.7:80"), (true, "[2001:db8::7]:80")] {
            let far: SocketAddr = far.parse().unwrap();
            pair.in_pod(|| {
                let proxy = listener(any(v6, 15001), false);
                let accepted = std::thread::scope(|scope| {
                    let accepted = scope.spawn(|| accept(&proxy));
                    assert_eq!(greeting(far), "proxy", "{name}");
                    accepted.join().unwrap()
                });
                assert_eq!(accepted.original, Some(far), "{name}");
            });
        }
    }
}

#[test]
fn what_the_proxy_sends_itself_passes() {
    for (name, backend) in backends() {
        for (mode, capture) in [("redirect", sidecar()), ("tproxy", transparent())] {
            let Some(pair) = Pair::new("pass") else { return };
            pair.in_pod(|| Installation::new(capture, true, backend.clone()).apply().unwrap());
            let far = SocketAddr::from((PEER_V4, 8080));
            let service = pair.in_peer(|| listener(far, false));
            std::thread::scope(|scope| {
                let accepted = scope.spawn(|| accept(&service));
                assert_eq!(pair.in_pod(|| as_the_proxy(|| greeting(far))), "proxy", "{name} {mode}");
                assert_eq!(accepted.join().unwrap().peer.ip(), IpAddr::from(POD_V4), "{name} {mode}");
            });
        }
    }
}

#[test]
fn a_query_to_any_server_is_answered_by_the_proxy() {
    for (name, backend) in backends() {
        let Some(pair) = Pair::new("dns") else { return };
        pair.in_pod(|| Installation::new(sidecar(), true, backend).apply().unwrap());
        // The answer must leave from the address that the query was sent on to.
        for (v6, server, at) in [(false, "10.77.0.1:53", "127.0.0.1:15053"), (true, "[fd77::1]:53", "[::1]:15053")] {
            let server: SocketAddr = server.parse().unwrap();
            pair.in_pod(|| {
                let proxy = as_the_proxy(|| UdpSocket::bind(at).unwrap());
                let application = UdpSocket::bind(any(v6, 0)).unwrap();
                for socket in [&proxy, &application] {
                    socket.set_read_timeout(Some(PATIENCE)).unwrap();
                }
                application.connect(server).unwrap();
                application.send(b"query").unwrap();
                let mut buffer = [0; 16];
                let (length, from) = proxy.recv_from(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], b"query", "{name}");
                proxy.send_to(b"answer", from).unwrap();
                let length = application.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], b"answer", "{name}");
            });
        }
    }
}

#[test]
fn what_comes_in_reaches_the_proxys_inbound_port() {
    for (name, backend) in backends() {
        for (mode, capture) in [("redirect", sidecar()), ("tproxy", transparent())] {
            let Some(pair) = Pair::new("in") else { return };
            pair.in_pod(|| Installation::new(capture, true, backend.clone()).apply().unwrap());
            for (v6, application) in
                [(false, SocketAddr::from((POD_V4, 8080))), (true, (POD_V6.parse::<IpAddr>().unwrap(), 8080).into())]
            {
                let proxy = pair.in_pod(|| listener(any(v6, 15006), mode == "tproxy"));
                let accepted = std::thread::scope(|scope| {
                    let accepted = scope.spawn(|| accept(&proxy));
                    assert_eq!(pair.in_peer(|| greeting(application)), "proxy", "{name} {mode}");
                    accepted.join().unwrap()
                });
                if mode == "tproxy" {
                    assert_eq!(accepted.local, application, "{name}");
                } else {
                    assert_eq!(accepted.original, Some(application), "{name}");
                }
                if !v6 {
                    assert_eq!(accepted.peer.ip(), IpAddr::from(PEER_V4), "{name} {mode}");
                }
            }
            // An excluded port reaches the application itself.
            let application = pair.in_pod(|| listener(any(false, 15020), false));
            std::thread::scope(|scope| {
                let accepted = scope.spawn(|| accept(&application));
                assert_eq!(pair.in_peer(|| greeting((POD_V4, 15020).into())), "proxy");
                assert_eq!(accepted.join().unwrap().local, SocketAddr::from((POD_V4, 15020)), "{name} {mode}");
            });
        }
    }
}

#[test]
fn ambients_rules_are_taken_by_the_kernel_twice_and_gone_when_cleaned_up() {
    let Some(pair) = Pair::new("ambient") else { return };
    let (all, some) = (
        ambient::Pod { dns: true, virtual_interfaces: vec!["vm0".into()], ..ambient::Pod::default() },
        ambient::Pod { outbound_only: true, ..ambient::Pod::default() },
    );
    for (name, backend) in backends() {
        let before = pair.state();
        pair.in_pod(|| all.apply(&backend, true)).unwrap();
        let once = pair.state();
        assert!(once.contains("15053") && once.contains("15008"), "{name}: {once}");
        pair.in_pod(|| all.apply(&backend, true)).unwrap();
        assert_eq!(pair.state(), once, "{name}");
        assert_eq!(pair.in_pod(|| all.missing(&backend, true)).unwrap(), Vec::<String>::new(), "{name}");

        // Other settings take their place.
        assert!(!pair.in_pod(|| some.missing(&backend, true)).unwrap().is_empty(), "{name}");
        pair.in_pod(|| some.apply(&backend, true)).unwrap();
        assert_eq!(pair.in_pod(|| some.missing(&backend, true)).unwrap(), Vec::<String>::new(), "{name}");
        assert!(!pair.state().contains("15053"), "{name}");
        pair.in_pod(|| all.cleanup(&backend, true)).unwrap();
        assert_eq!(pair.state(), before, "{name}");
    }
}

#[test]
fn ambients_pod_is_captured_but_for_the_nodes_proxy_and_probes() {
    let Some(pair) = Pair::new("ambient-in") else { return };
    for (name, backend) in backends() {
        let pod = ambient::Pod {
            probes: ambient::ProbeSource { v4: PEER_V4, ..ambient::ProbeSource::default() },
            ..ambient::Pod::default()
        };
        let captured = ambient::Pod::default();
        let asked = SocketAddr::from((POD_V4, 8080));
        let from_peer = |pod: &ambient::Pod| {
            pair.in_pod(|| pod.apply(&backend, true)).unwrap();
            let (application, proxy) =
                pair.in_pod(|| (listener(any(false, 8080), false), listener(any(false, 15006), false)));
            pair.in_peer(|| TcpStream::connect_timeout(&asked, PATIENCE)).unwrap();
            let arrived = |listener: &TcpListener| {
                listener.set_nonblocking(true).unwrap();
                listener.accept().is_ok()
            };
            (arrived(&application), arrived(&proxy))
        };
        assert_eq!(from_peer(&captured), (false, true), "{name}");
        assert_eq!(from_peer(&pod), (true, false), "{name}: a probe");
        pair.in_pod(|| pod.cleanup(&backend, true)).unwrap();
    }
}

#[test]
fn a_nodes_rule_is_taken_by_the_kernel_beside_what_its_sets_hold() {
    let Some(pair) = Pair::new("ambient-node") else { return };
    if !has("nft") {
        return println!("skipped: no nft");
    }
    let nft = |text: &str| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &pair.pod, "nft", "-f", "-"]).stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{text}");
    };
    let text = ambient::Node { kubelet: 0, ..ambient::Node::default() }.text(&Backend::Nftables, true);
    nft(&text);
    nft("add element inet istio-ambient-nat istio-inpod-probes-v4 { 10.77.0.9 }\n");
    nft(&text);
    let listing = run(&format!("ip netns exec {} nft list table inet istio-ambient-nat", pair.pod));
    assert!(listing.contains("10.77.0.9"), "{listing}");
    assert_eq!(listing.matches("snat ").count(), 2, "{listing}");
}

#[test]
fn a_namespace_that_is_not_there_is_named() {
    let error = within(Path::new("/run/netns/no-such-namespace"), || ()).unwrap_err().to_string();
    assert!(error.contains("/run/netns/no-such-namespace"), "{error}");
}
