# shellcheck shell=bash
# Runs the stages of scripts/test one after the other: progress, results, and how to repeat what failed.
# A stage is a function. What it says goes to build/results/STAGE/log; it may leave there junit.xml (from ctest) or
# count ("PASSED FAILED SKIPPED"), and the command that repeats its tests, up to the choice of tests, in "repeat".
# Needs lib/common.sh, lib/junit.sh.

results="$PWD/build/results"
stage_names=() stage_rows=()
sum_passed=0 sum_failed=0 sum_skipped=0
stage_pid="" stage_ok=1

stages_interrupted() {
  [[ -z "$stage_pid" ]] || kill -TERM -- "-$stage_pid" 2>/dev/null || true
  exit 130
}
trap stages_interrupted INT TERM HUP

# stage_wait LOG START: until the stage ends, a line every half minute; the exit status is the stage's.
stage_wait() {
  local log="$1" start="$2" next=30
  while kill -0 "$stage_pid" 2>/dev/null; do
    sleep 0.5
    if ((SECONDS - start >= next)); then
      printf '   %4d s  %.100s\n' "$((SECONDS - start))" "$(tail -n 1 "$log" | tr -d '\r')"
      next=$((next + 30))
    fi
  done
  wait "$stage_pid"
}

# stage_explain NAME FOLDER: what failed and the command to repeat just that.
stage_explain() {
  local name="$1" folder="$2" failed repeat="bash scripts/test --stage $1"
  failed="$(junit_failed "$folder/junit.xml")"
  if [[ -n "$failed" && -s "$folder/repeat" ]]; then
    repeat="$(<"$folder/repeat") -R '$(junit_pattern <<<"$failed")'"
  fi
  printf -- '-- %s: the end of its log (build/results/%s/log), tests that passed left out\n' "$name" "$name"
  grep -vE '^ +Start +[0-9]+:| (Passed|\*\*\*Skipped) +[0-9.]+ sec$|^\[[0-9]+/[0-9]+\] ' "$folder/log" | tail -n 120 || true
  [[ -z "$failed" ]] || printf -- '-- %s: failed:\n%s\n' "$name" "$failed"
  printf -- '-- %s: to repeat: %s\n' "$name" "$repeat"
}

# stage NAME TITLE FUNCTION: sets stage_ok. Never call it where its status is tested (if, ||, !): bash then runs the
# function to its end whatever fails in it, set -e or not.
stage() {
  local name="$1" title="$2" start="$SECONDS" status=0 verdict=ok folder="$results/$1" passed=0 failed=0 skipped=0
  rm -rf "$folder"
  mkdir -p "$folder"
  printf '== %s: %s\n' "$name" "$title"
  set -m # a process group of its own, so that an interrupt reaches all of it
  ("$3") </dev/null >"$folder/log" 2>&1 &
  stage_pid=$!
  set +m
  stage_wait "$folder/log" "$start" || status=$?
  stage_pid=""
  if [[ -s "$folder/count" ]]; then
    read -r passed failed skipped <"$folder/count"
  else
    read -r passed failed skipped < <(junit_count "$folder/junit.xml")
  fi
  if ((status)); then
    verdict=FAILED
    ((failed)) || failed=1 # the stage itself
    stage_explain "$name" "$folder"
  fi
  sum_passed=$((sum_passed + passed)) sum_failed=$((sum_failed + failed)) sum_skipped=$((sum_skipped + skipped))
  stage_row "$name" "$verdict" "$passed" "$failed" "$skipped" "$((SECONDS - start))"
  printf '== %s: %s, %d passed, %d failed, %d skipped, %d s\n' \
    "$name" "$verdict" "$passed" "$failed" "$skipped" "$((SECONDS - start))"
  stage_ok=$((status == 0))
}

stage_row() {
  stage_names+=("$1")
  stage_rows+=("$(printf '%-10s %-7s %7s %7s %8s %6s s' "$@")")
}

# stages_report: the table, and as the last line the sum; false when anything failed.
stages_report() {
  printf '\n%-10s %-7s %7s %7s %8s %8s\n' stage result passed failed skipped time
  printf '%s\n' "${stage_rows[@]}"
  printf '\n%d passed, %d failed, %d skipped\n' "$sum_passed" "$sum_failed" "$sum_skipped"
  ((sum_failed == 0))
}
