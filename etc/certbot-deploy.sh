#!/bin/sh
# Gives uringcast a certificate that certbot has got or renewed. The server reads it within seconds by itself; no
# connection is cut.
#
#   certbot certonly --webroot -w /var/lib/uringcast -d live.example.org \
#     --deploy-hook /etc/uringcast/certbot-deploy.sh
#
# and then in /etc/uringcast/origin.toml:
#
#   [tls]
#   cert = "/var/lib/uringcast/tls/cert.pem"
#   key = "/var/lib/uringcast/tls/key.pem"
#
# Only root and the service can enter that folder (StateDirectoryMode= of the unit), and it is not served.
set -eu
to=${URINGCAST_TLS:-/var/lib/uringcast/tls}
mkdir -p "$to"
install -m 644 "$RENEWED_LINEAGE/fullchain.pem" "$to/cert.pem.new"
install -m 644 "$RENEWED_LINEAGE/privkey.pem" "$to/key.pem.new"
mv "$to/key.pem.new" "$to/key.pem"
mv "$to/cert.pem.new" "$to/cert.pem"
