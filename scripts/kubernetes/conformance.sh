#!/usr/bin/env bash
# The Gateway API's own conformance suite against the mesh in a real Kubernetes: one node, real pods, real gateways.
#
#   scripts/kubernetes/conformance.sh          needs root, Go, and what scripts/install-test-deps.sh installs
#
#   PROFILES  of the suite, with commas [default: GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,MESH-HTTP]
#   FEATURES  to test, with commas [default: those that the GatewayClass istio says it has]
#   RUN_TEST  one test alone, by its name; no report then
#   REPORT    where the report goes [default: docs/conformance/gateway-api.yaml]
#   LOG       where the suite's own output goes [default: a file that is removed]
#   BINARY    the program [default: made by cargo build]
#   KEEP      1 leaves the cluster up; what is up already is used, with the program as it is now
set -euo pipefail
cd "$(dirname "$0")/../.."

export KUBE_NS=${KUBE_NS:-k8s-conformance}
PROFILES=${PROFILES:-GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,MESH-HTTP}
REPORT=$(realpath -m "${REPORT:-docs/conformance/gateway-api.yaml}")
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
kit=$PWD/scripts/kubernetes
programs=${MELTEMI_CACHE:-$HOME/.cache/meltemi}/kubernetes/conformance
# Slower machines than those of the suite's authors take longer for the same.
PATIENCE='CreateTimeout:180;DeleteTimeout:60;GetTimeout:30;GatewayMustHaveAddress:400;GatewayMustHaveCondition:400;GatewayStatusMustHaveListeners:180'
PATIENCE+=';GatewayListenersMustHaveConditions:180;ListenerSetListenersMustHaveConditions:180;HTTPRouteMustNotHaveParents:180'
PATIENCE+=';HTTPRouteMustHaveCondition:180;TLSRouteMustHaveCondition:180;TCPRouteMustHaveCondition:180;RouteMustHaveParents:180'
PATIENCE+=';MaxTimeToConsistency:120;NamespacesMustBeReady:900;LatestObservedGenerationSet:180;DefaultTestTimeout:180;RequestTimeout:20'

. scripts/kubernetes/common.sh
LOG=${LOG:-$work/suite.log}

module() { go -C "$kit/conformance/suite" list -m -f '{{.Dir}}' "$1"; }

build() { # nothing, if they are there
  local made
  made=$(cat "$kit"/conformance/*/go.mod | sha256sum)
  [ "$(cat "$programs/made" 2>/dev/null)" != "$made" ] || return 0
  export CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-local}
  mkdir -p "$programs"
  local flags=(-trimpath -ldflags '-s -w')
  go -C "$kit/conformance/suite" build "${flags[@]}" -o "$programs/" tool
  go -C "$kit/conformance/suite" test -c "${flags[@]}" -o "$programs/conformance.test" .
  go -C "$kit/conformance/echo" build "${flags[@]}" -o "$programs/" tool
  echo "$made" >"$programs/made"
}

# What the suite's manifests name, under the very names.
images() {
  local suite name
  suite=$(module sigs.k8s.io/gateway-api/conformance)
  grep -rhoE 'image: \S+' "$suite/base" "$suite/mesh" "$suite/tests" | sort -u | while read -r _ name; do
    case $name in
      */echo-basic:*) "$cluster" image "$name" '["/echo-basic"]' "echo-basic=$programs/echo-basic" ;;
      */echo-advanced:*)
        "$cluster" image "$name" '["/server"]' "server=$programs/server" "usr/local/bin/client=$programs/client" \
          "cert.crt=$work/cert.crt" "cert.key=$work/cert.key"
        ;;
      # For UDPRoutes, which are not among the features; its pod has to be there all the same.
      */coredns:*)
        "$cluster" image "$name" '["/bin/busybox", "sh", "-c", "while :; do sleep 3600; done"]' \
          bin/busybox=/bin/busybox 'bin/sleep=->busybox'
        ;;
      *) die "an image that nobody makes: $name" ;;
    esac
  done
}

step "the suite"
build
program

step "a cluster, with names and addresses of Services"
cluster_of_one
inside ip route replace local 10.97.0.0/16 dev lo src 10.99.0.1
background kubectl proxy --port 18001
background python3 "$kit/conformance/balancer.py" 10.97.0.1 http://127.0.0.1:18001
services
program_image
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=echo -keyout "$work/cert.key" \
  -out "$work/cert.crt" 2>/dev/null
images

step "the Gateway API's definitions, and the mesh"
ctl apply --server-side -k "$(module sigs.k8s.io/gateway-api)/config/crd/experimental" >/dev/null
inside "$work/meltemi" install -y --set profile=minimal --set values.global.imagePullPolicy=IfNotPresent \
  --set values.pilot.resources.requests.cpu=10m --set values.pilot.resources.requests.memory=128Mi \
  --set values.global.proxy.resources.requests.cpu=1m --set values.global.proxy.resources.requests.memory=16Mi
ctl -n istio-system rollout restart deployment/istiod
ctl -n istio-system rollout status deployment/istiod --timeout=180s
eventually "the GatewayClass" ctl wait --for=condition=Accepted gatewayclass/istio --timeout=1s
declared() { ctl get gatewayclass istio -o jsonpath='{.status.supportedFeatures[*].name}' | tr ' ' ','; }
FEATURES=${FEATURES:-$(declared)}

step "the suite: $PROFILES"
arguments=(-test.run TestConformance -test.v -test.timeout 4h -gateway-class istio -supported-features "$FEATURES"
  -namespace-labels istio-injection=enabled -timeout-config-overrides "$PATIENCE"
  -usable-address infra-backend-v1.gateway-conformance-infra.svc.cluster.local -unusable-address foo)
if [ -n "${RUN_TEST:-}" ]; then
  arguments+=(-run-test "$RUN_TEST")
else
  mkdir -p "$(dirname "$REPORT")"
  arguments+=(-conformance-profiles "$PROFILES" -report-output "$REPORT" -organization meltemi -project meltemi
    -url https://meltemi.io -version "v$VERSION" -contact https://meltemi.io)
fi
code=0
inside "$programs/conformance.test" "${arguments[@]}" >"$LOG" 2>&1 || code=$?
grep -E '^ *--- FAIL' "$LOG" | sed 's/^ *//' || true
step "$(grep -cE '^    --- PASS' "$LOG" || true) tests passed, $(grep -cE '^    --- FAIL' "$LOG" || true) failed, $(grep -cE '^    --- SKIP' "$LOG" || true) skipped"
exit "$code"
