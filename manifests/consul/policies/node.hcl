# What the keeper and the controller of a node may do: one token with this policy for each node, in the file that
# `consulTokenFile` in /etc/zsha/controller.yaml names. Put your cluster's name in the place of `prod`.

key_prefix "zsha/prod/" {
  policy = "read"
}

# Every node's: to fence is to write the lease of another.
key_prefix "zsha/prod/leases/" {
  policy = "write"
}

key_prefix "zsha/prod/vms/" {
  policy = "write"
}

key_prefix "zsha/prod/status/" {
  policy = "write"
}

key_prefix "zsha/prod/events/" {
  policy = "write"
}

# A host that shuts down drains its own node, and takes that back once it has booted.
key_prefix "zsha/prod/intent/drain." {
  policy = "write"
}

# How fast this Consul elects a leader, so that a slow one is told.
agent_prefix "" {
  policy = "read"
}
