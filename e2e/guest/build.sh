#!/bin/bash
# Builds the lab's guest image: CACHE/mnvm.img, a qcow2 disk that SeaBIOS boots (SYSLINUX, Debian's cloud kernel, an
# initramfs of busybox and qemu-guest-agent). Needs neither root nor a loop device; parts are fetched by ../setup.sh.
#
#   build.sh CACHE    nothing happens where the image is newer than what it is made of
set -euo pipefail
export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${1:?usage: build.sh CACHE}
cache=$(cd "$cache" && pwd)
parts=$cache/guest/parts
image=$cache/mnvm.img

up_to_date() {
  local input
  [ -e "$image" ] || return 1
  for input in "$here/init" "$here/shutdown" "$here/chpasswd" "$here/build.sh" "$parts/.complete"; do
    [ "$image" -nt "$input" ] || return 1
  done
}
up_to_date && exit 0
[ -e "$parts/.complete" ] || { echo "guest: no kernel in $parts: run e2e/setup.sh" >&2; exit 1; }
echo "setup: building the guest image"

work=$(mktemp -d "$cache/guest/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
kernel=$(cd "$parts/lib/modules" && echo *)
mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,lib64,etc,modules,root}

# Modules in the order in which insmod takes them.
depmod -b "$parts" "$kernel"
for module in virtio_pci virtio_blk virtio_net virtio_console evdev button i6300esb vfat nls_cp437 nls_ascii; do
  modprobe -d "$parts" -S "$kernel" --show-depends "$module" 2>/dev/null | awk '$1 == "insmod" { print $2 }' || true
done | awk '!seen[$0]++' | while read -r file; do
  cp "$file" "$root/modules/"
  echo "/modules/${file##*/}" >>"$root/etc/modules.order"
done

cp /usr/bin/busybox "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp "$parts/usr/sbin/qemu-ga" "$root/usr/sbin/"
ldd "$parts/usr/sbin/qemu-ga" | grep -o '/[^ ]*' | while read -r library; do
  install -D "$library" "$root$library"
done
# What programs in Rust need beside libc.
install -D /lib/x86_64-linux-gnu/libgcc_s.so.1 "$root/lib/x86_64-linux-gnu/libgcc_s.so.1"
install -m 755 "$here/init" "$root/init"
install -m 755 "$here/shutdown" "$root/sbin/shutdown"
install -m 755 "$here/chpasswd" "$root/sbin/chpasswd"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:*:19000:0:99999:7:::' >"$root/etc/shadow"
echo 'root:x:0:' >"$root/etc/group"
# A fixed time and owner, so that the same parts give the same initramfs.
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | sort | cpio --quiet -o -H newc -R 0:0 --reproducible | gzip -9n) >"$work/initrd.gz"

# 64 MiB: one active FAT partition from sector 2048 on, the last MiB left out of it for the guest's own records.
disk=$work/disk.raw partition=$work/partition.raw
truncate -s 62M "$partition"
mkfs.fat -F 16 -n MNVM -h 2048 "$partition" >/dev/null
# Half of the CPU time of a boot under TCG went into these; the other CPUs are brought up by `init`, once it counts.
fast="maxcpus=1 nokaslr mitigations=off random.trust_cpu=on cryptomgr.notests audit=0 lsm=capability no_timer_check"
fast="$fast lpj=6000000 8250.nr_uarts=1 init_on_alloc=0"
cat >"$work/syslinux.cfg" <<CFG
DEFAULT mnvm
PROMPT 0
TIMEOUT 0
LABEL mnvm
  KERNEL vmlinuz
  INITRD initrd.gz
  APPEND console=ttyS0 quiet loglevel=3 panic=1 $fast
CFG
mcopy -i "$partition" "$parts/boot/vmlinuz-$kernel" ::vmlinuz
mcopy -i "$partition" "$work/initrd.gz" "$work/syslinux.cfg" ::
syslinux --install "$partition"
truncate -s 64M "$disk"
sfdisk -q "$disk" <<<'start=2048, size=126976, type=c, bootable'
dd if=/usr/lib/EXTLINUX/mbr.bin of="$disk" conv=notrunc status=none
dd if="$partition" of="$disk" bs=1M seek=1 conv=notrunc status=none
qemu-img convert -q -O qcow2 "$disk" "$work/mnvm.img"
mv "$work/mnvm.img" "$image"
