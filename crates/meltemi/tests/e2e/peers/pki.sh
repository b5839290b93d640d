#!/usr/bin/env bash
# Certificates made by openssl, in folder $1: NAME.pem (a chain, leaf first) and NAME.key of each, and root.pem. Revocation lists: root.crl
# alone, all.crl of every authority, ended.crl of the root's past.
set -euo pipefail
cd "$1"

# key FILE KIND
key() {
  case $2 in
    ec) openssl ecparam -name prime256v1 -genkey -noout -out "$1" ;;
    p384) openssl ecparam -name secp384r1 -genkey -noout -out "$1" ;;
    rsa) openssl genrsa -out "$1" 2048 ;;
    rsa1024) openssl genrsa -out "$1" 1024 ;;
    ed25519) openssl genpkey -algorithm ed25519 -out "$1" ;;
  esac
}

# authority NAME ISSUER EXTENSIONS: of NAME itself where ISSUER is -.
authority() {
  key "$1.key" ec
  printf 'basicConstraints=critical,CA:TRUE%s\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n%s\n' "${4:-}" "$3" > "$1.ext"
  openssl req -new -key "$1.key" -subj "/O=Test/CN=$1" -out "$1.csr"
  if [[ $2 == - ]]; then
    openssl x509 -req -in "$1.csr" -signkey "$1.key" -days 30 -extfile "$1.ext" -out "$1.pem"
  else
    openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -days 30 -extfile "$1.ext" -out "$1.pem"
  fi
}

# leaf NAME ISSUER KIND EXTENSIONS [openssl x509's arguments]; the chain holds all authorities but the root.
leaf() {
  local name=$1 issuer=$2 kind=$3 extensions=$4
  shift 4
  key "$name.key" "$kind"
  printf 'basicConstraints=critical,CA:FALSE\nsubjectKeyIdentifier=hash\n%b\n' "$extensions" > "$name.ext"
  openssl req -new -key "$name.key" -subj "/O=Test/CN=$name" -out "$name.csr"
  openssl x509 -req -in "$name.csr" -CA "$issuer.pem" -CAkey "$issuer.key" -CAcreateserial -days 20 -extfile "$name.ext" "$@" -out "$name.leaf"
  cat "$name.leaf" > "$name.pem"
  [[ $issuer == root || $issuer == stranger ]] || cat "$issuer.pem" >> "$name.pem"
}

# list AUTHORITY FILE [openssl ca's arguments]
list() {
  openssl ca -config ca.conf -gencrl -keyfile "$1.key" -cert "$1.pem" -out "$2" "${@:3}"
}

# dated NAME BEGIN END: a client of the root's.
dated() {
  key "$1.key" ec
  printf '%b\n' "$client\n$names" > "$1.ext"
  openssl req -new -key "$1.key" -subj "/O=Test/CN=$1" -out "$1.csr"
  openssl ca -config ca.conf -batch -notext -in "$1.csr" -keyfile root.key -cert root.pem -startdate "$2" -enddate "$3" -extfile "$1.ext" -out "$1.pem"
}

{
  authority root - ""
  authority stranger - ""
  authority middle root ""
  authority limited root "nameConstraints=critical,permitted;DNS:good.example"
  authority low root "" ,pathlen:0
  authority below low ""
  cat low.pem >> below.pem

  client=extendedKeyUsage=clientAuth
  both=extendedKeyUsage=serverAuth,clientAuth
  names='subjectAltName=DNS:client.example,URI:spiffe://td/ns/x/sa/client'
  leaf server-ec root ec "$both\nsubjectAltName=DNS:a.example,DNS:*.b.example"
  leaf server-rsa middle rsa "$both\nsubjectAltName=DNS:rsa.example"
  leaf good-ec root ec "$client\n$names"
  leaf good-p384 root p384 "$client\n$names"
  leaf good-rsa root rsa "$client\n$names"
  leaf good-chain middle rsa "$client\n$names"
  leaf good-no-usage root ec "$names"
  leaf good-within-limits limited ec "$client\nsubjectAltName=DNS:a.good.example"
  leaf ed25519 root ed25519 "$client\n$names"
  leaf bad-usage root ec "extendedKeyUsage=serverAuth\n$names"
  leaf bad-outside-limits limited ec "$client\nsubjectAltName=DNS:bad.example"
  leaf bad-stranger stranger ec "$client\n$names"
  leaf bad-path-length below ec "$client\n$names"
  leaf bad-revoked root ec "$client\n$names"
  leaf bad-issuer-is-a-leaf good-ec ec "$client\n$names"
  leaf small-rsa root rsa1024 "$client\n$names"
  leaf sha1 root ec "$client\n$names" -sha1

  # Version 1 has no extensions at all.
  key version-1.key ec
  openssl req -new -key version-1.key -subj "/CN=version-1" -out version-1.csr
  openssl x509 -req -in version-1.csr -CA root.pem -CAkey root.key -CAcreateserial -days 20 -out version-1.pem

  key bad-self-signed.key ec
  openssl req -x509 -new -key bad-self-signed.key -subj "/CN=client.example" -days 20 -addext "$names" -out bad-self-signed.pem
  # The chain without its middle.
  cp good-chain.key bad-chain.key
  cp good-chain.leaf bad-chain.pem

  : > index.txt
  echo 01 > crlnumber
  printf '[ca]\ndefault_ca=own\n[own]\ndatabase=index.txt\nnew_certs_dir=.\ncrlnumber=crlnumber\nrand_serial=yes\npolicy=any\ndefault_md=sha256\ndefault_crl_days=10\n[any]\norganizationName=optional\ncommonName=supplied\n' > ca.conf
  dated bad-expired 20200101000000Z 20210101000000Z
  dated bad-not-yet 20500101000000Z 20510101000000Z
  openssl ca -config ca.conf -revoke bad-revoked.leaf -keyfile root.key -cert root.pem
  list root root.crl
  list root ended.crl -crl_lastupdate 20200101000000Z -crl_nextupdate 20210101000000Z
  : > index.txt
  for authority in middle limited; do list $authority $authority.crl; done
  cat root.crl middle.crl limited.crl > all.crl
} > pki.log 2>&1 || { cat pki.log >&2; exit 1; }
