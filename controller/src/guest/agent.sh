# Run in the guest by its agent, after each boot. `boot_secs`, `file`, `id`, `environment`, `nics`, `dns` and `time_servers`
# are set above. Prints one line. What the image has set up otherwise is added to: other addresses, routes and lines of its
# files stay; the default route and the resolvers are those of the document.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
told=/run/zsha/applied
has() { command -v "$1" >/dev/null 2>&1; }
fail() { echo "$1" >&2; exit 1; }

if [ -e "$told" ]; then echo "already $(head -n 1 "$told")"; exit; fi
up=$(cut -d. -f1 /proc/uptime)
device() { # of a MAC: the device itself, or the bond or bridge that it is a port of
  for at in /sys/class/net/*; do
    [ -e "$at/device" ] && [ "$(cat "$at/address")" = "$1" ] || continue
    if [ -e "$at/master" ]; then at=$(readlink -f "$at/master"); fi
    echo "${at##*/}"
    return
  done
}
lacks_address() {
  for nic in $nics; do
    IFS=, read -r mac address rest <<NIC
$nic
NIC
    ip -4 address show dev "$(device "$mac")" 2>/dev/null | grep -qF "inet $address " || return 0
  done
  return 1
}

# A generator's word that cloud-init stays out of this boot is the file `disabled`. That it runs does not say that it reads
# our disk: an installer may have left it another source, or have told it to leave the network alone.
if [ -d /run/cloud-init ] && [ ! -e /run/cloud-init/disabled ]; then
  result=/run/cloud-init/result.json
  has_id=$(cat /run/cloud-init/.instance-id 2>/dev/null || cat /var/lib/cloud/data/instance-id 2>/dev/null || :)
  if [ ! -e "$result" ]; then
    if [ "$up" -lt 300 ]; then echo booting; else echo cloud-init; fi
    exit
  elif grep -q DataSourceNoCloud "$result"; then
    case $has_id in
      # What it has applied was on our disk when this guest booted, on whichever node.
      "${id%-*-*-*-*-*}"-*) if [ "$has_id" != "$id" ] || ! lacks_address; then echo cloud-init; exit; fi ;;
      '') if ! lacks_address; then echo cloud-init; exit; fi ;;
    esac
  fi
fi
# A guest that has run for so long works as it is, whatever it was told.
if [ "$up" -ge "$boot_secs" ]; then echo later; exit; fi
# What sets the network up in this boot would take away what is set before it; and cloud-init may still come.
if has systemctl && [ "$up" -lt 300 ]; then
  case $(systemctl is-system-running 2>/dev/null || :) in initializing | starting) echo booting; exit ;; esac
elif has cloud-init && [ ! -d /run/cloud-init ] && [ "$up" -lt 120 ]; then echo booting; exit
fi
mkdir -p /run/zsha
# One at a time: whoever began this one may have given it up.
if [ -e /run/zsha/pid ] && kill -0 "$(cat /run/zsha/pid)" 2>/dev/null; then echo busy; exit; fi
echo $$ >/run/zsha/pid
# Its number may be another process's one day.
trap 'rm -f /run/zsha/pid' EXIT

put() { # FILE, its content from standard input; whoever reads it has the old one or the new one
  mkdir -p "${1%/*}"
  cat >"$1.zsha"
  chmod 644 "$1.zsha"
  mv -f "$1.zsha" "$1"
}

but=
for nic in $nics; do
  IFS=, read -r mac address subnet via table <<NIC
$nic
NIC
  dev=$(device "$mac")
  [ -n "$dev" ] || fail "the guest has no network device with the MAC address $mac"
  ip link set "$dev" up
  ip -4 address show dev "$dev" | grep -qF "inet $address " || ip address add "$address" dev "$dev"
  if [ -z "$table" ]; then
    ip route show default | grep -q "^default via $via dev $dev" || ip route replace default via "$via" dev "$dev"
    continue
  fi
  # What came in by this NIC is answered by its own gateway.
  ip rule del from "${address%/*}" table "$table" 2>/dev/null || :
  ip route replace "$subnet" dev "$dev" table "$table" && ip route replace default via "$via" dev "$dev" table "$table" &&
    ip rule add from "${address%/*}" table "$table" pref "$table" || but="$but but not the way back by $via"
done

if [ -n "$dns" ]; then
  if [ ! -L /etc/resolv.conf ]; then
    {
      grep -v '^nameserver' /etc/resolv.conf 2>/dev/null || :
      for server in $dns; do echo "nameserver $server"; done
    } | put /etc/resolv.conf
  elif has resolvectl; then
    for nic in $nics; do resolvectl dns "$(device "${nic%%,*}")" $dns; done
  else
    but="$but but not its resolvers: /etc/resolv.conf is a link"
  fi
fi

printf '%s' "$environment" | put "$file"

if [ -n "$time_servers" ]; then
  for conf in /etc/chrony.conf /etc/chrony/chrony.conf; do
    [ -e "$conf" ] || continue
    new=$(
      sed '/^# zsha begin/,/^# zsha end/d' "$conf"
      echo '# zsha begin: written anew at each boot'
      for server in $time_servers; do echo "server $server iburst"; done
      echo '# zsha end'
    )
    [ "$new" != "$(cat "$conf")" ] || continue
    printf '%s\n' "$new" | put "$conf"
    # One of the two names it has. Where it does not run yet it will read the file.
    if has systemctl; then systemctl try-restart chronyd.service || systemctl try-restart chrony.service || :; fi 2>/dev/null
  done
fi

# Last: what broke off is done again.
printf '%s\n' "$id" | put "$told"
echo "applied $id$but"
