# A Consul client on a node of a cluster that zsha keeps, where the document's `Servers` names other nodes: it does not
# vote, and hands every request on to the servers. What differs from node to node stands in a second file beside this
# one, as with server.hcl; it has no bootstrap_expect, and retry_join names the servers.

server = false

# Whoever reaches the HTTP port may write the keys that say where the VM runs. Other nodes ask servers only.
client_addr = "127.0.0.1"

performance {
  # A request that meets no leader, or a server that has gone, waits this long (7 s by default) before it fails.
  rpc_hold_timeout = "2s"
}

# A client that is stopped comes back.
leave_on_terminate      = false
skip_leave_on_interrupt = true
rejoin_after_leave      = true

# A node that boots finds the servers soon (30 s by default).
retry_interval = "2s"

disable_update_check = true
