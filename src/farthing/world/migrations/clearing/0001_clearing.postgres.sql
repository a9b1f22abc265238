-- The clearing house: accounts, credit leases, uploads and their lines, windows, statements, disputes, payouts, books.
-- Amounts are atomic units of six decimals in 64 bits (the wire bounds each line to 10^12); times are Unix seconds.
-- Numbers of accounts and uploads are 63 bits of a hash of their names: the same on every machine, and short in a line.

CREATE TABLE clearing_payers (
    payer        BIGINT NOT NULL PRIMARY KEY,
    directory    TEXT   NOT NULL UNIQUE,
    currency     TEXT   NOT NULL,
    state        TEXT   NOT NULL,
    why          TEXT   NOT NULL DEFAULT '',
    credit_limit BIGINT NOT NULL,
    -- What the books say of it, kept beside them so that a lease asks one row.
    owed         BIGINT NOT NULL DEFAULT 0,
    prepaid      BIGINT NOT NULL DEFAULT 0,
    created_at   BIGINT NOT NULL
);

CREATE TABLE clearing_payees (
    payee      BIGINT NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL UNIQUE,
    domain     TEXT   NOT NULL,
    currency   TEXT   NOT NULL,
    -- Where payouts go, and the text that its domain must show before anything is paid out.
    address    TEXT   NOT NULL,
    challenge  TEXT   NOT NULL,
    proved_at  BIGINT,
    created_at BIGINT NOT NULL
);

-- Bearer tokens by their SHA-256; `subject` is a payer's directory, payees' names (by spaces), or empty.
CREATE TABLE clearing_tokens (
    digest     TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL UNIQUE,
    role       TEXT   NOT NULL CHECK (role IN ('operator', 'edge', 'payer', 'payee')),
    subject    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    revoked_at BIGINT
);

CREATE TABLE clearing_edges (
    edge       TEXT   NOT NULL PRIMARY KEY,
    epoch      BIGINT NOT NULL,
    started_at BIGINT NOT NULL
);

CREATE TABLE clearing_leases (
    lease      TEXT   NOT NULL PRIMARY KEY,
    edge       TEXT   NOT NULL,
    epoch      BIGINT NOT NULL,
    request    TEXT   NOT NULL,
    payer      BIGINT NOT NULL REFERENCES clearing_payers (payer),
    amount     BIGINT NOT NULL,
    seconds    BIGINT NOT NULL,
    granted_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    state      TEXT   NOT NULL,
    -- What was uploaded of it.
    lines      BIGINT NOT NULL DEFAULT 0,
    spent      BIGINT NOT NULL DEFAULT 0,
    closed_at  BIGINT,
    UNIQUE (edge, epoch, request)
);
CREATE INDEX clearing_leases_open ON clearing_leases (payer) WHERE state = 'open';

CREATE TABLE clearing_windows (
    number    BIGINT NOT NULL PRIMARY KEY,
    opened_at BIGINT NOT NULL,
    closes_at BIGINT NOT NULL,
    state     TEXT   NOT NULL,
    closed_at BIGINT
);
-- One window is open at a time.
CREATE UNIQUE INDEX clearing_windows_open ON clearing_windows (state) WHERE state = 'open';

-- What came, as it came: the evidence of its lines. `answer` is what the edge was told.
CREATE TABLE clearing_uploads (
    upload        BIGINT NOT NULL PRIMARY KEY,
    edge          TEXT   NOT NULL,
    epoch         BIGINT NOT NULL,
    sequence      BIGINT NOT NULL,
    digest        TEXT   NOT NULL,
    window_number BIGINT NOT NULL REFERENCES clearing_windows (number),
    received_at   BIGINT NOT NULL,
    accepted      BIGINT NOT NULL,
    answer        TEXT   NOT NULL,
    body          BYTEA  NOT NULL,
    UNIQUE (edge, epoch, sequence)
);
CREATE INDEX clearing_uploads_by_window ON clearing_uploads (window_number);

-- That every signature of an upload was checked.
CREATE TABLE clearing_checks (
    upload     BIGINT NOT NULL PRIMARY KEY REFERENCES clearing_uploads (upload),
    checked_at BIGINT NOT NULL,
    failed     BIGINT NOT NULL
);

