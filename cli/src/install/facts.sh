# What a node says of itself, a line a fact, its words apart by tabs. Reads only. IMAGE, DISK, BRIDGES, FILES, UNITS and
# DOMAIN are set in front of it.
say() { printf '%s' "$1"; shift; for word; do printf '\t%s' "$word"; done; printf '\n'; }
first() { for one; do command -v "$one" 2>/dev/null && return; [ -x "$one" ] && echo "$one" && return; done; }

say hostname "$(uname -n)"
say system "$(. /etc/os-release 2>/dev/null && printf %s "$PRETTY_NAME")"
say machine "$(uname -m)"
say systemd "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
libvirt=$(first libvirtd virtqemud)
say libvirt "$([ -z "$libvirt" ] || "$libvirt" --version 2>/dev/null | sed 's/.* //')"
qemu=$(first qemu-system-x86_64 qemu-kvm /usr/libexec/qemu-kvm)
say qemu "$([ -z "$qemu" ] || "$qemu" --version 2>/dev/null | sed -n '1s/.*version \([^ (]*\).*/\1/p')"
for fact in machine-id:/etc/machine-id boot-id:/proc/sys/kernel/random/boot_id; do
  say "${fact%%:*}" "$(cat "${fact#*:}" 2>/dev/null)"
done
say cpu "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1)" "$(sed -n 's/^flags[^:]*: *//p' /proc/cpuinfo | head -n 1)"
say cpus "$(getconf _NPROCESSORS_ONLN)"
say memory "$(awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo)"
if [ -c /dev/kvm ]; then
  if said=$(sh -c ': <>/dev/kvm' 2>&1); then say kvm yes; else say kvm no "/dev/kvm cannot be opened: ${said##*: }"; fi
elif grep -qwE '^flags.*(vmx|svm)' /proc/cpuinfo; then
  say kvm no 'its CPU could, and there is no /dev/kvm: virtualization is switched off in the firmware (BIOS), or the module kvm_intel or kvm_amd is not loaded'
else say kvm no 'its CPU shows neither vmx nor svm: virtualization is switched off in the firmware (BIOS), or it is itself a virtual machine without nested virtualization'
fi
# Who listens on one of the ports that zsha or Consul is to have.
if command -v ss >/dev/null 2>&1 && listening=$(ss -ltnp 2>/dev/null); then
  say listens-known yes
  printf '%s\n' "$listening" | awk -v ports=" $PORTS " '{
    n = split($4, at, ":"); port = at[n]; program = ""
    if (match($0, /\(\("[^"]*"/)) program = substr($0, RSTART + 3, RLENGTH - 4)
    if (index(ports, " " port " ")) printf "listens\t%s\t%s\t%s\n", port, $4, program
  }'
fi
listed=no
if command -v virsh >/dev/null 2>&1; then
  listed=yes
  asked() { LC_ALL=C timeout 10 virsh -q -c qemu:///system "$@" </dev/null; }
  say host-uuid "$(asked capabilities 2>/dev/null | sed -n '/<host>/,/<\/host>/s/.*<uuid>\(.*\)<.*/\1/p' | head -n 1)"
  # A lookup that fails says the same whatever the cause. A list is whole, or an error.
  if ! names=$(asked list --all --name 2>&1); then
    say domain-unknown "$(printf %s "${names:-it does not answer in time}" | tr '\n\t' '  ' | cut -c1-300)"
    listed=no
  elif ! printf '%s\n' "$names" | grep -qxF "$DOMAIN"; then :
  elif uuid=$(asked domuuid "$DOMAIN" 2>/dev/null) && facts=$(asked dominfo "$DOMAIN" 2>/dev/null); then
    printf '%s\n' "$facts" |
      awk -F': *' -v uuid="$(printf %s "$uuid" | tr -d '[:space:]')" '{ v[$1] = $2 }
        END { printf "domain\t%s\t%s\t%s\n", uuid, v["Persistent"], v["Autostart"] }'
  else say domain-unknown 'it is in the list of domains, and nothing more was said of it'
  fi
fi
# Other domains with the VM's disk. One that was shut off may be started by hand, or with the host.
identity=$([ -z "$IMAGE" ] || timeout 10 stat -L -c %d:%i -- "$IMAGE" 2>/dev/null)
exec 3>&1
# Whether the definition on standard input names the disk, by whatever path. A path that cannot be looked at may be one to it.
names_disk() {
  definition=$(tr '"' "'")
  printf %s "$definition" | grep -qF "'$DISK'" && return
  [ -n "$identity" ] || return 1
  printf %s "$definition" | grep -o "'/[^']*'" | tr -d "'" | sort -u | while read -r path; do
    if is=$(timeout 3 stat -L -c %d:%i -- "$path" 2>&1); then [ "$is" != "$identity" ] || echo "$path"
    else case $is in
      *'No such file'* | *'Not a directory'*) ;;
      *) say disk-unknown "a definition of a domain names $path: ${is:-no answer within 3 s}" >&3 ;;
    esac; fi
  done | grep -q .
}
# The same as libvirt keeps them on the disk, for where it does not list them.
definitions() {
  found=$(ls -- "$1" 2>&1) || case $found in *'No such file'*) return ;; *) say disk-unknown "$found"; return ;; esac
  for file in "$1"/*.xml; do
    [ -e "$file" ] || continue
    name=$(sed -n 's/.*<name>\([^<]*\)<.*/\1/p' "$file" 2>/dev/null | head -n 1)
    if [ -z "$name" ]; then say disk-unknown "$file cannot be read, or is no definition of a domain"
    elif [ "$name" != "$DOMAIN" ] && names_disk <"$file"; then say disk-domain "$name" "by $file, as libvirt $2"
    fi
  done
}
if [ "$listed" = yes ]; then
  printf '%s\n' "$names" | while read -r name; do
    [ -n "$name" ] && [ "$name" != "$DOMAIN" ] || continue
    if ! xml=$(asked dumpxml "$name" 2>&1); then
      asked dominfo "$name" >/dev/null 2>&1 && say disk-unknown "libvirt's domain $name: $(printf %s "$xml" | tr '\n\t' '  ' | cut -c1-200)"
    elif printf %s "$xml" | names_disk; then say disk-domain "$name" "$(asked domstate "$name" 2>/dev/null | head -n 1)"
    fi
  done
