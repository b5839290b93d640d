#!/usr/bin/env bash
# The same documents to Istio's validation and to ours: what is taken, refused and warned about must be the same. Differences that
# are meant are listed with their reasons in crates/config/tests/peer/known.rs; others fail.
#
#   scripts/validation/peer.sh          needs Go, and Istio's module from a module proxy or its cache; without them it is skipped
#
#   DOCUMENTS  changed documents of each kind [default: 1500]
#   SEED       by which changes are chosen [default: 1]
#   KIND       one kind alone
set -euo pipefail
cd "$(dirname "$0")/../.."

program=${MELTEMI_CACHE:-$HOME/.cache/meltemi}/validation/peer
command -v go >/dev/null || { echo "skipped: no go"; exit 0; }
go -C scripts/validation/peer list -deps . >/dev/null 2>&1 || { echo "skipped: istio.io/istio is not to be had"; exit 0; }
go -C scripts/validation/peer build -o "$program" .

MELTEMI_VALIDATION_PEER=$program exec cargo test -q -p meltemi-config --test peer -- --nocapture
