# shellcheck shell=bash
# What every script here shares: messages, the cache directory, one lock per thing that is cached.

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

note() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# Downloads and what is made of them live outside the checkout, so that every checkout and every build shares them.
ktrunk_cache() { printf '%s\n' "${KTRUNK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ktrunk}"; }

# with_lock NAME COMMAND...: one process at a time; the lock goes with the process, so a killed run leaves none behind.
with_lock() {
  local file
  file="$(ktrunk_cache)/$1.lock"
  shift
  mkdir -p "${file%/*}"
  (
    flock 9
    "$@"
  ) 9>"$file"
}

# older_than_a_day FILE: also true when there is no such file.
older_than_a_day() { [[ -z "$(find "$1" -mmin -1440 2>/dev/null)" ]]; }
