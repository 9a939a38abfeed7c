"""The doors to the machine: files, locks, processes, the clock. Knows nothing of products or releases."""
