#!/bin/bash
# Builds the initramfs of the guest that has a watchdog: busybox, the modules that ../../setup.sh has put aside, and the
# keeper with its libraries. Made anew for every run: the keeper is what is tested.
#
#   build.sh CACHE CONTROLLER INITRD
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage="usage: build.sh CACHE CONTROLLER INITRD"
cache=${1:?$usage} controller=${2:?$usage} initrd=${3:?$usage}
[ -e "$cache/watchdog/.complete" ] || { echo "guest: no kernel in $cache/watchdog: run e2e/setup.sh" >&2; exit 1; }

root=$(mktemp -d "${initrd%/*}/root.XXXXXX")
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,lib64,etc,modules,dev,proc,sys,run,frozen}
cp /usr/bin/busybox "$root/bin/busybox"
# What the keeper takes for a QEMU goes by this name.
ln "$root/bin/busybox" "$root/bin/busybox-qemu"
ln -s busybox "$root/bin/sh"
cp "$cache"/watchdog/modules/* "$root/modules/"
# Nine tenths of a program built for debugging are not needed to run it.
strip --strip-debug -o "$root/bin/zsha-controller" "$controller"
ldd "$controller" | grep -o '/[^ ]*' | while read -r library; do
  install -D "$library" "$root$library"
done
install -m 755 "$here/init" "$root/init"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$initrd"
