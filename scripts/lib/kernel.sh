# shellcheck shell=bash
# Debian kernels with TLS sockets, downloaded and unpacked into the cache. Needs lib/common.sh, apt.sh, initramfs.sh.
#   6.12    what linux-image-6.12-amd64 of bookworm-security depends on: keys are set once per connection
#   newest  the newest in trixie-backports: keys can be replaced (since 6.14)

# kernel_offer NAME ROOT: prints "RELEASE PACKAGE..." as the archive has it now.
kernel_offer() {
  local release package offer
  if [[ "$1" == 6.12 ]]; then
    package="$(apt_in "$2" apt-cache depends linux-image-6.12-amd64 | sed -n 's/^ *Depends: \(linux-image-6.*\)/\1/p')"
    [[ -z "$package" ]] || printf '%s %s\n' "${package#linux-image-}" "$package"
    return
  fi
  apt_in "$2" apt-cache dumpavail | sed -n 's/^Package: //p' | sort -u >"$2/available"
  while read -r release; do
    grep -qx "linux-modules-$release" "$2/available" || continue
    offer="$release linux-binary-$release linux-modules-$release"
    # The lists of what is built in (modules.builtin), where they are a package of their own.
    ! grep -qx "linux-base-$release" "$2/available" || offer+=" linux-base-$release"
    printf '%s\n' "$offer"
    return
  done < <(sed -nE 's/^linux-binary-([0-9][0-9.]*\+deb[0-9]+-amd64)$/\1/p' "$2/available" | sort -rV)
}

# kernel_install NAME CHECK: makes sure that the kernel is in the cache and says which in kernels/NAME.release.
# CHECK: "daily" asks the archive at most once a day, "now" always. Without a network the cached one is used.
kernel_install() {
  local name="$1" check="$2" kernels root offer release source="debian trixie-backports"
  kernels="$(ktrunk_cache)/kernels"
  mkdir -p "$kernels"
  if [[ -s "$kernels/$name.release" && "$check" == daily ]] && ! older_than_a_day "$kernels/$name.release"; then
    return
  fi
  [[ "$name" != 6.12 ]] || source="debian-security bookworm-security"
  root="$(apt_root "kernel-$name" "$source")"
  if ! apt_refresh "$root"; then
    [[ -s "$kernels/$name.release" ]] || die "cannot read the package list of $source for the $name kernel:
$(tail -n 3 "$root/update.log")
  Is the network there? Then the same command again."
    note "package list not reachable; using the cached kernel $(<"$kernels/$name.release")"
    return
  fi
  offer="$(kernel_offer "$name" "$root")"
  [[ -n "$offer" ]] || die "no kernel \"$name\" for amd64 in $source; see: APT_CONFIG=$root/apt.conf apt-cache pkgnames linux-"
  release="${offer%% *}"
  if [[ ! -e "$kernels/$release/vmlinuz" ]]; then
    note "downloading ${offer#* } (about 110 MB)"
    rm -rf "$kernels/$release.part"
    # shellcheck disable=SC2086 # a list of package names
    apt_unpack "$root" "$kernels/$release.part" ${offer#* }
    kernel_arrange "$kernels/$release.part" "$release"
    mv "$kernels/$release.part" "$kernels/$release"
  fi
  printf '%s\n' "$release" >"$kernels/$name.release"
}

# kernel_arrange FOLDER RELEASE: brings the two layouts that Debian's packages have to one: vmlinuz, lib/modules.
kernel_arrange() {
  local folder="$1" release="$2" image
  [[ ! -d "$folder/usr/lib/modules" ]] || { mkdir -p "$folder/lib" && mv "$folder/usr/lib/modules" "$folder/lib/"; }
  image="$(find "$folder" -type f \( -name "vmlinuz-$release" -o -name vmlinuz \) | head -n 1)"
  [[ -n "$image" ]] || die "the packages of $release hold no vmlinuz"
  depmod -b "$folder" "$release"
  mv "$image" "$folder/vmlinuz.part"
  rm -rf "${folder:?}"/{boot,usr}
  mv "$folder/vmlinuz.part" "$folder/vmlinuz"
}

# kernel_prepare NAME CHECK: as kernel_install, and its initramfs too.
kernel_prepare() {
  local folder initrd
  kernel_install "$1" "$2"
  folder="$(ktrunk_cache)/kernels/$(<"$(ktrunk_cache)/kernels/$1.release")"
  initrd="$folder/initrd-$(initramfs_recipe)"
  [[ -e "$initrd" ]] || initramfs_build "$folder" "${folder##*/}" "$initrd"
}
