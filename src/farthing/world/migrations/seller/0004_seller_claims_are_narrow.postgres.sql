-- A payment is claimed by one row that is inserted and never written again, and its state is a narrow row beside it
-- that moves (decision 011). Both are numbered in the order of their claims, so that what is under way lies on a few
-- pages, however large the books are; one index alone, that of the claims, is in the order of the payments' ids.
--
-- `claim` is the seller's own number of a claim: the lane of the process that made it and a count (`seller_fact`).
CREATE TABLE seller_claim (
    claim           BIGINT  NOT NULL PRIMARY KEY,
    payment_id      TEXT    NOT NULL,
    -- 1, or over the last epoch of the claim that this one follows: what makes a claim happen once.
    epoch           BIGINT  NOT NULL,
    fingerprint     TEXT    NOT NULL,
    request_print   TEXT    NOT NULL,
    valid_before    BIGINT  NOT NULL,
    flow            TEXT    NOT NULL,
    idempotent      BIGINT  NOT NULL,
    stores_response BIGINT  NOT NULL,
    network         TEXT    NOT NULL,
    asset           TEXT    NOT NULL,
    payer           TEXT    NOT NULL,
    pay_to          TEXT    NOT NULL,
    amount          TEXT    NOT NULL,
    resource        TEXT    NOT NULL,
    claimed_at      BIGINT  NOT NULL,
    UNIQUE (payment_id, epoch)
);

-- Where a claim stands. Rows are moved by statements that are conditional on state and epoch; `mover` is the number of
-- the last move, by which one statement that moves many can tell which it has moved.
CREATE TABLE seller_state (
    claim         BIGINT  NOT NULL PRIMARY KEY,
    state         TEXT    NOT NULL,
    epoch         BIGINT  NOT NULL,
    lease_until   BIGINT  NOT NULL,
    runs          BIGINT  NOT NULL,
    settlement_tx TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    mover         BIGINT  NOT NULL
);

-- What was claimed before gets numbers of lane 0, in the order of the claims.
CREATE TEMPORARY TABLE seller_number ON COMMIT DROP AS
    SELECT payment_id, row_number() OVER (ORDER BY claimed_at, payment_id) AS claim FROM seller_payment;
INSERT INTO seller_claim (claim, payment_id, epoch, fingerprint, request_print, valid_before, flow, idempotent,
    stores_response, network, asset, payer, pay_to, amount, resource, claimed_at)
    SELECT numbered.claim, paid.payment_id, epoch, fingerprint, request_print, valid_before, flow, idempotent,
        stores_response, network, asset, payer, pay_to, amount, resource, claimed_at
    FROM seller_payment AS paid JOIN seller_number AS numbered ON numbered.payment_id = paid.payment_id;
INSERT INTO seller_state (claim, state, epoch, lease_until, runs, settlement_tx, reason, mover)
    SELECT numbered.claim, state, epoch, lease_until, runs, settlement_tx, reason, 0
    FROM seller_payment AS paid JOIN seller_number AS numbered ON numbered.payment_id = paid.payment_id;

-- The response of a payment that is being settled, until it is delivered. A large body lies in a file beside the store.
ALTER TABLE seller_response RENAME TO seller_response_0003;
ALTER INDEX seller_response_pkey RENAME TO seller_response_0003_pkey;
CREATE TABLE seller_response (
    claim   BIGINT  NOT NULL PRIMARY KEY,
    status  BIGINT  NOT NULL,
    headers TEXT    NOT NULL,
    body    BYTEA   NOT NULL,
    spool   TEXT    NOT NULL
);
INSERT INTO seller_response (claim, status, headers, body, spool)
    SELECT numbered.claim, kept.status, kept.headers, kept.body, kept.spool
    FROM seller_response_0003 AS kept JOIN seller_number AS numbered ON numbered.payment_id = kept.payment_id;
DROP TABLE seller_response_0003;

-- What settlements moved: append-only, each entry with the facilitator's word for it.
ALTER TABLE seller_ledger RENAME TO seller_ledger_0003;
ALTER INDEX seller_ledger_pkey RENAME TO seller_ledger_0003_pkey;
CREATE TABLE seller_ledger (
    claim         BIGINT  NOT NULL,
    settlement_tx TEXT    NOT NULL,
    payment_id    TEXT    NOT NULL,
    network       TEXT    NOT NULL,
    asset         TEXT    NOT NULL,
    debit         TEXT    NOT NULL,
    credit        TEXT    NOT NULL,
    amount        TEXT    NOT NULL,
    posted_at     BIGINT  NOT NULL,
    receipt       TEXT    NOT NULL,
    PRIMARY KEY (claim, settlement_tx)
);
INSERT INTO seller_ledger (claim, settlement_tx, payment_id, network, asset, debit, credit, amount, posted_at, receipt)
    SELECT numbered.claim, posted.settlement_tx, posted.payment_id, posted.network, posted.asset, posted.debit,
        posted.credit, posted.amount, posted.posted_at,
        CASE WHEN paid.settlement_tx = posted.settlement_tx THEN paid.receipt ELSE '' END
    FROM seller_ledger_0003 AS posted JOIN seller_number AS numbered ON numbered.payment_id = posted.payment_id
    JOIN seller_payment AS paid ON paid.payment_id = posted.payment_id;
DROP TABLE seller_ledger_0003;
DROP TABLE seller_payment;
CREATE TRIGGER seller_ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON seller_ledger
FOR EACH STATEMENT EXECUTE FUNCTION seller_append_only();

-- How many lanes were given away: each process that claims takes one. Lane 0 holds what was claimed before.
INSERT INTO seller_fact (fact, value) VALUES ('lanes', '0');
