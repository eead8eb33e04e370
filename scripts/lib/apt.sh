# shellcheck shell=bash
# Packages of other Debian suites, without touching this machine's apt: lists, cache and sources of our own.
# Needs lib/common.sh.

APT_MIRROR="http://deb.debian.org"
APT_KEYRING="/usr/share/keyrings/debian-archive-keyring.gpg"

# apt_root NAME SOURCE: makes the private apt root NAME with one source ("debian trixie-backports") and prints its folder.
apt_root() {
  local root archive suite
  root="$(ktrunk_cache)/apt/$1"
  read -r archive suite <<<"$2"
  mkdir -p "$root/state/lists/partial" "$root/cache/archives/partial"
  printf 'deb [arch=amd64 signed-by=%s] %s/%s %s main\n' "$APT_KEYRING" "$APT_MIRROR" "$archive" "$suite" \
    >"$root/sources.list"
  cat >"$root/apt.conf" <<EOF
Dir::State "$root/state";
Dir::State::Lists "$root/state/lists";
Dir::State::status "/dev/null";
Dir::Cache "$root/cache";
Dir::Etc::sourcelist "$root/sources.list";
Dir::Etc::sourceparts "/dev/null";
APT::Architecture "amd64";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
APT::Update::Post-Invoke-Success "";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update::Post-Invoke-Success;
#clear APT::Update::Post-Invoke;
EOF
  printf '%s\n' "$root"
}

# apt_in ROOT COMMAND...: an apt command that sees the private root alone.
apt_in() {
  local root="$1"
  shift
  APT_CONFIG="$root/apt.conf" "$@"
}

# apt_refresh ROOT: fetches the package lists; false when that fails, with apt's words in ROOT/update.log.
apt_refresh() { apt_in "$1" apt-get update >"$1/update.log" 2>&1; }

# apt_unpack ROOT FOLDER PACKAGE...: downloads packages and unpacks them, not installs them, into FOLDER.
apt_unpack() {
  local root="$1" folder="$2" package debs
  shift 2
  debs="$(mktemp -d "$root/debs.XXXXXX")"
  (cd "$debs" && apt_in "$root" apt-get -qq download "$@" >"$root/download.log" 2>&1) || {
    rm -rf "$debs"
    die "cannot download $* from $APT_MIRROR:
$(grep '^E:' "$root/download.log" || tail -n 3 "$root/download.log")
  Is the network there? Try: APT_CONFIG=$root/apt.conf apt-get update, then the same command again."
  }
  mkdir -p "$folder"
  for package in "$debs"/*.deb; do
    dpkg-deb -x "$package" "$folder" || die "cannot unpack ${package##*/}: is the disk full? (df $folder)"
  done
  rm -rf "$debs"
}
