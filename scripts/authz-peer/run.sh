#!/bin/sh
# Holds what we make of generated AuthorizationPolicies against what Istio's own code makes of them. The first time it builds that,
# which takes minutes and some GB of Go modules. Without Go it does nothing.
#
#   scripts/authz-peer/run.sh              # 400 sets of policies
#   SEED=7 SETS=2000 scripts/authz-peer/run.sh
set -eu
cd "$(dirname "$0")"
if ! command -v go >/dev/null; then
    echo "skipped: there is no Go"
    exit 0
fi
cache="${MELTEMI_CACHE:-$HOME/.cache/meltemi}/authz-peer"
mkdir -p "$cache"
for file in main.go go.mod empty.s; do
    cmp -s "$file" "$cache/$file.built" || rm -f "$cache/peer"
done
if [ ! -x "$cache/peer" ]; then
    cp main.go go.mod empty.s "$cache"
    (cd "$cache" && GOFLAGS=-mod=mod go build -o peer .)
    for file in main.go go.mod empty.s; do cp "$file" "$cache/$file.built"; done
fi
cd ../..
MELTEMI_AUTHZ_PEER="$cache/peer" cargo test -p meltemi-explain --test authorization_peer -- --nocapture
