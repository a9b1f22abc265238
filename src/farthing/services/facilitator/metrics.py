"""What `/metrics` shows, in Prometheus' format. No label ever holds an address, a hash or a token."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# From a devnet's few milliseconds to a slow chain's time-out, in seconds.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one facilitator, in a registry of its own so that several fit in a process."""

    def __init__(self) -> None:
        """Make the counters."""
        self.registry = CollectorRegistry()
        self.verifications = Counter(
            "farthing_verifications", "Answers of /verify, by result.", ["result"], registry=self.registry
        )
        # Looked up once, and not for each verification.
        self.valid, self.invalid = self.verifications.labels("valid"), self.verifications.labels("invalid")
        self.settlements = Counter(
            "farthing_settlements", "Payments that were decided.", ["network", "result"], registry=self.registry
        )
        self.requests = Histogram(
            "farthing_request_seconds", "Time to answer.", ["path", "status"], registry=self.registry, buckets=_BUCKETS
        )
        self.open_payments = Gauge(
            "farthing_open_payments", "Payments that are not over, by state.", ["state"], registry=self.registry
        )
        self.waiting_calls = Gauge(
            "farthing_waiting_payments", "Payments that a call waits for.", registry=self.registry
        )
        self.lease_held = Gauge(
            "farthing_wallet_lease_held",
            "1 where this process holds the wallet's lease.",
            ["network", "wallet"],
            registry=self.registry,
        )
        self.node_errors = Counter(
            "farthing_node_errors", "Times that no node answered.", ["network"], registry=self.registry
        )
        self.lost = Counter(
            "farthing_lost_payments", "Confirmed payments whose block was lost.", ["network"], registry=self.registry
        )

    def render(self) -> bytes:
        """Write the metrics as Prometheus reads them."""
        return generate_latest(self.registry)
