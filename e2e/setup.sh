#!/bin/bash
# What the end-to-end lab needs, installed where it is missing: libvirt, QEMU, Consul, a guest image; and Ceph, unpacked.
#
#   e2e/setup.sh          install what is missing, then build the guest image
#   e2e/setup.sh --check  install nothing: name what is missing, exit 1 if anything is
#
# Idempotent, and quick where nothing is missing. System packages come from the machine's own Debian
# sources, asked of apt, so this file names no host. Everything that is only unpacked or built (Consul, the guest's
# kernel and agent, the image) goes under ZSHA_LAB_CACHE, by default <repository>/target/lab.
set -euo pipefail
export LC_ALL=C DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin:/sbin"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${ZSHA_LAB_CACHE:-$(dirname "$here")/target/lab}
apt_dir=$cache/apt
log=$cache/setup.log

# package:file it brings. The file decides, so a machine that has it from elsewhere is left alone.
wanted=(
  gcc:/usr/bin/cc libc6-dev:/usr/include/stdio.h make:/usr/bin/make pkg-config:/usr/bin/pkg-config
  libvirt-dev:/usr/include/libvirt/libvirt.h
  libvirt-daemon:/usr/sbin/libvirtd
  libvirt-daemon-driver-qemu:/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so
  libvirt-daemon-system:/etc/libvirt/libvirtd.conf
  libvirt-clients:/usr/bin/virsh
  qemu-system-x86:/usr/bin/qemu-system-x86_64
  qemu-utils:/usr/bin/qemu-img
  iproute2:/usr/bin/ip util-linux:/usr/bin/nsenter kmod:/usr/bin/lsmod
  iputils-ping:/usr/bin/ping openssl:/usr/bin/openssl
  busybox-static:/usr/bin/busybox cpio:/usr/bin/cpio xz-utils:/usr/bin/xz
  syslinux:/usr/bin/syslinux extlinux:/usr/lib/EXTLINUX/mbr.bin
  systemd:/lib/systemd/systemd dbus:/usr/bin/dbus-daemon openssh-server:/usr/sbin/sshd openssh-client:/usr/bin/ssh-keygen
  iptables:/usr/sbin/iptables nftables:/usr/sbin/nft
  python3:/usr/bin/python3
  mtools:/usr/bin/mcopy dosfstools:/usr/sbin/mkfs.fat fdisk:/usr/sbin/sfdisk
)

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

missing_packages() {
  local entry
  for entry in "${wanted[@]}"; do
    [ -e "${entry#*:}" ] || printf '%s\n' "${entry%%:*}"
  done
}

have_consul() { command -v consul >/dev/null || [ -x "$cache/consul/usr/bin/consul" ]; }
have_faketime() { [ -e "$cache/faketime/libfaketimeMT.so.1" ]; }
have_watchdog_parts() { [ -e "$cache/watchdog/.complete" ]; }
have_ceph() { [ -e "$cache/ceph/.complete" ]; }
have_guest_parts() { [ -e "$cache/guest/parts/.complete" ]; }

# URI of the archive this machine takes its own release from: first word of what apt says about <release>/main.
archive_uri() {
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null |
    awk -v r="$release" '$2 == r && $3 == "main" { print $1; exit }'
}

# apt with one extra suite in a source list and package lists of its own, so that nothing of that suite can come in by a
# later, ordinary `apt-get install`. usage: apt_with SUITE alone|beside ARGS...
apt_with() {
  local suite=$1 mode=$2 dir=$apt_dir/$1 parts=/dev/null; shift 2
  mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$(archive_uri)" "$suite" >"$dir/list"
  if [ "$mode" = beside ]; then
    parts=/etc/apt/sources.list.d
    [ ! -e /etc/apt/sources.list ] || cat /etc/apt/sources.list >>"$dir/list"
  fi
  apt-get -q -o Dir::Etc::sourcelist="$dir/list" -o Dir::Etc::sourceparts="$parts" \
    -o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" -o APT::Sandbox::User=root "$@"
}

# Long output of apt goes to a log; when it fails, its end is shown.
quietly() {
  local what=$1; shift
  say "$what"
  if ! "$@" >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    die "failed: $what (whole output in $log)"
  fi
}

