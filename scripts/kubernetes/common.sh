# What the scripts share that play the mesh in a real Kubernetes; they source it at the root of the project, with KUBE_NS exported.
# Makes $work, a folder that goes when the script ends, and takes the cluster down then (KEEP=1 leaves it up).

cluster=$PWD/scripts/kubernetes/cluster
image=meltemi/meltemi:$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
work=$(mktemp -d)
started=()
# The longest that something is waited for, in seconds.
limit=${limit:-120}

finish() {
  local code=$?
  for pid in "${started[@]}"; do kill -- "-$pid" 2>/dev/null || true; done
  [ "${KEEP:-}" = 1 ] || "$cluster" down || true
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT

step() { printf '== %s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; exit 1; }
ctl() { "$cluster" ctl "$@"; }
inside() { "$cluster" exec-netns "$@"; }
background() { setsid "$cluster" exec-netns "$@" >>"$work/log" 2>&1 & started+=("$!"); }
eventually() { # what, command...
  local what=$1
  shift
  for _ in $(seq $((2 * limit))); do "$@" >/dev/null 2>&1 && return; sleep 0.5; done
  die "$what: not within $limit s"
}

# A cluster with a node. Where none starts, the whole script is skipped, with the exit status that says so.
cluster_of_one() { "$cluster" up || { echo "skipped: no cluster starts here"; exit 77; }; }

# The program $BINARY, or the one that cargo makes, as $work/meltemi, without its symbols.
program() {
  local binary=${BINARY:-}
  if [ -z "$binary" ]; then
    cargo build -q -p meltemi
    binary=${CARGO_TARGET_DIR:-target}/debug/meltemi
  fi
  install -m 755 "$binary" "$work/meltemi"
  strip "$work/meltemi"
}

# Names and addresses of Services, which the cluster by itself has none of.
services() {
  inside ip address replace 10.96.0.10/32 dev lo
  background python3 scripts/kubernetes/names.py 10.96.0.10
  background kube-proxy --kubeconfig "$(inside printenv KUBECONFIG)" --proxy-mode=iptables \
    --hostname-override=node1 --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0
}

# The image of the program, with iptables and the libraries of this machine.
program_image() {
  local links=() name modules
  for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    links+=("usr/sbin/$name=->xtables-nft-multi")
  done
  modules=/usr/lib/$(uname -m)-linux-gnu/xtables
  "$cluster" image --libs "$image" '["/meltemi"]' "meltemi=$work/meltemi" 'usr/local/bin/pilot-agent=->/meltemi' \
    usr/sbin/=/usr/sbin/xtables-nft-multi "${links[@]}" "${modules#/}=$modules"
}
