#!/bin/sh
# Lets the other nodes of /etc/zsha/nodes (an address a line) reach this one: Consul (8300-8302, 8500), libvirt
# (16509, 16514) and live migration (49152-49215). In whichever firewalls are in use: firewalld, iptables, nftables.
# Without one there is nothing to open. And keeps the ports of live migration from what the kernel gives to connections
# that leave this host, out of the same range: a QEMU whose port is such a one listens by IPv6 alone, and is not found.
#
#   firewall open | close        both may be called any number of times
set -eu
PATH="$PATH:/usr/sbin:/sbin"
migration=49152-49215
tcp="8300-8302 8500 16509 16514 $migration"
udp='8301-8302'
mark=zsha
nodes=$(cat /etc/zsha/nodes 2>/dev/null || true)

has() { command -v "$1" >/dev/null 2>&1; }

each_rule() { # calls "$1 ADDRESS PROTOCOL PORTS" for every rule
  for node in $nodes; do
    for ports in $tcp; do "$1" "$node" tcp "$ports"; done
    for ports in $udp; do "$1" "$node" udp "$ports"; done
  done
}

# --- firewalld keeps its own rules over a reboot
firewalld_is_used() { has firewall-cmd && [ "$(firewall-cmd --state 2>/dev/null)" = running ]; }
rich() { printf 'rule family="ipv4" source address="%s" port port="%s" protocol="%s" accept' "$1" "$3" "$2"; }
firewalld_add() { firewall-cmd -q --permanent --add-rich-rule="$(rich "$@")"; }
firewalld_remove() { firewall-cmd -q --permanent --remove-rich-rule="$(rich "$@")"; }

# --- iptables: a chain of our own, looked into first
iptables_is_used() { has iptables && iptables -S INPUT 2>/dev/null | grep -vqx -e '-P INPUT ACCEPT' -e '.*-j ZSHA'; }
iptables_add() { iptables -w -A ZSHA -s "$1" -p "$2" --dport "$(echo "$3" | tr - :)" -m comment --comment $mark -j ACCEPT; }
iptables_close() {
  has iptables || return 0
  iptables -w -D INPUT -j ZSHA 2>/dev/null || true
  iptables -w -F ZSHA 2>/dev/null || true
  iptables -w -X ZSHA 2>/dev/null || true
}

# --- nftables: an accept in a table of our own would not outweigh a drop in another, so the rules stand at the head of
# each chain that looks at what comes in
input_chains() {
  nft list chains 2>/dev/null |
    awk '$1 == "table" { t = $2 " " $3 } $1 == "chain" { c = $2 } /hook input/ && t != "ip filter" && t != "ip6 filter" { print t, c }'
}
nft_open() {
  input_chains | while read -r family table chain; do
    case $family in ip | inet) ;; *) continue ;; esac
    for node in $nodes; do
      nft insert rule "$family" "$table" "$chain" ip saddr "$node" udp dport "{ $udp }" accept comment "\"$mark\""
      nft insert rule "$family" "$table" "$chain" ip saddr "$node" tcp dport "{ $(echo "$tcp" | tr ' ' ',') }" accept comment "\"$mark\""
    done
  done
}
nft_close() {
  has nft || return 0
  input_chains | while read -r family table chain; do
    nft -a list chain "$family" "$table" "$chain" | sed -n "s/.*comment \"$mark\".*# handle //p" |
      while read -r handle; do nft delete rule "$family" "$table" "$chain" handle "$handle"; done
  done
}

# --- the kernel's list is everybody's: what was there stays, and comes back unless somebody has changed it since
reserved=/proc/sys/net/ipv4/ip_local_reserved_ports
before=/run/zsha-reserved-ports
reserve() {
  [ -w $reserved ] || return 0
  was=$(cat $reserved)
  echo "${was:+$was,}$migration" >$reserved
  printf '%s\n%s\n' "$was" "$(cat $reserved)" >$before
}
give_back() {
  [ -e $before ] || return 0
  if [ "$(cat $reserved)" = "$(sed -n 2p $before)" ]; then sed -n 1p $before >$reserved; fi
  rm -f $before
}

close() {
  give_back
  if firewalld_is_used; then each_rule firewalld_remove; firewall-cmd -q --reload; fi
  iptables_close
  nft_close
}

open() {
  reserve
  if firewalld_is_used; then each_rule firewalld_add; firewall-cmd -q --reload; return; fi
  if iptables_is_used; then iptables -w -N ZSHA; iptables -w -I INPUT -j ZSHA; each_rule iptables_add; fi
  if has nft; then nft_open; fi
}

case ${1:-} in
  open) close; open ;;
  close) close ;;
  *) echo "usage: firewall open|close" >&2; exit 2 ;;
esac
