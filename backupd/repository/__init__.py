"""Repository: the archive. Blobs, blocks, packs, index, snapshots and keys, as docs/format.md describes them."""
