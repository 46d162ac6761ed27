"""The no-reference metrics of pyiqa for d4k, where pyiqa is installed."""