install_packages() {
  local plain=() qemu=() package
  for package in $(missing_packages); do
    case $package in
      # A qemu-utils from backports holds back the release's own QEMU: then both have to come from backports.
      qemu-system-x86 | qemu-utils) qemu+=("$package") ;;
      *) plain+=("$package") ;;
    esac
  done
  quietly "apt-get update" apt-get -q update
  local install=(install -y --no-install-recommends --no-remove)
  if [ ${#plain[@]} -gt 0 ]; then
    # libvirt's service must not come up on a machine where the lab starts its own.
    quietly "installing ${plain[*]}" without_services apt-get -q "${install[@]}" "${plain[@]}"
  fi
  if [ ${#qemu[@]} -gt 0 ]; then
    if dpkg-query -W -f '${Version}\n' 'qemu-*' 2>/dev/null | grep -q 'bpo'; then
      local backports=$release-backports
      quietly "apt-get update ($backports, lists of its own)" apt_with "$backports" beside update
      quietly "installing ${qemu[*]} from $backports, as the QEMU tools here are" \
        apt_with "$backports" beside "${install[@]}" -t "$backports" "${qemu[@]}" qemu-system-common
    else
      quietly "installing ${qemu[*]}" apt-get -q "${install[@]}" "${qemu[@]}"
    fi
  fi
}

# Debian's way to keep a package's service from starting at its installation.
without_services() {
  local policy=/usr/sbin/policy-rc.d status=0
  if [ -e "$policy" ]; then "$@"; return; fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"
  "$@" || status=$?
  rm -f "$policy"
  return $status
}

# Debian 12 has no Consul; Debian 11's runs on it.
unpack_consul() {
  local suite=bullseye dir=$cache/consul.new
  rm -rf "$dir"; mkdir -p "$dir/deb"
  quietly "apt-get update ($suite, lists of its own)" apt_with "$suite" alone update
  cd "$dir/deb"
  quietly "fetching consul" apt_with "$suite" alone download consul
  dpkg -x consul_*.deb "$dir"
  cd "$here"; rm -rf "$dir/deb" "$cache/consul" "$apt_dir/$suite"; mv "$dir" "$cache/consul"
}

# A package of the machine's own release, unpacked into a directory and never installed. usage: unpack DIR PACKAGE...
unpack() {
  local dir=$1 deb; shift
  mkdir -p "$dir/deb"
  cd "$dir/deb"
  if ! apt-get -q -o APT::Sandbox::User=root download "$@" >>"$log" 2>&1; then
    quietly "apt-get update" apt-get -q update
    quietly "fetching $*" apt-get -q -o APT::Sandbox::User=root download "$@"
  fi
  for deb in *.deb; do dpkg -x "$deb" "$dir"; done
  cd "$here"; rm -rf "$dir/deb"
}

# By this library a process sees another wall clock than the machine's.
unpack_faketime() {
  local dir=$cache/faketime.new
  rm -rf "$dir"
  say "fetching libfaketime"
  unpack "$dir" libfaketime
  mkdir -p "$cache/faketime"
  mv "$dir"/usr/lib/*/faketime/libfaketimeMT.so.1 "$cache/faketime/"
  rm -rf "$dir"
}

# The kernel package that this one leads to. usage: kernel META PATTERN
kernel() {
  local package
  [ -n "$(apt-cache search --names-only "^$1\$")" ] || quietly "apt-get update" apt-get -q update
  package=$(apt-cache depends "$1" | awk -v p="$2" '$1 == "Depends:" && $2 ~ p { print $2; exit }')
  [ -n "$package" ] || die "apt knows no $1: is Debian's main component in the sources?"
  printf %s "$package"
}

# The kernel of the guest that has a watchdog (the cloud kernel has no driver of a real one). Of half a gigabyte only the
# image is kept, and these modules, numbered as insmod takes them.
unpack_watchdog_parts() {
  local dir=$cache/watchdog.new package version number=10 file
  rm -rf "$dir"
  package=$(kernel linux-image-amd64 '^linux-image-.*-amd64$')
  version=${package#linux-image-}
  say "fetching $package"
  unpack "$dir/whole" "$package"
  depmod -b "$dir/whole" "$version"
  mkdir -p "$dir/modules"
  for module in virtio_pci virtio_net brd ext4 i6300esb; do
    modprobe -d "$dir/whole" -S "$version" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
  done | awk '!seen[$0]++' | while read -r file; do
    cp "$file" "$dir/modules/$number-${file##*/}"; number=$((number + 1))
  done
  cp "$dir/whole/boot/vmlinuz-$version" "$dir/vmlinuz"
  rm -rf "$dir/whole" "$cache/watchdog"; touch "$dir/.complete"; mv "$dir" "$cache/watchdog"
}

# A Ceph server, its client and QEMU's driver for it. Of QEMU's own version: a module of another is not loaded.
unpack_ceph() {
  local dir=$cache/ceph.new version
  rm -rf "$dir"
  say "fetching Ceph"
  unpack "$dir/root" ceph-mon ceph-osd ceph-base ceph-common librados2 librbd1 libboost-thread1.74.0 libfmt9 libleveldb1d \
    libsnappy1v5 libfuse2 libboost-iostreams1.74.0 libboost-program-options1.74.0 libncurses6 python3-rados python3-ceph-argparse python3-prettytable python3-wcwidth
  version=$(dpkg-query -W -f '${Version}' qemu-system-x86)
  mkdir -p "$dir/qemu"
  cd "$dir/qemu"
  case $version in
    *bpo*)
      quietly "apt-get update ($release-backports, lists of its own)" apt_with "$release-backports" beside update
      quietly "fetching qemu-block-extra" apt_with "$release-backports" beside download "qemu-block-extra=$version" ;;
    *) quietly "fetching qemu-block-extra" apt-get -q -o APT::Sandbox::User=root download "qemu-block-extra=$version" ;;
  esac
  dpkg -x qemu-block-extra_*.deb "$dir/root"
  cd "$here"
  # Of all of it only this is used.
  rm -rf "$dir/qemu" "$dir/root/usr/share" "$dir/root/usr/sbin" "$dir/root/etc" "$dir/root/var" "$dir/root/lib/systemd"
  touch "$dir/.complete"
  rm -rf "$cache/ceph"; mv "$dir" "$cache/ceph"
}

