#!/usr/bin/env bash
# The demo's calls as a test: every one must succeed. Usage: demo_calls.sh BIN
# It runs in a network namespace of its own where that is allowed: its ports are fixed, and the kernel's TLS counters,
# which it checks, are then not those of tests beside it. Exit status 77: skipped, for want of SIPp.
set -euo pipefail
bin="$(realpath "$1")"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

sipp="${KTRUNK_SIPP:-}"
if [[ -z "$sipp" ]] && ! sipp="$(scripts/sipp)"; then
  echo "no SIPp with TLS: scripts/sipp cannot fetch it; KTRUNK_SIPP may name one"
  [[ -z "${CI:-}" ]] || exit 1
  exit 77
fi

rate=100
[[ -z "${KTRUNK_VM_KERNEL:-}" ]] || rate=60 # an emulated processor
command=(scripts/lib/demo-calls "$bin" "$sipp" 1000 "$rate")
if unshare --net ip link set lo up 2>/dev/null; then
  # shellcheck disable=SC2016 # for the inner shell
  exec unshare --net bash -c 'ip link set lo up && exec "$@"' demo "${command[@]}"
fi
exec "${command[@]}"
