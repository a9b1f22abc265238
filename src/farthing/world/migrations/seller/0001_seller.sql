-- The seller's books. The words are those of both SQLite and PostgreSQL; amounts are text, since a uint256 fits no
-- integer column; times are whole Unix seconds.

-- One row for each payment identity that was ever claimed. The unique index on payment_id is what makes a claim happen
-- once; rows are appended, and moved by statements that are conditional on state and epoch.
CREATE TABLE seller_payment (
    payment_id      TEXT    NOT NULL PRIMARY KEY,
    fingerprint     TEXT    NOT NULL,
    request_print   TEXT    NOT NULL,
    state           TEXT    NOT NULL,
    epoch           BIGINT  NOT NULL,
    lease_until     BIGINT  NOT NULL,
    valid_before    BIGINT  NOT NULL,
    flow            TEXT    NOT NULL,
    idempotent      BIGINT  NOT NULL,
    stores_response BIGINT  NOT NULL,
    runs            BIGINT  NOT NULL,
    network         TEXT    NOT NULL,
    asset           TEXT    NOT NULL,
    payer           TEXT    NOT NULL,
    pay_to          TEXT    NOT NULL,
    amount          TEXT    NOT NULL,
    resource        TEXT    NOT NULL,
    settlement_tx   TEXT    NOT NULL,
    reason          TEXT    NOT NULL,
    receipt         TEXT    NOT NULL,
    claimed_at      BIGINT  NOT NULL
);

-- The response of a payment that is being settled, until it is delivered. A large body lies in a file beside the store.
CREATE TABLE seller_response (
    payment_id TEXT   NOT NULL PRIMARY KEY,
    status     BIGINT NOT NULL,
    headers    TEXT   NOT NULL,
    body       BYTEA  NOT NULL,
    spool      TEXT   NOT NULL
);

-- What settlements moved: append-only. A claim that was made anew after it closed has an epoch of its own.
CREATE TABLE seller_ledger (
    payment_id    TEXT   NOT NULL,
    settlement_tx TEXT   NOT NULL,
    network       TEXT   NOT NULL,
    asset         TEXT   NOT NULL,
    debit         TEXT   NOT NULL,
    credit        TEXT   NOT NULL,
    amount        TEXT   NOT NULL,
    posted_at     BIGINT NOT NULL,
    PRIMARY KEY (payment_id, settlement_tx)
);
