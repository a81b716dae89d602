#!/bin/bash
# A Ceph of one monitor and one OSD for the lab, of packages that ../setup.sh has unpacked. Everything it writes is below
# DIR, cephx is on, there is no manager, and it listens on IP alone (3300, 6789, and four more of the OSD's).
#
#   one-node.sh ROOT DIR IP    returns once the pool POOL (default rbd) takes I/O; both daemons then run in sessions of
#                              their own, and end with the host
#   ROOT: where the packages are unpacked
set -euo pipefail
export LC_ALL=C
root=${1:?} dir=$(realpath -m "${2:?}") ip=${3:?}
pool=${POOL:-rbd}
lib=$root/usr/lib/x86_64-linux-gnu
export CEPH_CONF=$dir/ceph.conf PATH=$root/usr/bin:$PATH LD_LIBRARY_PATH=$lib:$lib/ceph:$root/lib/x86_64-linux-gnu
export PYTHONPATH=$root/usr/lib/python3/dist-packages PYTHONDONTWRITEBYTECODE=1

# What every program reads, clients included (they get DIR/admin.keyring by it). One monitor decides alone, so it need
# not collect proposals for a second; no manager is there to scale pools; the rest keeps the OSD small.
settings() {
  cat <<CONF
[global]
fsid = $fsid
mon host = [v2:$ip:3300,v1:$ip:6789]
public addr = $ip
cluster addr = $ip
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = $dir/admin.keyring
run dir = $dir/run
admin socket = $dir/run/\$name.\$pid.asok
crash dir = $dir/run
log file = $dir/log/\$name.log
log max recent = 500
plugin dir = $lib/ceph
erasure code dir = $lib/ceph/erasure-code
osd class dir = $lib/rados-classes
osd erasure code plugins =
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
[mon]
mon data = $dir/mon
keyring = $dir/mon/keyring
mon initial members = a
mon allow pool size one = true
mon allow pool delete = true
mon data avail warn = 1
mon data avail crit = 0
paxos propose interval = 0.05
paxos min wait = 0.01
mon tick interval = 1
mon warn on pool no redundancy = false
mon cluster log file = $dir/log/cluster.log
rocksdb cache size = 8M
[osd]
osd data = $dir/osd
keyring = $dir/osd/keyring
osd objectstore = bluestore
bluestore block size = 1G
bluestore block create = true
bluestore cache autotune = false
bluestore cache size = 32M
bluestore fsck on mkfs = false
osd op num shards = 1
osd op num threads per shard = 2
osd max pg log entries = 100
osd min pg log entries = 50
CONF
}

# A daemon in a session of its own, its pid in DIR/run. usage: daemon NAME PROGRAM ARGS...
daemon() {
  local name=$1; shift
  setsid "$@" -f </dev/null >>"$dir/log/$name.out" 2>&1 &
  echo $! >"$dir/run/$name.pid"
}

alive() { [ -e "$dir/run/$1.pid" ] && kill -0 "$(<"$dir/run/$1.pid")" 2>/dev/null; }

make_keys() {
  local keys=$dir/mon.keys
  ceph-authtool -C "$keys" --gen-key -n mon. --cap mon 'allow *' >/dev/null
  ceph-authtool -C "$dir/admin.keyring" --gen-key -n client.admin \
    --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' --cap mds 'allow *' >/dev/null
  ceph-authtool -C "$dir/osd/keyring" --gen-key -n osd.0 \
    --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd' >/dev/null
  ceph-authtool "$keys" --import-keyring "$dir/admin.keyring" >/dev/null
  ceph-authtool "$keys" --import-keyring "$dir/osd/keyring" >/dev/null
}

rm -rf "$dir"; mkdir -p "$dir"/{mon,osd,log,run}
fsid=$(</proc/sys/kernel/random/uuid)
osd=$(</proc/sys/kernel/random/uuid)
settings >"$dir/ceph.conf"
make_keys
ceph-mon -i a --mkfs --keyring "$dir/mon.keys" >>"$dir/log/mon.out" 2>&1
rm "$dir/mon.keys"
daemon mon ceph-mon -i a
# Together: the OSD's disk is made while the monitor comes up.
ceph-osd -i 0 --mkfs --osd-uuid "$osd" >>"$dir/log/osd.out" 2>&1 &
mkfs=$!
ceph --connect-timeout 30 osd new "$osd" 0 >/dev/null
wait $mkfs
daemon osd ceph-osd -i 0
ceph osd pool create "$pool" 8 2>>"$dir/log/start.out"
ceph osd pool application enable "$pool" rbd 2>>"$dir/log/start.out"
# Hangs while the OSD is not up, and is told of it only after seconds: ask anew.
for ((left = 120; left > 0; left--)); do
  timeout 0.5 rbd -p "$pool" ls >/dev/null 2>&1 && exit
  alive mon && alive osd || break
done
echo "Ceph has not come up: see $dir/log" >&2
exit 1
