-- The buyer's journal. Amounts and values are decimal text: a value (10^-18 of the currency) outgrows 64 bits.

CREATE TABLE purchases (
    purchase_id TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL,
    delivered INTEGER NOT NULL,
    owner TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    method TEXT NOT NULL,
    url TEXT NOT NULL,
    host TEXT NOT NULL,
    request_print TEXT NOT NULL,
    payer TEXT NOT NULL,
    scheme TEXT NOT NULL,
    network TEXT NOT NULL,
    asset TEXT NOT NULL,
    pay_to TEXT NOT NULL,
    amount TEXT NOT NULL,
    currency TEXT NOT NULL,
    value TEXT NOT NULL,
    scopes TEXT NOT NULL,
    payment_id TEXT,
    fingerprint TEXT NOT NULL,
    header TEXT NOT NULL,
    valid_before BIGINT NOT NULL,
    transaction_hash TEXT NOT NULL,
    reason TEXT NOT NULL
);

CREATE UNIQUE INDEX purchases_by_payment ON purchases (payment_id);
CREATE INDEX purchases_by_request ON purchases (request_print, payer, state);
CREATE INDEX purchases_by_state ON purchases (state, valid_before);
CREATE INDEX purchases_by_time ON purchases (created_at, purchase_id);

-- What is used or reserved: scope is 'total', 'day:2026-11-23' or 'host:api.example.com'.
CREATE TABLE budgets (
    scope TEXT NOT NULL,
    currency TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (scope, currency)
);
