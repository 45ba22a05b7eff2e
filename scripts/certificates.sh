#!/bin/sh
# A certificate authority and a certificate for each host, as docs/security.md
# tells; needs openssl alone.
#
#     sh scripts/certificates.sh DIRECTORY HOST...
#
# A CA that is there already is used again.  Keep ca.key off the machines that
# serve: whoever has it can be any member.

set -eu
umask 077

if [ $# -lt 2 ]; then
    echo "usage: sh scripts/certificates.sh DIRECTORY HOST..." >&2
    exit 2
fi
directory=$1
shift
mkdir -p "$directory"
cd "$directory"

if [ ! -f ca.key ]; then
    openssl ecparam -name prime256v1 -genkey -noout -out ca.key
    openssl req -x509 -new -key ca.key -sha256 -days 3650 \
        -subj "/CN=kvdb CA" -out ca.crt
fi

for host in "$@"; do
    case $host in
    *[!0-9.:]*) name="DNS:$host" ;;
    *) name="IP:$host" ;;
    esac
    openssl ecparam -name prime256v1 -genkey -noout -out "$host.key"
    openssl req -new -key "$host.key" -subj "/CN=kvdb" -out "$host.csr"
    printf '%s\n' "subjectAltName=$name" "extendedKeyUsage=serverAuth,clientAuth" \
        "keyUsage=digitalSignature" >"$host.ext"
    openssl x509 -req -in "$host.csr" -CA ca.crt -CAkey ca.key -CAcreateserial \
        -sha256 -days 365 -extfile "$host.ext" -out "$host.crt"
    rm "$host.csr" "$host.ext"
    echo "$directory/$host.crt and .key: for $name" >&2
done
