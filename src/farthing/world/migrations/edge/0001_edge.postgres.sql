-- The log of an edge: commitments that were served or are about to be, in the order in which they became durable, until
-- the clearing house has them and no copy of them can come any more. Amounts are decimal text, times Unix seconds.

-- `edge` is the label of the process that took it (several may share one file); `line` the commitment as it is uploaded.
CREATE TABLE edge_commitment (
    seq     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- a number is never given twice: uploads go by it
    edge    TEXT    NOT NULL,
    payer   TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    nonce   TEXT    NOT NULL,
    expires BIGINT  NOT NULL,
    lease   TEXT    NOT NULL,
    amount  BIGINT  NOT NULL,
    key_id  TEXT    NOT NULL,
    line    BYTEA   NOT NULL,
    -- What makes a promise count once, over all processes that share the file.
    UNIQUE (payer, id)
);
CREATE INDEX edge_commitment_of ON edge_commitment (edge, seq);

-- The answer went out whole. Notes are not awaited: one that a crash loses can be disputed by the payer.
CREATE TABLE edge_sent (
    note BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    edge TEXT    NOT NULL,
    seq  BIGINT  NOT NULL
);
CREATE INDEX edge_sent_of ON edge_sent (edge, note);

-- An upload is fixed before it is sent, so that it is the same when it is sent again.
CREATE TABLE edge_upload (
    edge      TEXT   NOT NULL,
    epoch     BIGINT NOT NULL,
    sequence  BIGINT NOT NULL,
    last_seq  BIGINT NOT NULL,
    last_note BIGINT NOT NULL,
    made_at   BIGINT NOT NULL,
    -- Empty once the clearing house has it.
    body      BYTEA  NOT NULL,
    answer    BYTEA  NOT NULL,
    PRIMARY KEY (edge, epoch, sequence)
);

-- Keys as they were found when they were first used: append-only, whatever their directory says later.
CREATE TABLE edge_key (
    directory  TEXT   NOT NULL,
    thumbprint TEXT   NOT NULL,
    record     BYTEA  NOT NULL,
    PRIMARY KEY (directory, thumbprint)
);

CREATE TABLE edge_lease (
    lease    TEXT   NOT NULL PRIMARY KEY,
    edge     TEXT   NOT NULL,
    epoch    BIGINT NOT NULL,
    payer    TEXT   NOT NULL,
    amount   BIGINT NOT NULL,
    count    BIGINT NOT NULL,
    spent    BIGINT NOT NULL,
    state    TEXT   NOT NULL
);
CREATE INDEX edge_lease_open ON edge_lease (edge, state);
