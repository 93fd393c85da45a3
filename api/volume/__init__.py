"""Volume API v3: block storage. See doc/volumes.md."""
