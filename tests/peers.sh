#!/usr/bin/env bash
# Install the real peers that tests/live talk to: Debian packages, and Node's packages beside the tests. PYTHON, where it is
# set, also builds the peers that are made from source (tests/live/grpc_peers.py), and fetches Apache Kafka (tests/live/kafka_server.py) and a registry
# of schemas (tests/live/schema_registry_server.py) and Zipkin (tests/live/zipkin_server.py).
# What cannot be installed is named; the tests that need it are then skipped, or fail where CI=true.
set -u
cd "$(dirname "$0")/live" || exit 1

missing=()
while read -r command package; do
  command -v "$command" >/dev/null 2>&1 || missing+=("$package")
done <<'LIST'
nginx nginx-light
haproxy haproxy
chromium chromium
chromedriver chromium-driver
curl curl
node nodejs
npm npm
openssl openssl
slapd slapd
rsyslogd rsyslog
prometheus prometheus
pebble pebble
pg_lsclusters postgresql
javac default-jdk-headless
mvn maven
setpriv util-linux
go golang-go
LIST

if [ ${#missing[@]} -gt 0 ]; then
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  if command -v apt-get >/dev/null 2>&1 && "${root[@]}" true 2>/dev/null; then
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive sh -c \
      "apt-get -qq update; apt-get -qq install -y --no-install-recommends ${missing[*]}" >/dev/null ||
      echo "could not install: ${missing[*]}" >&2
  else
    echo "not installed, tests that need them are skipped: ${missing[*]}" >&2
  fi
fi

if command -v npm >/dev/null 2>&1 && ! cmp -s package-lock.json node_modules/installed; then
  if npm ci --silent --no-audit --no-fund; then
    cp package-lock.json node_modules/installed
  else
    echo "could not install Node's packages" >&2
  fi
fi

if [ -n "${PYTHON:-}" ]; then
  (cd ../.. && "$PYTHON" -m tests.live.grpc_peers && "$PYTHON" -m tests.live.kafka_server &&
    "$PYTHON" -m tests.live.schema_registry_server && "$PYTHON" -m tests.live.zipkin_server) || exit 1
fi
exit 0