# The guest's kernel and agent: unpacked, never installed.
unpack_guest_parts() {
  local dir=$cache/guest/parts kernel
  rm -rf "$dir"
  kernel=$(kernel linux-image-cloud-amd64 '^linux-image-.*-cloud-amd64$')
  say "fetching $kernel and qemu-guest-agent"
  unpack "$dir" "$kernel" qemu-guest-agent
  touch "$dir/.complete"
}

check_only() {
  local missing; missing=$(missing_packages | tr '\n' ' ')
  have_consul || missing+="consul "
  have_guest_parts || missing+="guest-kernel "
  have_faketime || missing+="libfaketime "
  have_watchdog_parts || missing+="watchdog-kernel "
  have_ceph || missing+="ceph "
  [ -e "$cache/mnvm.img" ] || missing+="mnvm.img "
  [ -z "$missing" ] || die "missing: ${missing% }"
}

[ "${1:-}" != --check ] || { check_only; exit 0; }

if [ -n "$(missing_packages)" ] || ! have_consul || ! have_guest_parts || ! have_faketime ||
  ! have_watchdog_parts || ! have_ceph; then
  missing=$(missing_packages | tr '\n' ' ')
  have_consul || missing+="consul "
  have_guest_parts || missing+="guest-kernel "
  have_faketime || missing+="libfaketime "
  have_watchdog_parts || missing+="watchdog-kernel "
  have_ceph || missing+="ceph "
  release=$(. /etc/os-release 2>/dev/null && [ "${ID:-}" = debian ] && printf %s "${VERSION_CODENAME:-}") ||
    die "this is not Debian; install by hand what is missing: $missing"
  [ "$(id -u)" = 0 ] || die "not root, and missing: $missing- run it once as root"
  [ "$(dpkg --print-architecture)" = amd64 ] || die "the lab's guest is amd64 only; missing here: $missing"
  mkdir -p "$cache"; : >"$log"
  [ -z "$(missing_packages)" ] || install_packages
  still=$(missing_packages | tr '\n' ' ')
  [ -z "$still" ] || die "installed, and still not there: $still"
  have_consul || unpack_consul
  have_guest_parts || unpack_guest_parts
  have_faketime || unpack_faketime
  have_watchdog_parts || unpack_watchdog_parts
  have_ceph || unpack_ceph
fi

"$here/guest/build.sh" "$cache"
