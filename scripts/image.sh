#!/usr/bin/env bash
# Builds the image of Meltemi: one static binary on nothing, with roots of the web and, from Debian, the programs that
# capture traffic: there is no shell in it, and none is needed.
#
#   scripts/image.sh [OUTPUT.tar]          default: target/image/meltemi.tar, beside it meltemi.cdx.json (SBOM)
#
# The tar is an OCI layout and a docker archive at once: `docker load`, `ctr image import`, `skopeo copy oci-archive:`. The same
# sources and the same machine give the same bytes.
#
#   NAME      repository and tag            meltemi/meltemi:VERSION
#   PROFILE   Cargo's profile               dist
#   TARGET    Cargo's target                x86_64-unknown-linux-musl
#   BINARY    a binary that is built already
#   IPTABLES  0 leaves out iptables and nft, by which init containers and the node's daemon capture
#
# Needs `rustup target add x86_64-unknown-linux-musl`, and of Debian
# `musl-tools cmake python3 ca-certificates iptables nftables netbase`.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGET=${TARGET:-x86_64-unknown-linux-musl}
PROFILE=${PROFILE:-dist}
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
NAME=${NAME:-meltemi/meltemi:$VERSION}
OUTPUT=$(realpath -m -- "${1:-target/image/meltemi.tar}")
# All times in the image: that of the commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH PYTHONDONTWRITEBYTECODE=1

build() {
  rustup target list --installed | grep -qx "$TARGET" || {
    echo "image: no target $TARGET: rustup target add $TARGET" >&2
    exit 1
  }
  # Paths of the machine stay out of the binary: those of Rust, and those that C libraries put into their assertions.
  local folder profile=${PROFILE^^} rust="" c="" pair
  folder=$(realpath -m -- "${CARGO_TARGET_DIR:-target}")
  for pair in "$PWD=/meltemi" "${CARGO_HOME:-$HOME/.cargo}=/cargo" "$folder=/meltemi/target"; do
    rust+=" --remap-path-prefix=$pair"
    c+=" -ffile-prefix-map=$pair"
  done
  env RUSTFLAGS="$rust -C target-feature=+crt-static -C relocation-model=static" "CFLAGS_${TARGET//-/_}=$c" \
    "CARGO_PROFILE_${profile//-/_}_STRIP=symbols" "CARGO_PROFILE_${profile//-/_}_DEBUG=0" CARGO_INCREMENTAL=0 \
    cargo build --locked --package meltemi --profile "$PROFILE" --target "$TARGET" >&2
  echo "$folder/$TARGET/$PROFILE/meltemi"
}

if [ -z "${BINARY:-}" ]; then
  built=$(build)
  BINARY=$built
fi
PARTS=${OUTPUT%.tar}.cdx.json
mkdir -p "$(dirname "$OUTPUT")"

# What comes from this machine. `iptables` and `nft` look protocols up by name.
files=("etc/ssl/certs/ca-certificates.crt=/etc/ssl/certs/ca-certificates.crt")
if [ "${IPTABLES:-1}" != 0 ]; then
  files+=(--with-libraries "usr/sbin/xtables-nft-multi=$(readlink -f "$(command -v xtables-nft-multi)")")
  for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    files+=("usr/sbin/$name=->xtables-nft-multi")
    files+=("usr/sbin/${name/tables/tables-nft}=->xtables-nft-multi")
  done
  modules=$(dirname "$(ldconfig -p | awk '/libxtables\.so/ { print $NF; exit }')")/xtables
  files+=("usr/lib/xtables/=$modules")
  files+=(--with-libraries "usr/sbin/nft=$(command -v nft)" "etc/protocols=/etc/protocols")
fi
# A binary that was given may not be static.
[ "$BINARY" = "${built:-}" ] || files+=(--with-libraries)
files+=("meltemi=$BINARY")

cargo metadata --format-version 1 --locked --filter-platform "$TARGET" |
  python3 scripts/image/sbom.py --lock Cargo.lock --version "$VERSION" -- "${files[@]}" >"$PARTS"
# Hooks of injected pods call it by Istio's name.
python3 scripts/image/oci.py --name "$NAME" --output "$OUTPUT" --env XTABLES_LIBDIR=/usr/lib/xtables -- "${files[@]}" \
  "usr/local/bin/pilot-agent=->/meltemi" "usr/share/sbom/meltemi.cdx.json=$PARTS"
