#!/usr/bin/env bash
# Runs every test. Installs what the tests with real peers need where it may; a test whose peer is missing says "skipped".
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-test-deps.sh
cargo test --workspace "$@"
