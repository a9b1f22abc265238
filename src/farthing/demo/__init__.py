"""The demo: a chain, a facilitator, a seller and a buyer, all together, with real settlement and reconciled books."""
