#!/usr/bin/env bash
# The same documents to Istio's injector and to ours: cases by a seed, of which istioctl says what is expected, are played as
# `meltemi kube-inject --case` plays them, as files and through the webhook. Any difference fails, and its case is kept.
#
#   scripts/kubernetes/injection.sh [SEED]   [default: 1]
#
#   ISTIOCTL       Istio's istioctl [default: ~/.cache/meltemi-peers/istioctl]
#   BINARY         the program [default: made by cargo build]
#   PYTHON         one with PyYAML [default: python3]
#   INSTALLATIONS  how many, each with twenty documents [default: 20]
#   KEEP           a folder for the cases [default: one that is removed when all pass]
set -euo pipefail
cd "$(dirname "$0")/../.."

SEED=${1:-1}
ISTIOCTL=${ISTIOCTL:-$HOME/.cache/meltemi-peers/istioctl}
PYTHON=${PYTHON:-python3}
cases=$PWD/scripts/kubernetes/injection

[ -x "$ISTIOCTL" ] || { echo "skipped: no istioctl at $ISTIOCTL"; exit 0; }
"$PYTHON" -c 'import yaml' 2>/dev/null || { echo "skipped: $PYTHON has no PyYAML"; exit 0; }

BINARY=${BINARY:-$(cargo build -q -p meltemi && echo "${CARGO_TARGET_DIR:-target}/debug/meltemi")}
work=${KEEP:-$(mktemp -d)}
"$PYTHON" "$cases/cases.py" "$ISTIOCTL" "$work" --seed "$SEED" --installations "${INSTALLATIONS:-20}" --expressions "$cases/expressions.txt"
"$BINARY" kube-inject --case "$work"/*/ >"$work/told" && failed=0 || failed=$?
grep -v '^pass ' "$work/told" || true
[ "$failed" -eq 0 ] || { echo "the cases are in $work" >&2; exit "$failed"; }
echo "$(grep -c '^pass ' "$work/told") cases passed"
[ -n "${KEEP:-}" ] || rm -rf "$work"
