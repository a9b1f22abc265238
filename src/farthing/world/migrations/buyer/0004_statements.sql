-- What the auditor of statements keeps. billed_in: the statement that lists this promise ('' while none does).
ALTER TABLE purchases ADD COLUMN billed_in TEXT NOT NULL DEFAULT '';

-- What a clearing house showed when it was seen first: a change is refused.
CREATE TABLE pinned_houses (
    network TEXT NOT NULL PRIMARY KEY,
    key_id TEXT NOT NULL,
    treasury TEXT NOT NULL,
    rail_network TEXT NOT NULL,
    asset TEXT NOT NULL,
    pinned_at BIGINT NOT NULL
);

-- Statements that were found in order, and the one payment of each. Amounts are decimal text.
CREATE TABLE audited_statements (
    network TEXT NOT NULL,
    statement TEXT NOT NULL,
    payer TEXT NOT NULL,
    digest TEXT NOT NULL,
    closed_at BIGINT NOT NULL,
    owed TEXT NOT NULL,
    disputes_sent INTEGER NOT NULL,
    state TEXT NOT NULL,
    account TEXT NOT NULL,
    amount TEXT NOT NULL,
    payment TEXT NOT NULL,
    valid_before BIGINT NOT NULL,
    transaction_hash TEXT NOT NULL,
    audited_at BIGINT NOT NULL,
    signed_at BIGINT NOT NULL,
    PRIMARY KEY (network, statement)
);

CREATE INDEX audited_statements_by_time ON audited_statements (network, payer, closed_at);
CREATE INDEX audited_statements_by_payment ON audited_statements (signed_at);

-- Lines that were disputed. adjusted_in: the statement whose adjustment ended it ('' while none has).
CREATE TABLE audited_disputes (
    network TEXT NOT NULL,
    dispute TEXT NOT NULL,
    statement TEXT NOT NULL,
    line TEXT NOT NULL,
    reason TEXT NOT NULL,
    amount TEXT NOT NULL,
    evidence TEXT NOT NULL,
    adjusted_in TEXT NOT NULL,
    PRIMARY KEY (network, dispute)
);

CREATE INDEX audited_disputes_by_statement ON audited_disputes (network, statement, line);
