-- Keys that were declared compromised, and what the network bears of promises under them.

-- What was declared first stands. Money goes by when we were told (`declared_at`), whatever `since` says.
CREATE TABLE clearing_compromised (
    payer       BIGINT NOT NULL REFERENCES clearing_payers (payer),
    thumbprint  TEXT   NOT NULL,
    since       BIGINT NOT NULL,
    declared_at BIGINT NOT NULL,
    declared_by TEXT   NOT NULL,
    PRIMARY KEY (payer, thumbprint)
);

-- What the network owes a payee for an upload whose signatures were checked: its lines are rejected as
-- `key_compromised`. The reserve pays it once.
CREATE TABLE clearing_borne (
    upload    BIGINT NOT NULL REFERENCES clearing_uploads (upload),
    payee     BIGINT NOT NULL,
    currency  TEXT   NOT NULL,
    amount    BIGINT NOT NULL CHECK (amount > 0),
    proved_at BIGINT NOT NULL,
    paid_at   BIGINT,
    PRIMARY KEY (upload, payee)
);
CREATE INDEX clearing_borne_open ON clearing_borne (currency, proved_at) WHERE paid_at IS NULL;

CREATE TRIGGER clearing_compromised_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_compromised
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
