-- Payees pinned to the host that named them first, by authority (host, and the port where it is not the usual one).
CREATE TABLE payees (
    authority TEXT NOT NULL,
    network TEXT NOT NULL,
    pay_to TEXT NOT NULL,
    purchase_id TEXT NOT NULL,
    pinned_at BIGINT NOT NULL,
    PRIMARY KEY (authority, network, pay_to)
);

CREATE INDEX payees_by_purchase ON payees (purchase_id);

-- Approvals given ahead, each for one request and one exact offer. used_by is the purchase that took it, or ''.
CREATE TABLE approvals (
    approval_id TEXT NOT NULL PRIMARY KEY,
    approved_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_by TEXT NOT NULL
);

-- The kill switch: a row called 'stop' while nothing may be paid by anybody who shares this journal.
CREATE TABLE switches (
    name TEXT NOT NULL PRIMARY KEY,
    reason TEXT NOT NULL,
    set_at BIGINT NOT NULL
);

-- What proves the state of a payment, as JSON: who was asked, the transaction, the block, the log.
ALTER TABLE purchases ADD COLUMN evidence TEXT NOT NULL DEFAULT '';
