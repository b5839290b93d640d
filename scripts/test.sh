#!/usr/bin/env bash
# Runs every test. Installs what the tests with real peers need where it may; a test whose peer is missing says "skipped".
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-test-deps.sh
# Kubernetes for the tests in a cluster: 7 to 10 minutes, once. Without it they say "skipped".
if [[ $(id -u) -eq 0 ]] && command -v go >/dev/null; then
  timeout 900 scripts/kubernetes/cluster build || echo "test: Kubernetes could not be built; tests that need it are skipped" >&2
fi
# The definitions of our kinds before their judge.
if KUBE_NS=meltemi-crds scripts/kubernetes/cluster up --api-only 2>/dev/null; then
  code=0
  KUBE_NS=meltemi-crds MELTEMI_KUBECTL="$PWD/scripts/kubernetes/cluster ctl" cargo test -p meltemi --test crds || code=$?
  KUBE_NS=meltemi-crds scripts/kubernetes/cluster down
  [[ $code -eq 0 ]] || exit "$code"
else
  echo "test: skipped: no API server to judge the definitions of our kinds" >&2
fi
cargo test --workspace "$@"
