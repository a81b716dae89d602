# Run in the guest by its agent, after each boot. `file`, `id`, `environment`, `nics`, `dns` and `time_servers` are set above.
# Prints one line. What the image has set up otherwise is added to and never taken away.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
told=/run/zsha/applied
# A generator's word that it stays out of this boot.
if [ -d /run/cloud-init ] && [ ! -e /run/cloud-init/disabled ]; then echo cloud-init; exit; fi
if [ -e "$told" ]; then echo "already $(cat "$told")"; exit; fi
has() { command -v "$1" >/dev/null 2>&1; }
fail() { echo "$1" >&2; exit 1; }

put() { # FILE, its content from standard input; whoever reads it has the old one or the new one
  mkdir -p "${1%/*}"
  cat >"$1.zsha"
  chmod 644 "$1.zsha"
  mv -f "$1.zsha" "$1"
}

device() { # of a MAC: the device itself, or the bond or bridge that it is a port of
  for at in /sys/class/net/*; do
    [ -e "$at/device" ] && [ "$(cat "$at/address")" = "$1" ] || continue
    if [ -e "$at/master" ]; then at=$(readlink -f "$at/master"); fi
    echo "${at##*/}"
    return
  done
}

for nic in $nics; do
  IFS=, read -r mac address via <<NIC
$nic
NIC
  dev=$(device "$mac")
  [ -n "$dev" ] || fail "the guest has no network device with the MAC address $mac"
  # It would take away what it has not set itself.
  if has nmcli && nmcli -t general status >/dev/null 2>&1; then nmcli device set "$dev" managed no; fi
  ip link set "$dev" up
  ip -4 address show dev "$dev" | grep -qF "inet $address " || ip address add "$address" dev "$dev"
  [ -z "$via" ] || ip route replace default via "$via" dev "$dev"
done

if [ -n "$dns" ]; then
  if [ -L /etc/resolv.conf ] && has resolvectl; then
    for nic in $nics; do resolvectl dns "$(device "${nic%%,*}")" $dns; done
  else
    {
      grep -v '^nameserver' /etc/resolv.conf 2>/dev/null || :
      for server in $dns; do echo "nameserver $server"; done
    } | put /etc/resolv.conf
  fi
fi

if [ -n "$time_servers" ]; then
  for conf in /etc/chrony.conf /etc/chrony/chrony.conf; do
    [ -e "$conf" ] || continue
    {
      sed '/^# zsha begin/,/^# zsha end/d' "$conf"
      echo '# zsha begin: written anew at each boot'
      for server in $time_servers; do echo "server $server iburst"; done
      echo '# zsha end'
    } | put "$conf"
    if has systemctl; then systemctl try-restart chronyd.service 2>/dev/null || systemctl try-restart chrony.service; fi
  done
fi

printf '%s' "$environment" | put "$file"
# Last: what broke off is done again.
printf '%s\n' "$id" | put "$told"
echo "applied $id"
