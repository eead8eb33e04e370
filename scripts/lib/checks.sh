# shellcheck shell=bash
# The stages of scripts/test, as functions; build_preset is useful alone. Needs lib/common.sh; the stages lib/stages.sh.

results="${results:-$PWD/build/results}" own_ktls="${own_ktls:-0}"

kernel_has_ktls() {
  modprobe tls 2>/dev/null || true # loaded already, built in, or not there: the next line tells
  [[ -e /proc/net/tls_stat ]]
}

check_packages() {
  scripts/packages build test
  scripts/sipp # the system tests' caller; where they run there may be no network
  ! is_chosen style || scripts/packages style
  ! is_chosen fuzz || scripts/packages fuzz
  if ((!own_ktls)) && { is_chosen vm-6.12 || is_chosen vm-newest; }; then scripts/vm --prepare; fi
}

check_style() { scripts/lint --fast; }

configure_preset() {
  local launcher=()
  # One cache for all checkouts: paths in what is compiled are taken relative to each.
  export CCACHE_BASEDIR="$PWD" CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros
  ! command -v ccache >/dev/null || launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  cmake --preset "$1" "${launcher[@]}"
}

# build_preset PRESET: all of it, or the targets that the stage of this name runs.
build_preset() {
  local targets=()
  configure_preset "$1"
  case "$1" in
    tsan) targets=(--target "${tsan_targets[@]}") ;;
    fuzz) targets=(--target "${fuzz_targets[@]}") ;;
  esac
  cmake --build --preset "$1" --parallel "$(nproc)" "${targets[@]}"
}

check_build() { build_preset release; }

# beside "STAGE..." COMMAND...: the command, mostly one that waits, and meanwhile the builds of these later stages, those of
# them that are chosen, with what it leaves of the processors. The exit status is the command's: a build that fails does so
# again in its stage, and is explained there.
beside() {
  local later builder status=0
  (
    renice -n 19 "$BASHPID" >/dev/null
    for later in $1; do
      ! is_chosen "$later" || build_preset "$later" || true
    done
  ) >"$results/beside.log" 2>&1 &
  builder=$!
  "${@:2}" || status=$?
  wait "$builder" || true
  return "$status"
}

# Tests that a stage leaves out. One that builds a part of them leaves out the rest, which ctest knows by their program.
left_out='_NOT_BUILT$'

# run_ctest STAGE PRESET [PREFIX...]: PREFIX comes before ctest.
run_ctest() {
  local folder="$results/$1" preset="$2"
  shift 2
  printf '%s ctest --test-dir build/%s --output-on-failure' "$*" "$preset" | sed 's/^ *//' >"$folder/repeat"
  # One more than there are processors: most tests wait most of the time.
  "$@" ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --parallel "$(($(nproc) + 1))" \
    --exclude-regex "$left_out" --output-junit "$folder/junit.xml"
}

check_native() {
  build_preset release
  beside asan run_ctest native release
}

# check_vm KERNEL [LEFT_OUT]: the tests that this kernel cannot show; those labelled kernel must not skip there. LEFT_OUT:
# a regular expression of test names.
check_vm() {
  local folder="$results/vm-$1" command=(ctest --test-dir build/release --output-on-failure)
  build_preset release
  # Here, with the native speed, ctest asks the programs for their tests if it has not yet.
  "${command[@]}" --show-only >/dev/null
  printf 'scripts/vm --kernel %s %s' "$1" "${command[*]}" >"$folder/repeat"
  scripts/vm --kernel "$1" --write "$folder" --timeout 2400 --env "KTRUNK_TEST_SCALE=${KTRUNK_TEST_SCALE:-8}" \
    "${command[@]}" --no-tests=error --label-regex '^(kernel|system)$' --exclude-regex "${2:-$left_out}" --parallel 2 \
    --output-junit "$folder/junit.xml"
}
# Emulated, a test takes ten times as long: the call flows run over TLS at both ends, their other transports natively, and
# so does what ends before a record is sent. What has nothing to do with the older kernel is shown on the newer one.
no_matter_of_records='CallFlows.*/(TlsUdp|TcpTls)_|Identity|PeerSources|Restart|IpVersions|Bench'
check_vm_6_12() {
  local rules='TortureStream|SipRules|TrunkState|TrunkFailover'
  local tools='Trace|Hep|Programs|Kamailio|CallFlows'
  local processes='Relapse|NextVersions|SkewedLoad|HandshakeCrashPoints|IdleConnections|DaemonEndings'
  check_vm 6.12 "$left_out|$no_matter_of_records|$rules|$tools|$processes"
}
check_vm_newest() { check_vm newest "$left_out|$no_matter_of_records"; }

