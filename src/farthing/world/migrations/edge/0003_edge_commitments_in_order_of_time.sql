-- What makes a promise count once is its id, a hash: an index in the order of hashes writes another page for nearly every
-- row. The id binds payer and expiry, so that (expires, id) is unique where (payer, id) is, and rows of one time lie
-- together there. A note finds its commitment by the same.
CREATE TABLE edge_commitment_in_order (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT, -- a number is never given twice: uploads go by it
    edge    TEXT    NOT NULL,
    payer   TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    nonce   TEXT    NOT NULL,
    expires BIGINT  NOT NULL,
    lease   TEXT    NOT NULL,
    amount  BIGINT  NOT NULL,
    key_id  TEXT    NOT NULL,
    line    BYTEA   NOT NULL
);
INSERT INTO edge_commitment_in_order (seq, edge, payer, id, nonce, expires, lease, amount, key_id, line)
    SELECT seq, edge, payer, id, nonce, expires, lease, amount, key_id, line FROM edge_commitment ORDER BY seq;
-- Numbers go on where they were, also where all rows are dropped by now.
DELETE FROM sqlite_sequence WHERE name = 'edge_commitment_in_order';
INSERT INTO sqlite_sequence (name, seq)
    SELECT 'edge_commitment_in_order', seq FROM sqlite_sequence WHERE name = 'edge_commitment';
ALTER TABLE edge_sent ADD COLUMN expires BIGINT NOT NULL DEFAULT 0;
UPDATE edge_sent SET expires = COALESCE(
    (SELECT c.expires FROM edge_commitment c WHERE c.payer = edge_sent.payer AND c.id = edge_sent.id), 0);
ALTER TABLE edge_sent DROP COLUMN seq;
DROP TABLE edge_commitment;
ALTER TABLE edge_commitment_in_order RENAME TO edge_commitment;
CREATE INDEX edge_commitment_of ON edge_commitment (edge, seq);
CREATE UNIQUE INDEX edge_commitment_once ON edge_commitment (expires, id);