-- One narrow row for each commitment that is billed; all else of it stands in its upload. `flags`: 1 sent, 2 beyond
-- its lease's amount, 4 beyond its lease's time.
CREATE TABLE clearing_lines (
    payer         BIGINT  NOT NULL,
    commitment    BYTEA   NOT NULL,
    payee         BIGINT  NOT NULL,
    window_number BIGINT  NOT NULL,
    upload        BIGINT  NOT NULL,
    amount        BIGINT  NOT NULL,
    committed_at  BIGINT  NOT NULL,
    position      INTEGER NOT NULL,
    flags         INTEGER NOT NULL,
    resource      TEXT    NOT NULL,
    PRIMARY KEY (payer, commitment)
) PARTITION BY HASH (payer);
-- A distributed PostgreSQL spreads them by the same key.
CREATE TABLE clearing_lines_0 PARTITION OF clearing_lines FOR VALUES WITH (MODULUS 8, REMAINDER 0);
CREATE TABLE clearing_lines_1 PARTITION OF clearing_lines FOR VALUES WITH (MODULUS 8, REMAINDER 1);
CREATE TABLE clearing_lines_2 PARTITION OF clearing_lines FOR VALUES WITH (MODULUS 8, REMAINDER 2);
CREATE TABLE clearing_lines_3 PARTITION OF clearing_lines FOR VALUES WITH (MODULUS 8, REMAINDER 3);
CREATE TABLE clearing_lines_4 PARTITION OF clearing_lines FOR VALUES WITH (MODULUS 8, REMAINDER 4);
CREATE TABLE clearing_lines_5 PARTITION OF clearing_lines FOR VALUES WITH (MODULUS 8, REMAINDER 5);
CREATE TABLE clearing_lines_6 PARTITION OF clearing_lines FOR VALUES WITH (MODULUS 8, REMAINDER 6);
CREATE TABLE clearing_lines_7 PARTITION OF clearing_lines FOR VALUES WITH (MODULUS 8, REMAINDER 7);
CREATE INDEX clearing_lines_by_window ON clearing_lines (payer, window_number);

-- Lines whose signature turned out wrong: never on a statement.
CREATE TABLE clearing_rejections (
    payer         BIGINT NOT NULL,
    commitment    BYTEA  NOT NULL,
    upload        BIGINT NOT NULL,
    window_number BIGINT NOT NULL,
    reason        TEXT   NOT NULL,
    rejected_at   BIGINT NOT NULL,
    PRIMARY KEY (payer, commitment)
);
CREATE INDEX clearing_rejections_by_window ON clearing_rejections (window_number, payer);

-- Answers that went out whole after their commitment was uploaded.
CREATE TABLE clearing_sent (
    payer      BIGINT NOT NULL,
    commitment BYTEA  NOT NULL,
    PRIMARY KEY (payer, commitment)
);

-- Keys as edges found them when they were first used. The first record of a key stays.
CREATE TABLE clearing_keys (
    directory   TEXT   NOT NULL,
    thumbprint  TEXT   NOT NULL,
    record      TEXT   NOT NULL,
    edge        TEXT   NOT NULL,
    recorded_at BIGINT NOT NULL,
    PRIMARY KEY (directory, thumbprint)
);

-- The books: one row moves one amount from the account that is debited to the one that is credited. `kind` is posted,
-- pending (a promise), or post and void (what became of `pending`). `about` is the upload, statement, dispute or payout.
CREATE TABLE clearing_transfers (
    transfer  TEXT   NOT NULL PRIMARY KEY,
    kind      TEXT   NOT NULL CHECK (kind IN ('posted', 'pending', 'post', 'void')),
    pending   TEXT   NOT NULL DEFAULT '' CHECK ((pending <> '') = (kind IN ('post', 'void'))),
    debit     TEXT   NOT NULL,
    credit    TEXT   NOT NULL CHECK (credit <> debit),
    amount    BIGINT NOT NULL CHECK (amount > 0),
    about     TEXT   NOT NULL,
    reverses  TEXT   NOT NULL DEFAULT '',
    booked_at BIGINT NOT NULL
);
-- A pending transfer is posted or voided once.
CREATE UNIQUE INDEX clearing_transfers_resolved ON clearing_transfers (pending) WHERE pending <> '';
CREATE INDEX clearing_transfers_debit ON clearing_transfers (debit);
CREATE INDEX clearing_transfers_credit ON clearing_transfers (credit);
CREATE INDEX clearing_transfers_about ON clearing_transfers (about);

CREATE TABLE clearing_statements (
    statement     TEXT   NOT NULL PRIMARY KEY,
    payer         BIGINT NOT NULL REFERENCES clearing_payers (payer),
    window_number BIGINT NOT NULL REFERENCES clearing_windows (number),
    currency      TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    count         BIGINT NOT NULL,
    net           BIGINT NOT NULL,
    -- Of lines that were disputed before the payer accepted: not paid with this statement.
    disputed      BIGINT NOT NULL DEFAULT 0,
    issued_at     BIGINT NOT NULL,
    due_at        BIGINT NOT NULL,
    dispute_until BIGINT NOT NULL,
    reference     TEXT   NOT NULL UNIQUE,
    jws           TEXT   NOT NULL,
    -- The payment that the payer accepted it with, and how often one was handed to the rail.
    payment       TEXT   NOT NULL DEFAULT '',
    payment_until BIGINT NOT NULL DEFAULT 0,
    attempts      BIGINT NOT NULL DEFAULT 0,
    settled_at    BIGINT,
    transaction_hash TEXT NOT NULL DEFAULT '',
    UNIQUE (payer, window_number)
);
CREATE INDEX clearing_statements_open ON clearing_statements (state, due_at) WHERE state <> 'settled';