elif command -v virsh >/dev/null 2>&1; then definitions /etc/libvirt/qemu 'does not answer'
else definitions /etc/libvirt/qemu 'is not there to ask'
fi
# Processes with the VM's disk, by what they have open or were started with. One that only reads or copies it is none.
pool=${DISK%/*} image=${DISK##*/}
for process in /proc/[0-9]*; do
  program=$(readlink "$process/exe" 2>/dev/null) || continue
  case ${program##*/} in *qemu-img*) continue ;; *qemu* | kvm) ;; *) continue ;; esac
  words=$(tr '\0\n\t' '   ' <"$process/cmdline" 2>/dev/null)
  uses=
  # A name that only begins or ends like it is another's.
  case " $words " in *[!A-Za-z0-9._/-]"$DISK"[!A-Za-z0-9._/-]*) uses=yes ;; esac
  if [ -n "$IMAGE" ]; then
    ls -l "$process/fd" 2>/dev/null | sed -n 's/.* -> //p' | grep -qxF -- "$IMAGE" && uses=yes
    [ -n "$identity" ] && timeout 10 stat -L -c %d:%i "$process"/fd/* 2>/dev/null | grep -qxF "$identity" && uses=yes
  else
    case $words in *"\"pool\":\"$pool\""*"\"image\":\"$image\""*) uses=yes ;; esac
  fi
  [ -z "$uses" ] || say disk-process "${process#/proc/}" "${program##*/}" "$(printf %s "$words" | sed -n 's/.* -uuid \([^ ]*\).*/\1/p')"
done
say now "$(date +%s)"
say synchronized "$(timedatectl show -p NTPSynchronized --value 2>/dev/null)"
found=
if [ -n "$IMAGE" ]; then
  if said=$(timeout 10 stat -L -c %F -- "$IMAGE" 2>&1); then found=there; say image there "$said"
  else case $said in *'No such file'*) found=missing; say image missing ;; *) say image unknown "${said:-no answer within 10 s}" ;; esac; fi
