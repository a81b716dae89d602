# What whoever only looks may do: `zsha status`, `get`, `diff`, `events`, `history`.

key_prefix "zsha/" {
  policy = "read"
}

# Consul's members, for `zsha status`.
node_prefix "" {
  policy = "read"
}
