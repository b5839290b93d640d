#!/usr/bin/env bash
# The same objects to Istio's control plane and to ours, in one API server, and what both give the same nodes held against each
# other, resource by resource. Differences that are meant are listed with their reasons in peers/known.txt; others fail.
#
#   scripts/kubernetes/peers.sh [FILE...]   FILEs are applied besides peers/documents.yaml
#
#   PILOT     Istio's pilot-discovery [default: ~/.cache/meltemi-peers/pilot-discovery]
#   BINARY    the program [default: made by cargo build]
#   PYTHON    one with grpcio and xds-protos [default: the cache's]
#   DUMP      a folder for all that was compared
set -euo pipefail
cd "$(dirname "$0")/../.."

export KUBE_NS=${KUBE_NS:-k8s-peers}
PILOT=${PILOT:-$HOME/.cache/meltemi-peers/pilot-discovery}
PYTHON=${PYTHON:-${MELTEMI_CACHE:-$HOME/.cache/meltemi}/venv/bin/python}
peers=$PWD/scripts/kubernetes/peers

[ -x "$PILOT" ] || { echo "skipped: no pilot-discovery at $PILOT"; exit 0; }
[ -x "$PYTHON" ] || { echo "skipped: no Python with grpcio and xds-protos at $PYTHON"; exit 0; }

. scripts/kubernetes/common.sh

ready() { # port, log
  for _ in $(seq 240); do inside curl -sf -o /dev/null "http://127.0.0.1:$1/ready" && return; sleep 0.5; done
  tail -n 20 "$2" >&2
  die "not ready on port $1 within 120 s"
}

program

"$cluster" up --api-only
"$work/meltemi" x crds | ctl apply --server-side -f - >/dev/null
ctl create namespace istio-system
ctl apply -f "$peers/mesh.yaml"

config=$(inside printenv KUBECONFIG)
common=(--kubeconfig "$config" --httpsAddr "")
( cd "$work" && exec setsid "$cluster" exec-netns env POD_NAME=theirs POD_NAMESPACE=istio-system PILOT_ENABLE_GATEWAY_API=false \
  "$PILOT" discovery "${common[@]}" --grpcAddr 127.0.0.1:21010 --secureGRPCAddr 127.0.0.1:21012 --httpAddr 127.0.0.1:21080 \
  --monitoringAddr 127.0.0.1:21014 --ctrlz_port 21876 ) >"$work/theirs.log" 2>&1 & started+=("$!")
setsid "$cluster" exec-netns env POD_NAME=ours "$work/meltemi" discovery "${common[@]}" --grpcAddr 127.0.0.1:22010 \
  --secureGRPCAddr 127.0.0.1:22012 --httpAddr 127.0.0.1:22080 --monitoringAddr 127.0.0.1:22014 >"$work/ours.log" 2>&1 & started+=("$!")
ready 21080 "$work/theirs.log"
ready 22080 "$work/ours.log"

for file in "$peers/documents.yaml" "$@"; do ctl apply -f "$file"; done
inside "$PYTHON" "$peers/nodes.py" kubectl >"$work/nodes.json"
inside "$PYTHON" "$peers/compare.py" 127.0.0.1:21010 127.0.0.1:22010 "$work/nodes.json" --known "$peers/known.txt" --patience 30 \
  ${DUMP:+--dump "$DUMP"}