fi
# Whether QEMU may come to the image. libvirt gives the file itself to QEMU's user with each start, and leaves the
# folders above it as they are.
as() { return 1; }
qemu_user=$(sed -n 's/^[[:blank:]]*user[[:blank:]]*=[[:blank:]]*"+\{0,1\}\([^"]*\)".*/\1/p' /etc/libvirt/qemu.conf 2>/dev/null | tail -n 1)
[ -n "$qemu_user" ] || for one in libvirt-qemu qemu; do id -u "$one" >/dev/null 2>&1 && qemu_user=$one && break; done
if [ -n "$found" ] && [ -n "$qemu_user" ] && id -u "$qemu_user" >/dev/null 2>&1 && [ "$(id -u "$qemu_user")" != 0 ] && command -v setpriv >/dev/null 2>&1; then
  as() { timeout 10 setpriv --reuid="$(id -u "$qemu_user")" --regid="$(id -g "$qemu_user")" --init-groups -- "$@" 2>/dev/null; }
  folder=
  # The path as the kernel walks it, links and all.
  for part in $(printf %s "${IMAGE%/*}" | tr ' /' '\001 '); do
    folder=$folder/$(printf %s "$part" | tr '\001' ' ')
    [ -d "$folder" ] || break
    as test -x "$folder" || { say barrier folder "$qemu_user" "$folder" "$(stat -c '%A %U' "$folder" 2>/dev/null)"; break; }
  done
fi
if [ "$found" = there ]; then
  if said=$(timeout 10 head -c 1 -- "$IMAGE" 2>&1 >/dev/null) || { [ -n "$qemu_user" ] && as head -c 1 -- "$IMAGE" >/dev/null; }; then
    timeout 10 test -w "$IMAGE" || { [ -n "$qemu_user" ] && as test -w "$IMAGE"; } ||
      say barrier read-only "$(timeout 10 findmnt -n -o OPTIONS -T "$IMAGE" 2>/dev/null | tr , ' ' | grep -w ro >/dev/null && echo 'its file system is mounted read-only' || echo 'neither root nor QEMU may write it')"
  else say barrier unreadable "$(printf %s "${said:-no answer within 10 s}" | tr '\n\t' '  ' | cut -c1-200)"
  fi
fi
if [ -n "$found" ] && [ "$(getenforce 2>/dev/null)" = Enforcing ]; then
  case $(timeout 10 stat -f -c %T -- "${IMAGE%/*}" 2>/dev/null) in nfs*) allows=virt_use_nfs ;; fuse*) allows=virt_use_fusefs ;; *) allows= ;; esac
  [ -z "$allows" ] || case $(getsebool "$allows" 2>/dev/null) in *' off') say barrier selinux "$allows" ;; esac
fi
if [ -n "$CEPH_SECRET" ]; then
  sum() { [ -z "$1" ] || printf '%s' "$1" | sha256sum | cut -d' ' -f1; }
  line() { tr '\n\t' '  ' | cut -c1-300; }
  driver=
  if command -v qemu-img >/dev/null 2>&1; then
    # No monitor is named, so that one that can ask anybody says so at once.
    case $(timeout 5 qemu-img info 'json:{"driver":"rbd","pool":"zsha","image":"zsha","conf":"/dev/null"}' 2>&1) in
      *[Uu]'nknown driver'* | *[Uu]'nknown protocol'* | *module* | *'not supported'*) driver=no ;;
      *) driver=yes ;;
    esac
  fi
  admin=yes image= key= caps=
  # What a command prints beside its answer is no part of that.
  if ! command -v ceph >/dev/null 2>&1; then admin='there is no program ceph'
  elif said=$(timeout 7 ceph -m "$CEPH_MONITORS" auth get "$CEPH_CLIENT" 2>/dev/null); then
    key=$(sum "$(printf '%s\n' "$said" | sed -n 's/^[[:blank:]]*key = //p')")
    caps=others
    case $said in *"caps mon = \"profile rbd\""*"caps osd = \"$CEPH_CAPS\""*) caps=fit ;; esac
  else case $? in
    2) ;; # Ceph has no such user yet.
    124) admin='no answer from Ceph within 7 s' ;;
    *) admin=$(timeout 7 ceph -m "$CEPH_MONITORS" auth get "$CEPH_CLIENT" 2>&1 >/dev/null | line); admin=${admin:-ceph auth failed} ;;
  esac; fi
  if [ "$admin" = yes ]; then
    if said=$(timeout 7 rbd -m "$CEPH_MONITORS" info "$CEPH_IMAGE" 2>&1); then
      case $said in *exclusive-lock*) image=there ;; *) image=unlocked ;; esac
    else case $? in 2) image=missing ;; 124) image='no answer from Ceph within 7 s' ;; *) image=$(printf '%s' "${said:-rbd info failed}" | line) ;; esac; fi
  fi
  say ceph "$driver" "$admin" "$image" "$key" "$caps" "$(sum "$(virsh -q -c qemu:///system secret-get-value "$CEPH_SECRET" 2>/dev/null)")"
fi
for bridge in $BRIDGES; do
  link=missing
  if [ -d "/sys/class/net/$bridge/brif" ]; then
    link=no
    for port in "/sys/class/net/$bridge/brif"/*; do
      device=/sys/class/net/${port##*/}
      # The tap of a guest has a link whatever the cable does.
      [ ! -e "$device/tun_flags" ] && [ "$(cat "$device/carrier" 2>/dev/null)" = 1 ] && link=yes
    done
  elif [ -d "/sys/class/net/$bridge" ]; then
    link=none
    case $(ip -d link show dev "$bridge" 2>/dev/null) in *openvswitch*) link=openvswitch ;; esac
  fi
  say bridge "$bridge" "$link"
  [ ! -e "/sys/class/net/$bridge/mtu" ] || say mtu "$bridge" "$(cat "/sys/class/net/$bridge/mtu")"
