# What whoever changes the document may do: `zsha apply` and all that only looks. Put your cluster's name in the place
# of `prod`.

key_prefix "zsha/" {
  policy = "read"
}

key "zsha/prod/spec" {
  policy = "write"
}

key_prefix "zsha/prod/history/" {
  policy = "write"
}

key_prefix "zsha/prod/intent/" {
  policy = "write"
}

# The first `zsha apply` creates the record of ownership, and none after it writes there.
key_prefix "zsha/prod/vms/" {
  policy = "write"
}

# Consul's members, for `zsha status`.
node_prefix "" {
  policy = "read"
}