-- What each payee gets when the statement is paid.
CREATE TABLE clearing_shares (
    statement TEXT   NOT NULL REFERENCES clearing_statements (statement),
    payee     BIGINT NOT NULL,
    amount    BIGINT NOT NULL,
    PRIMARY KEY (statement, payee)
);

-- A statement's lines, in runs of 1,024 (gzip of NDJSON), with the Merkle root of each run.
CREATE TABLE clearing_runs (
    statement TEXT    NOT NULL,
    run       INTEGER NOT NULL,
    first_id  TEXT    NOT NULL,
    root      BYTEA   NOT NULL,
    body      BYTEA   NOT NULL,
    PRIMARY KEY (statement, run)
);

CREATE TABLE clearing_disputes (
    dispute     TEXT   NOT NULL PRIMARY KEY,
    statement   TEXT   NOT NULL REFERENCES clearing_statements (statement),
    payer       BIGINT NOT NULL,
    payee       BIGINT NOT NULL,
    line        TEXT   NOT NULL,
    resource    TEXT   NOT NULL,
    line_time   TEXT   NOT NULL,
    amount      BIGINT NOT NULL,
    reason      TEXT   NOT NULL,
    evidence    TEXT   NOT NULL,
    state       TEXT   NOT NULL,
    -- Whether the payer had accepted the statement before: then the line was paid with it.
    was_paid    INTEGER NOT NULL,
    opened_at   BIGINT NOT NULL,
    decided_at  BIGINT,
    note        TEXT   NOT NULL DEFAULT '',
    -- The window on whose statement it is an adjustment.
    adjusted_in BIGINT,
    UNIQUE (statement, line)
);
CREATE INDEX clearing_disputes_adjusted ON clearing_disputes (payer, adjusted_in) WHERE adjusted_in IS NOT NULL;

CREATE TABLE clearing_payouts (
    payout      TEXT   NOT NULL PRIMARY KEY,
    payee       BIGINT NOT NULL REFERENCES clearing_payees (payee),
    currency    TEXT   NOT NULL,
    amount      BIGINT NOT NULL,
    address     TEXT   NOT NULL,
    reference   TEXT   NOT NULL UNIQUE,
    state       TEXT   NOT NULL,
    payment     TEXT   NOT NULL DEFAULT '',
    valid_until BIGINT NOT NULL DEFAULT 0,
    planned_at  BIGINT NOT NULL,
    settled_at  BIGINT,
    transaction_hash TEXT NOT NULL DEFAULT ''
);
CREATE INDEX clearing_payouts_open ON clearing_payouts (state) WHERE state <> 'settled';
-- One payout of a payee at a time: the next one takes what has been cleared since.
CREATE UNIQUE INDEX clearing_payouts_one ON clearing_payouts (payee) WHERE state <> 'settled';

-- Money that a rail reported: each movement once. `matched` is the statement or payout, or empty: then it is suspense.
CREATE TABLE clearing_movements (
    network      TEXT   NOT NULL,
    transaction_hash TEXT NOT NULL,
    log_index    BIGINT NOT NULL,
    block_number BIGINT NOT NULL,
    direction    TEXT   NOT NULL CHECK (direction IN ('in', 'out')),
    counterparty TEXT   NOT NULL,
    amount       BIGINT NOT NULL,
    reference    TEXT   NOT NULL,
    matched      TEXT   NOT NULL,
    seen_at      BIGINT NOT NULL,
    PRIMARY KEY (network, transaction_hash, log_index)
);

-- How far a rail's chain was read.
CREATE TABLE clearing_scans (
    network    TEXT   NOT NULL PRIMARY KEY,
    next_block BIGINT NOT NULL
);

-- Who changed what that is not in the books.
CREATE TABLE clearing_audit (
    entry   BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      BIGINT NOT NULL,
    who     TEXT   NOT NULL,
    what    TEXT   NOT NULL,
    subject TEXT   NOT NULL,
    detail  TEXT   NOT NULL
);

-- Nothing in these is edited: a correction is a row of its own.
CREATE FUNCTION clearing_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END;
$$;
CREATE TRIGGER clearing_uploads_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_uploads
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_checks_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_checks
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_lines_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_lines
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_lines_0_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_lines_0
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_lines_1_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_lines_1
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_lines_2_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_lines_2
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_lines_3_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_lines_3
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_lines_4_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_lines_4
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_lines_5_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_lines_5
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_lines_6_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_lines_6
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_lines_7_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_lines_7
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_rejections_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_rejections
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_sent_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_sent
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_keys_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_keys
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_transfers_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_transfers
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_shares_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_shares
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_runs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_runs
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_movements_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_movements
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
CREATE TRIGGER clearing_audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_audit
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
