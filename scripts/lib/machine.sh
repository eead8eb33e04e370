# shellcheck shell=bash
# One boot of the test machine, for scripts/vm, whose settings it uses:
# kernel folder cpus memory limit console accel environment writable caller_folder cache.

# /tmp is a file system of the guest's own, unless that would hide what the command needs.
machine_tmpfs_tmp() {
  local needed
  for needed in "$caller_folder" "$cache" "${writable[@]}"; do
    [[ "$needed" != /tmp && "$needed" != /tmp/* ]] || { echo 0 && return; }
  done
  echo 1
}

# machine_files RUN COMMAND...: what guest-run reads.
machine_files() {
  local run="$1" name setting
  shift
  cp scripts/lib/guest-run "$run/guest-run"
  {
    printf 'guest_modules=%q\n' "$folder/lib/modules/${folder##*/}"
    printf 'guest_tmpfs_tmp=%s\n' "$(machine_tmpfs_tmp)"
    printf 'guest_writable=('
    ((${#writable[@]} == 0)) || printf '%q ' "${writable[@]}"
    printf ')\n'
  } >"$run/settings"
  {
    for name in PATH HOME LANG CI "${!KTRUNK_@}"; do
      [[ -z "${!name+set}" ]] || printf 'export %s=%q\n' "$name" "${!name}"
    done
    printf 'export KTRUNK_CACHE=%q KTRUNK_EXPECT_KTLS=1 KTRUNK_VM_KERNEL=%q TERM=dumb\n' "$cache" "${folder##*/}"
    for setting in "${environment[@]}"; do
      [[ "$setting" =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || die "--env takes NAME=VALUE, not \"$setting\""
      printf 'export %s=%q\n' "${setting%%=*}" "${setting#*=}"
    done
    printf 'cd %q || exit 126\n' "$caller_folder"
    printf 'exec'
    printf ' %q' "$@"
    printf '\n'
  } >"$run/command"
}

machine_failed() {
  local code="$1" run="$2"
  shift 2
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  printf '  the last lines of its console:\n' >&2
  tail -n 30 "$run/console" 2>/dev/null | tr -d '\r' | sed 's/^/  | /' >&2
  exit "$code"
}

machine_run() {
  local share run index qemu=0 shares=() complaint
  run="$(mktemp -d "${TMPDIR:-/tmp}/ktrunk-vm.XXXXXX")"
  # shellcheck disable=SC2064 # the folder of now
  trap "machine_end $run" EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  mkdir "$run/share"
  machine_files "$run/share" "$@"
  for index in "${!writable[@]}"; do
    share="local,path=${writable[$index]//,/,,},mount_tag=w$index,security_model=none,multidevs=remap"
    shares+=(-virtfs "$share")
  done

  # The output comes through two pipes that end when qemu does, so it is live and nothing of it is lost.
  mkfifo "$run/out" "$run/err"
  cat <"$run/out" &
  local out=$!
  cat <"$run/err" >&2 &
  local err=$!
  timeout --kill-after=10 "$limit" qemu-system-x86_64 "${accel[@]}" -cpu max -smp "$cpus" -m "$memory" \
    -kernel "$folder/vmlinuz" -initrd "$folder/initrd-$(initramfs_recipe)" \
    -append "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off" \
    -display none -monitor none -no-reboot -nic none -serial "file:$run/console" \
    -device virtio-serial-pci \
    -chardev "file,id=out,path=$run/out" -device virtserialport,chardev=out,nr=1 \
    -chardev "file,id=err,path=$run/err" -device virtserialport,chardev=err,nr=2 \
    -virtfs "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap" \
    -virtfs "local,path=$run/share,mount_tag=run,security_model=none" "${shares[@]}" \
    </dev/null >"$run/qemu.log" 2>&1 &
  machine_pid=$!
  wait "$machine_pid" || qemu=$?
  machine_pid=""
  if ((qemu != 0 && qemu != 124 && qemu != 137)); then
    kill "$out" "$err" 2>/dev/null || true # it may have ended before it opened the pipes
    machine_failed 125 "$run" "qemu failed with status $qemu: $(tail -n 5 "$run/qemu.log")"
  fi
  wait "$out" "$err" || true
  [[ -z "$console" ]] || cat "$run/console" "$run/share/dmesg" >"$console" 2>/dev/null || true
  if [[ ! -s "$run/share/status" ]]; then
    ((qemu == 0)) || machine_failed 124 "$run" "time ran out after $limit s on kernel ${folder##*/} (--timeout)"
    complaint="$(grep -m 1 -oE '(Kernel panic|guest-init: ).*' "$run/console" | tr -d '\r' || true)"
    machine_failed 125 "$run" "the test machine died (kernel ${folder##*/}): ${complaint:-no word on its console}"
  fi
  complaint="$(grep -E -m 5 'BUG:|WARNING:|Oops|general protection|refcount_t' "$run/share/dmesg" || true)"
  [[ -z "$complaint" ]] || note "the kernel ${folder##*/} complained (--console FILE keeps all of it): $complaint"
  exit "$(<"$run/share/status")"
}

machine_end() {
  [[ -z "${machine_pid:-}" ]] || kill "$machine_pid" 2>/dev/null || true
  rm -rf "$1"
}
