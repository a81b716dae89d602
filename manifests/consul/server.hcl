# A Consul server on a node of a cluster that zsha keeps: on each, or on those that `Servers` of the document names (the
# others have client.hcl). What differs from node to node stands in a second file
# beside this one, say /etc/consul.d/node.hcl:
#
#   datacenter       = "dc1"
#   node_name        = "nfs-1"
#   data_dir         = "/var/lib/consul"
#   bind_addr        = "192.168.10.11"
#   bootstrap_expect = 3           # the number of servers
#   retry_join       = ["192.168.10.12", "192.168.10.13"]
#
# Where /etc/zsha/controller.yaml of another node names this server as its second, the second file also says
# client_addr = "127.0.0.1 192.168.10.11": with ACLs and TLS, since whoever reaches it may else write.

server = true

# Whoever reaches the HTTP port may write the keys that say where the VM runs.
client_addr = "127.0.0.1"

performance {
  # With the default of 5 a change of leader takes about 12 s, longer than a lease; with 1 it takes 2.4 to 3.9 s.
  raft_multiplier = 1

  # A request without a leader waits this long (7 s by default) for one before it fails.
  rpc_hold_timeout = "2s"
}

autopilot {
  # With the default, a second loss of the leader within half a minute of the first has left a cluster of three without
  # any. A server that comes back under a new node id has to be removed by hand: `consul operator raft remove-peer`.
  cleanup_dead_servers = false
}

# A server that is stopped comes back: its place among the voters stays its own.
leave_on_terminate      = false
skip_leave_on_interrupt = true
rejoin_after_leave      = true

# A node that boots finds the others soon (30 s by default).
retry_interval = "2s"

disable_update_check = true
