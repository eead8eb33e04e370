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

# machine_boot RUN: one boot, from start to power-off; sets machine_status, which is that of qemu or of timeout.
machine_boot() {
  local run="$1" index share shares=() out err
  for index in "${!writable[@]}"; do
    share="local,path=${writable[$index]//,/,,},mount_tag=w$index,security_model=none,multidevs=remap"
    shares+=(-virtfs "$share")
  done

  # The output comes through two pipes that end when qemu does, so it is live and nothing of it is lost.
  cat <"$run/out" &
  out=$!
  cat <"$run/err" >&2 &
  err=$!
  # On a busy machine the guest's timer comes late: what would take that for broken hardware is told not to, and the
  # speed of its time stamp counter is measured wrong, which makes timers 20 times too fast: so another clock is used.
  # With --icount there is nothing to disturb it.
  local kernel_options="console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off no_timer_check nowatchdog"
  kernel_options+=" rcupdate.rcu_cpu_stall_suppress=1"
  [[ "${accel[*]}" == *icount* ]] || kernel_options+=" tsc=unstable"
  timeout --kill-after=10 "$limit" qemu-system-x86_64 "${accel[@]}" -cpu max -smp "$cpus" -m "$memory" \
    -kernel "$folder/vmlinuz" -initrd "$folder/initrd-$(initramfs_recipe)" \
    -append "$kernel_options" \
    -display none -monitor none -no-reboot -nic none -serial "file:$run/console" \
    -device virtio-serial-pci \
    -chardev "file,id=out,path=$run/out" -device virtserialport,chardev=out,nr=1 \
    -chardev "file,id=err,path=$run/err" -device virtserialport,chardev=err,nr=2 \
    -virtfs "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap" \
    -virtfs "local,path=$run/share,mount_tag=run,security_model=none" "${shares[@]}" \
    </dev/null >"$run/qemu.log" 2>&1 &
  machine_pid=$!
  machine_status=0
  wait "$machine_pid" || machine_status=$?
  machine_pid=""
  if ((machine_status != 0 && machine_status != 124 && machine_status != 137)); then
    kill "$out" "$err" 2>/dev/null || true # it may have ended before it opened the pipes
    machine_failed 125 "$run" "qemu failed with status $machine_status: $(tail -n 5 "$run/qemu.log")"
  fi
  wait "$out" "$err" || true
}

machine_run() {
  local run tries complaint
  run="$(mktemp -d "${TMPDIR:-/tmp}/ktrunk-vm.XXXXXX")"
  # shellcheck disable=SC2064 # the folder of now
  trap "machine_end $run" EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  mkdir "$run/share"
  machine_files "$run/share" "$@"
  mkfifo "$run/out" "$run/err"
  # A boot that dies before the command was started may be repeated; after that never.
  for tries in 1 2 3; do
    machine_boot "$run"
    [[ ! -e "$run/share/started" && "$machine_status" == 0 && "$tries" != 3 ]] || break
    note "the test machine did not come up, once more: $(machine_complaint "$run")"
  done
  [[ -z "$console" ]] || cat "$run/console" "$run/share/dmesg" >"$console" 2>/dev/null || true
  if [[ ! -s "$run/share/status" ]]; then
    ((machine_status == 0)) ||
      machine_failed 124 "$run" "time ran out after $limit s on kernel ${folder##*/} (--timeout)"
    machine_failed 125 "$run" "the test machine died (kernel ${folder##*/}): $(machine_complaint "$run")"
  fi
  complaint="$(grep -E -m 5 'BUG:|WARNING:|Oops|general protection|refcount_t' "$run/share/dmesg" || true)"
  [[ -z "$complaint" ]] || note "the kernel ${folder##*/} complained (--console FILE keeps all of it): $complaint"
  exit "$(<"$run/share/status")"
}

# machine_complaint RUN: why the machine died, in a line.
machine_complaint() {
  grep -m 1 -oE '(Kernel panic|guest-init: ).*' "$1/console" | tr -d '\r' || echo "no word on its console"
}

machine_end() {
  [[ -z "${machine_pid:-}" ]] || kill "$machine_pid" 2>/dev/null || true
  rm -rf "$1"
}
