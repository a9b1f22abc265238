"""Floor 5: the performers. The only place that knows sockets, files, threads, clocks and keys; it decides nothing."""
