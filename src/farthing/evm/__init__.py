"""Ethereum without a node: typed data, signatures, transactions, calls built and answers read. No I/O."""
