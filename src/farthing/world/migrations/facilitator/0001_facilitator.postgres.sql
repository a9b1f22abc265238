-- The facilitator's store: payments, the outbox of signed transactions, wallet leases, the ledger.
-- Amounts are decimal text, since a uint256 fits no integer of a database. Times are Unix seconds.

CREATE TABLE payments (
    payment_id         TEXT    NOT NULL PRIMARY KEY,
    state              TEXT    NOT NULL,
    scheme             TEXT    NOT NULL,
    network            TEXT    NOT NULL,
    asset              TEXT    NOT NULL,
    payer              TEXT    NOT NULL,
    pay_to             TEXT    NOT NULL,
    amount             TEXT    NOT NULL,
    valid_before       BIGINT  NOT NULL,
    fingerprint        TEXT    NOT NULL,
    requirements_print TEXT    NOT NULL,
    created_at         BIGINT  NOT NULL,
    recorded_block     BIGINT  NOT NULL,
    gas_limit          BIGINT  NOT NULL,
    caller             TEXT    NOT NULL,
    idempotency_key    TEXT    NOT NULL,
    -- The one call that is told of success, until when it counts as live, and whether it was told.
    claimant           TEXT    NOT NULL,
    claim_until        BIGINT  NOT NULL,
    told               INTEGER NOT NULL DEFAULT 0,
    attempts           INTEGER NOT NULL DEFAULT 0,
    -- How often it was confirmed: the ledger's transfers carry the number, so that none is booked twice.
    confirmations      INTEGER NOT NULL DEFAULT 0,
    -- The outbox entry that it is a member of.
    wallet             TEXT,
    nonce              BIGINT,
    -- The evidence.
    transaction_hash   TEXT    NOT NULL DEFAULT '',
    block_number       BIGINT,
    block_hash         TEXT    NOT NULL DEFAULT '',
    log_index          INTEGER,
    reason             TEXT    NOT NULL DEFAULT '',
    message            TEXT    NOT NULL DEFAULT ''
);
-- Work is found by state; payments that are over are in neither index.
CREATE INDEX payments_waiting ON payments (network, created_at) WHERE state IN ('received', 'ready');
CREATE INDEX payments_open ON payments (network, state, created_at) WHERE state IN ('in_batch', 'confirmed');
CREATE INDEX payments_by_transaction ON payments (transaction_hash) WHERE transaction_hash <> '';
CREATE INDEX payments_by_member ON payments (network, wallet, nonce) WHERE nonce IS NOT NULL;

-- What was sent to /settle, apart from the row that moves.
CREATE TABLE payment_bodies (
    payment_id   TEXT NOT NULL PRIMARY KEY REFERENCES payments (payment_id),
    payment      TEXT NOT NULL,
    requirements TEXT NOT NULL
);

CREATE TABLE wallets (
    network     TEXT    NOT NULL,
    wallet      TEXT    NOT NULL,
    owner       TEXT    NOT NULL,
    epoch       BIGINT  NOT NULL,
    until_at    BIGINT  NOT NULL,
    first_nonce BIGINT,
    stopped     TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (network, wallet)
);

CREATE TABLE transactions (
    network      TEXT    NOT NULL,
    wallet       TEXT    NOT NULL,
    nonce        BIGINT  NOT NULL,
    state        TEXT    NOT NULL,
    lease_epoch  BIGINT  NOT NULL,
    gas_limit    BIGINT  NOT NULL,
    created_at   BIGINT  NOT NULL,
    -- The newest version's hash, and once mined that of the version in the block.
    hash         TEXT    NOT NULL DEFAULT '',
    block_number BIGINT,
    block_hash   TEXT    NOT NULL DEFAULT '',
    gas_used     BIGINT,
    -- How often it was DONE: the ledger's gas transfers carry the number.
    finishes     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (network, wallet, nonce)
);
CREATE INDEX transactions_open ON transactions (network, wallet, nonce) WHERE state <> 'done';

-- Every version that was ever signed is kept: any of them may be mined.
CREATE TABLE transaction_versions (
    network                  TEXT    NOT NULL,
    wallet                   TEXT    NOT NULL,
    nonce                    BIGINT  NOT NULL,
    version                  INTEGER NOT NULL,
    raw                      TEXT    NOT NULL,
    hash                     TEXT    NOT NULL,
    max_fee_per_gas          TEXT    NOT NULL,
    max_priority_fee_per_gas TEXT    NOT NULL,
    signed_at                BIGINT  NOT NULL,
    PRIMARY KEY (network, wallet, nonce, version)
);
CREATE INDEX transaction_versions_by_hash ON transaction_versions (hash);

CREATE TABLE transaction_members (
    network    TEXT   NOT NULL,
    wallet     TEXT   NOT NULL,
    nonce      BIGINT NOT NULL,
    payment_id TEXT   NOT NULL REFERENCES payments (payment_id),
    PRIMARY KEY (network, wallet, nonce, payment_id)
);

CREATE TABLE ledger_transfers (
    transfer_id      TEXT   NOT NULL PRIMARY KEY,
    payment_id       TEXT   NOT NULL DEFAULT '',
    transaction_hash TEXT   NOT NULL,
    reverses         TEXT   NOT NULL DEFAULT '',
    booked_at        BIGINT NOT NULL
);
CREATE INDEX ledger_transfers_by_payment ON ledger_transfers (payment_id);

CREATE TABLE ledger_entries (
    transfer_id TEXT NOT NULL REFERENCES ledger_transfers (transfer_id),
    side        TEXT NOT NULL CHECK (side IN ('debit', 'credit')),
    account     TEXT NOT NULL,
    amount      TEXT NOT NULL,
    PRIMARY KEY (transfer_id, side)
);
CREATE INDEX ledger_entries_by_account ON ledger_entries (account);

-- Nothing in the books is edited: correcting is a row of its own.
CREATE FUNCTION facilitator_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'integrity_constraint_violation';
END;
$$;
CREATE TRIGGER ledger_transfers_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transfers
FOR EACH STATEMENT EXECUTE FUNCTION facilitator_append_only();
CREATE TRIGGER ledger_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries
FOR EACH STATEMENT EXECUTE FUNCTION facilitator_append_only();
