#!/usr/bin/env bash
# Our proxies under Istio's own control plane in a real Kubernetes: the sample shop, injected, behind a gateway, in mutual TLS.
# Istio's discovery runs in the Deployment that our charts make, with our templates; everything else is ours.
#
#   scripts/kubernetes/under-istio.sh   needs root, and what scripts/install-test-deps.sh installs
#
#   PILOT     Istio's pilot-discovery [default: ~/.cache/meltemi-peers/pilot-discovery]
#   BINARY    the program [default: made by cargo build]
#   KEEP      1 leaves the cluster up
set -euo pipefail
cd "$(dirname "$0")/../.."

export KUBE_NS=${KUBE_NS:-k8s-under-istio}
PILOT=${PILOT:-$HOME/.cache/meltemi-peers/pilot-discovery}

[ -x "$PILOT" ] || { echo "skipped: no pilot-discovery at $PILOT"; exit 0; }

. scripts/kubernetes/common.sh

program

step "a cluster with names and addresses of Services, and two images"
cluster_of_one
services
program_image
"$cluster" image --libs istio/pilot:peer '["/pilot-discovery"]' "pilot-discovery=$PILOT"

step "install, then Istio's discovery in place of ours"
inside "$work/meltemi" install --set profile=demo --set values.global.imagePullPolicy=IfNotPresent -y
# It reads more than ours does.
ctl create clusterrolebinding istiod-peer --clusterrole=cluster-admin --serviceaccount=istio-system:istiod
ctl -n istio-system set image deployment/istiod discovery=istio/pilot:peer
ctl -n istio-system rollout status deployment/istiod --timeout=180s
ctl -n istio-system rollout restart deployment/istio-ingressgateway
ctl -n istio-system rollout status deployment/istio-ingressgateway --timeout=180s

step "a namespace with injection, and the sample in it"
for file in samples/shop/*.yaml; do sed "s#meltemi:latest#$image#" "$file" >"$work/$(basename "$file")"; done
for file in "$work"/*.yaml; do ctl apply -f "$file"; done
for deployment in $(ctl -n shop get deployments -o name); do ctl -n shop rollout status "$deployment" --timeout=180s; done

step "requests come through the gateway, in mutual TLS"
gateway=$(ctl -n istio-system get pods -l app=istio-ingressgateway -o jsonpath='{.items[0].status.podIP}')
eventually "a request through the gateway" inside curl -sf -m 5 "http://$gateway:8080/"
answer=$(inside curl -sf -m 5 "http://$gateway:8080/")
grep -q '"mutualTls": true' <<<"$answer" || die "no mutual TLS: $answer"
grep -q 'sa/istio-ingressgateway-service-account' <<<"$answer" || die "not from the gateway: $answer"
pod=$(ctl -n shop get pods -l app=frontend -o jsonpath='{.items[0].metadata.name}')
address=$(ctl -n shop get pod "$pod" -o jsonpath='{.status.podIP}')
! inside curl -s -m 3 "http://$address:8080/" >/dev/null || die "plain text was served in STRICT"
lost=0
for _ in $(seq 200); do inside curl -sf -m 5 -o /dev/null "http://$gateway:8080/" || lost=$((lost + 1)); done
[ "$lost" = 0 ] || die "$lost of 200 requests failed"

step "nothing was refused, and Istio sees every proxy in sync"
refused=$(ctl -n istio-system logs deployment/istiod | grep -c 'ACK ERROR\|NACK' || true)
[ "$refused" = 0 ] || { ctl -n istio-system logs deployment/istiod | grep 'ACK ERROR\|NACK' | head -20; die "$refused refusals"; }
istiod=$(ctl -n istio-system get pods -l app=istiod -o jsonpath='{.items[0].status.podIP}')
istioctl=$(dirname "$PILOT")/istioctl
[ ! -x "$istioctl" ] || inside "$istioctl" proxy-status
inside curl -s "http://$istiod:15014/version"; echo
step "all of it works"