# The sanitizers of this compiler want the address space laid out as it was before kernels shuffled more of it.
without_shuffle() { if setarch -R true 2>/dev/null; then echo "setarch -R"; fi; }

check_asan() {
  export KTRUNK_TEST_SCALE="${KTRUNK_TEST_SCALE:-10}"
  export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1}"
  export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
  build_preset asan
  left_out='_NOT_BUILT$|^outside_project$' # as natively, and slow to build
  # shellcheck disable=SC2046 # two words
  beside "tsan fuzz" run_ctest asan asan $(without_shuffle)
}

# The tests that have threads of their own over what ktrunk shares between processes: its processes have one thread each.
tsan_targets=(base_tests ipc_tests worker_tests shared_connection_tests handshake_process_tests)

check_tsan() {
  export KTRUNK_TEST_SCALE="${KTRUNK_TEST_SCALE:-10}"
  export TSAN_OPTIONS="${TSAN_OPTIONS:-second_deadlock_stack=1}"
  build_preset tsan
  left_out='_NOT_BUILT$|^demo_calls$|^outside_project$'
  # shellcheck disable=SC2046 # two words
  run_ctest tsan tsan $(without_shuffle)
}

fuzz_targets=(tests/fuzz/fuzz_*.cc)
fuzz_targets=("${fuzz_targets[@]##*/}") fuzz_targets=("${fuzz_targets[@]%.cc}")

# fuzz_one TARGET FOLDER: new inputs go to the build folder, the checkout's corpus is only read.
fuzz_one() {
  local name="${1##*/}" corpus=() seeds=() candidate
  for candidate in "tests/fuzz/corpus/$name" "tests/fuzz/corpus/${name#fuzz_}"; do
    [[ ! -d "$candidate" ]] || corpus+=("$candidate")
  done
  [[ "$name" != fuzz_config ]] || seeds=("-seed_inputs=$(
    IFS=,
    presets=(examples/*.toml)
    printf '%s' "${presets[*]}"
  )")
  mkdir -p "build/fuzz/corpus/$name"
  "$1" -max_total_time="${KTRUNK_FUZZ_SECONDS:-30}" -timeout=20 -rss_limit_mb=3072 -print_final_stats=1 \
    -artifact_prefix="$2/$name-" "${seeds[@]}" "build/fuzz/corpus/$name" "${corpus[@]}" >"$2/$name.log" 2>&1
}

check_fuzz() {
  local folder="$results/fuzz" targets=("${fuzz_targets[@]/#/build/fuzz/bin/}") target passed=0 failed=0
  local -A running=()
  build_preset fuzz
  while ((${#targets[@]} || ${#running[@]})); do
    while ((${#targets[@]} && ${#running[@]} < $(nproc))); do
      fuzz_one "${targets[0]}" "$folder" &
      running[$!]="${targets[0]}"
      targets=("${targets[@]:1}")
    done
    for target in "${!running[@]}"; do
      kill -0 "$target" 2>/dev/null && continue
      if wait "$target"; then
        passed=$((passed + 1))
        printf '%s: %s\n' "${running[$target]}" "$(grep -oE 'number_of_executed_units.*' "$folder/${running[$target]##*/}.log")"
      else
        failed=$((failed + 1))
        tail -n 60 "$folder/${running[$target]##*/}.log"
        printf '%s failed; to repeat: %s %s\n' "${running[$target]}" "${running[$target]}" \
          "$(compgen -G "$folder/${running[$target]##*/}-*" | head -n 1)"
      fi
      unset "running[$target]"
    done
    sleep 0.2
  done
  printf '%d %d 0\n' "$passed" "$failed" >"$folder/count"
  ((failed == 0))
}
