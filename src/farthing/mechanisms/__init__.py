"""Mechanisms: one scheme on one kind of network, with up to three faces, behind a registry. Strangers to each other."""
