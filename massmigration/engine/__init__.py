"""How rows move: keys, shards, leases, slices, batches."""
