# shellcheck shell=bash
# The initial file system of the test machine: a static busybox, the modules it needs in load order, guest-init.
# Needs lib/common.sh.

# The first are needed to reach the host's files; without the others something that a test wants may be missing,
# and some kernels have them built in or under another name.
INITRAMFS_REQUIRED="virtio_pci 9pnet_virtio 9p overlay virtio_console tls"
INITRAMFS_WANTED="aesni_intel gcm ccm chacha20poly1305 veth"

# initramfs_recipe: changes whenever what initramfs_build makes would.
initramfs_recipe() {
  cat scripts/lib/initramfs.sh scripts/lib/guest-init /bin/busybox | sha256sum | cut -c 1-16
}

# initramfs_build ROOT RELEASE OUTPUT: ROOT holds lib/modules/RELEASE.
initramfs_build() {
  local root="$1" release="$2" output="$3" tree name kind path number=100
  tree="$(mktemp -d)"
  mkdir -p "$tree"/{bin,dev,proc,sys,modules,lower,upper,root}
  cp /bin/busybox "$tree/bin/busybox"
  cp scripts/lib/guest-init "$tree/init"
  chmod 755 "$tree/init"
  for name in $INITRAMFS_REQUIRED $INITRAMFS_WANTED; do
    if ! modprobe -d "$root" -S "$release" --show-depends "$name" >"$tree/depends" 2>/dev/null; then
      [[ " $INITRAMFS_REQUIRED " != *" $name "* ]] || die "the kernel $release has no module $name"
      continue
    fi
    while read -r kind path _; do
      [[ "$kind" == insmod ]] || continue
      name="${path##*/}"
      name="${name%%.ko*}"
      compgen -G "$tree/modules/*-$name.ko" >/dev/null && continue
      number=$((number + 1))
      case "$path" in
        *.xz) xz -dc "$path" ;;
        *.zst) zstd -qdc "$path" ;;
        *) cat "$path" ;;
      esac >"$tree/modules/$number-$name.ko"
    done <"$tree/depends"
  done
  rm -f "$tree/depends"
  (cd "$tree" && find . | cpio -o -H newc --quiet | gzip -1) >"$output.part"
  mv "$output.part" "$output"
  rm -rf "$tree"
}
