#!/bin/bash
# Runs a command again and again beside two busy loops a core, and prints a line for each run. What a test depends on and
# does not wait for shows on such a machine.
#
#   e2e/busy.sh RUNS DIRECTORY COMMAND [ARGUMENT ...]
#
# The output of each run is in DIRECTORY/NUMBER.log. Exits with 1 if any run failed; the others are run all the same.
set -euo pipefail
export LC_ALL=C

runs=$1 directory=$2
shift 2
mkdir -p "$directory"

loops=()
trap 'kill "${loops[@]}"' EXIT
for _ in $(seq $((2 * $(nproc)))); do
  while :; do :; done &
  loops+=($!)
done

failed=0
for run in $(seq "$runs"); do
  log=$directory/$run.log
  began=$SECONDS
  "$@" >"$log" 2>&1 && verdict=passed || { verdict=failed failed=$((failed + 1)); }
  summary=$(grep -a '^ *Summary' "$log" | sed 's/.*\] *//' | paste -sd ';') || true
  echo "run $run of $runs: $verdict after $((SECONDS - began)) s: ${summary:-see $log}"
  grep -aE '^ *(FAIL|TIMEOUT|SIGKILL|SIGABRT|SIGSEGV) ' "$log" | sort -u || true
done
echo "$runs runs beside ${#loops[@]} busy loops on $(nproc) cores; failed: $failed"
exit $((failed > 0))
