-- Payments that are over: their windows, and the time in which blocks may be replaced, have passed. What is looked at for
-- each request stays small; the books still list them. Rows are moved here as they ended, and never changed.
CREATE TABLE seller_archive (
    claim         BIGINT NOT NULL PRIMARY KEY,
    payment_id    TEXT   NOT NULL,
    epoch         BIGINT NOT NULL,
    state         TEXT   NOT NULL,
    fingerprint   TEXT   NOT NULL,
    request_print TEXT   NOT NULL,
    valid_before  BIGINT NOT NULL,
    network       TEXT   NOT NULL,
    asset         TEXT   NOT NULL,
    payer         TEXT   NOT NULL,
    pay_to        TEXT   NOT NULL,
    amount        TEXT   NOT NULL,
    resource      TEXT   NOT NULL,
    settlement_tx TEXT   NOT NULL,
    reason        TEXT   NOT NULL,
    claimed_at    BIGINT NOT NULL
);
