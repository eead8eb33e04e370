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
  export CCACHE_BASEDIR="$PWD" CCACHE_NOHASHDIR=1
  ! command -v ccache >/dev/null || launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  cmake --preset "$1" "${launcher[@]}"
}

build_preset() {
  configure_preset "$1"
  cmake --build --preset "$1" --parallel "$(nproc)"
}

check_build() { build_preset release; }

# Tests that a stage leaves out. One that builds a part of them leaves out the rest, which ctest knows by their program.
left_out='_NOT_BUILT$'

# run_ctest STAGE PRESET [PREFIX...]: PREFIX comes before ctest.
run_ctest() {
  local folder="$results/$1" preset="$2"
  shift 2
  printf '%s ctest --test-dir build/%s --output-on-failure' "$*" "$preset" | sed 's/^ *//' >"$folder/repeat"
  "$@" ctest --test-dir "build/$preset" --output-on-failure --no-tests=error --parallel "$(nproc)" \
    --exclude-regex "$left_out" --output-junit "$folder/junit.xml"
}

check_native() {
  build_preset release
  run_ctest native release
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
# What has nothing to do with the older kernel is shown on the newer one.
check_vm_6_12() { check_vm 6.12 'TortureStream|SipRules|Identity|Bench'; }
check_vm_newest() { check_vm newest; }

# The sanitizers of this compiler want the address space laid out as it was before kernels shuffled more of it.
without_shuffle() { if setarch -R true 2>/dev/null; then echo "setarch -R"; fi; }

check_asan() {
  export KTRUNK_TEST_SCALE="${KTRUNK_TEST_SCALE:-10}"
  export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_stack_use_after_return=1:strict_string_checks=1}"
  export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
  build_preset asan
  left_out='_NOT_BUILT$|^outside_project$' # as natively, and slow to build
  # shellcheck disable=SC2046 # two words
  run_ctest asan asan $(without_shuffle)
}

# The tests that have threads of their own over what ktrunk shares between processes: its processes have one thread each.
tsan_targets=(base_tests ipc_tests worker_tests shared_connection_tests handshake_process_tests)

check_tsan() {
  export KTRUNK_TEST_SCALE="${KTRUNK_TEST_SCALE:-10}"
  export TSAN_OPTIONS="${TSAN_OPTIONS:-second_deadlock_stack=1}"
  configure_preset tsan
  cmake --build --preset tsan --parallel "$(nproc)" --target "${tsan_targets[@]}"
  left_out='_NOT_BUILT$|^demo_calls$|^outside_project$'
  # shellcheck disable=SC2046 # two words
  run_ctest tsan tsan $(without_shuffle)
}

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
  local folder="$results/fuzz" targets=() target passed=0 failed=0
  local -A running=()
  configure_preset fuzz
  mapfile -t targets < <(cmake --build --preset fuzz --target help | grep -oE '^fuzz_[A-Za-z0-9_]+' | sort -u)
  ((${#targets[@]})) || die "the preset fuzz has no target fuzz_*"
  cmake --build --preset fuzz --parallel "$(nproc)" --target "${targets[@]}"
  targets=("${targets[@]/#/build/fuzz/bin/}")
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
