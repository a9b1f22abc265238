"""Books: accounts, transfers and double entry, without I/O."""
