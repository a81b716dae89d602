#!/usr/bin/env bash
# `make run`: starts the three embedded nodes, applies the example, says what to try, and hands over the keyboard.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=${ZSHA_BIN_DIR:-target/debug}
port=${PORT:-7717}
export CONSUL_HTTP_ADDR=http://127.0.0.1:$port

# Applies as soon as the store listens; says so if it never does.
(
  for _ in $(seq 100); do
    if "$bin/zsha" get >/dev/null 2>&1 || [ $? -ne 7 ]; then break; fi
    sleep 0.1
  done
  "$bin/zsha" apply -f manifests/examples/cluster.yaml -m 'make run'
  for _ in $(seq 100); do
    if "$bin/zsha" status -o json 2>/dev/null | grep -q '"state": *"Running"'; then break; fi
    sleep 0.1
  done
  "$bin/zsha" status
  cat <<TEXT

Try, in another terminal:
  export CONSUL_HTTP_ADDR=$CONSUL_HTTP_ADDR
  $PWD/$bin/zsha status -w
  $PWD/$bin/zsha diff -f manifests/examples/cluster.yaml
and here: power-off nfs-1   (then watch the VM move)
TEXT
) &
exec "$bin/zsha-controller" dev --port "$port"
