#!/usr/bin/env bash
# Runs every test. Installs what the tests with real peers need where it may; a test whose peer is missing says "skipped".
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-test-deps.sh
# Kubernetes for the tests in a cluster: 7 to 10 minutes, once. Without it they say "skipped".
if [[ $(id -u) -eq 0 ]] && command -v go >/dev/null; then
  timeout 900 scripts/kubernetes/cluster build || echo "test: Kubernetes could not be built; tests that need it are skipped" >&2
fi
cargo test --workspace "$@"
