# What whoever only looks may do: `zsha status`, `get`, `diff`, `events`, `history`.

key_prefix "zsha/" {
  policy = "read"
}
