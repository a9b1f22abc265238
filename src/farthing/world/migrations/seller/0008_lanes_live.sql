-- Until when a process is known to be alive, in Unix seconds by the clock of the engine alone (decision 023). `lane` is that
-- of its claims and moves. A lane without a row is one of a process that doesn't say: its leases count as they stand.
CREATE TABLE seller_lane (
    lane        BIGINT NOT NULL PRIMARY KEY,
    alive_until BIGINT NOT NULL
);