done
for at in /usr /etc /var; do say free "$at" "$(df -Pk "$at" | awk 'NR == 2 { print $4 }')"; done
for file in $FILES; do
  [ ! -e "$file" ] || say file "$file" "$(stat -L -c %a "$file")" "$(sha256sum <"$file" | cut -d' ' -f1)"
done
for unit in $UNITS; do
  systemctl show "$unit" -p LoadState -p ActiveState -p UnitFileState 2>/dev/null |
    awk -F= -v unit="$unit" '{ v[$1] = $2 }
      END { printf "unit\t%s\t%s\t%s\t%s\n", unit, v["LoadState"], v["ActiveState"], v["UnitFileState"] }'
done
consul=$(first consul)
say consul "$consul" "$([ -z "$consul" ] || "$consul" version 2>/dev/null | sed -n '1s/^Consul v//p')"
say consul-runs "$(pgrep -x consul >/dev/null 2>&1 && echo yes || echo no)"
# What answers where the controller is going to ask. Consul gives its leader as a JSON text, an empty one where it has none.
ask() {
  if command -v curl >/dev/null 2>&1; then curl -s -m 3 "$1"; elif command -v wget >/dev/null 2>&1; then wget -q -T 3 -t 1 -O - "$1"; else return 99; fi
}
leader=$(ask http://127.0.0.1:8500/v1/status/leader 2>/dev/null)
case $?:$leader in
  99:*) ;;
  *:\"*\"*) say consul-answers yes ;;
  0:*) say consul-answers other ;;
  *) say consul-answers no ;;
esac
# Whom Consul counts as a server; an agent without a leader, or without a token for it, does not say.
peers() {
  timeout 5 "$consul" operator raft list-peers 2>/dev/null
}
if [ -n "$consul" ] && peers=$(peers); then say consul-peers "$(printf '%s\n' "$peers" | base64 -w0)"; fi
say consul-user "$(id -u consul >/dev/null 2>&1 && echo yes || echo no)"
if [ "$(firewall-cmd --state 2>/dev/null)" = running ]; then say firewall firewalld
else
  if iptables -S INPUT 2>/dev/null | grep -vx -e '-P INPUT ACCEPT' -e '.*-j ZSHA' | grep -q .; then say firewall iptables; fi
  if nft list chains 2>/dev/null | awk '$1 == "table" { t = $2 " " $3 } /hook input/ && t != "ip filter" && t != "ip6 filter"' | grep -q .
  then say firewall nftables; fi
fi
[ ! -e /etc/zsha/installed.json ] || say installed "$(base64 -w0 </etc/zsha/installed.json)"
[ ! -e /etc/zsha/controller.yaml ] || say settings "$(base64 -w0 </etc/zsha/controller.yaml)"
say end
