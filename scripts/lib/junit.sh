# shellcheck shell=bash
# What a ctest run came to, read from the JUnit file it wrote.

# junit_count FILE: prints "PASSED FAILED SKIPPED"; a file that is not there counts as no test.
junit_count() {
  local total failed disabled skipped
  junit_attribute() { grep -m 1 -oE "\\b$1=\"[0-9]+\"" "$2" 2>/dev/null | tr -dc '0-9' || echo 0; }
  total="$(junit_attribute tests "$1")"
  failed="$(junit_attribute failures "$1")"
  disabled="$(junit_attribute disabled "$1")"
  skipped="$(junit_attribute skipped "$1")"
  skipped=$((skipped + disabled))
  printf '%d %d %d\n' $((total - failed - skipped)) "$((failed))" "$skipped"
}

# junit_failed FILE: the names of the tests that failed, one a line.
junit_failed() {
  [[ -e "$1" ]] || return 0
  sed -nE 's/.*<testcase name="([^"]*)".* status="fail".*/\1/p' "$1" |
    sed -e 's/&lt;/</g; s/&gt;/>/g; s/&quot;/"/g; s/&apos;/'"'"'/g; s/&amp;/\&/g'
}

# junit_pattern: from names on stdin, the regular expression for ctest -R that matches those tests and no other.
# shellcheck disable=SC2016 # a character class, no variable
junit_pattern() { sed -E 's/[][\.*^$()+?{}|]/\\&/g' | paste -s -d '|' | sed -E 's/(.*)/^(\1)$/'; }
