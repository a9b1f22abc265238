-- The guarantee: an account in reserve out of which payees are paid whose payers are in default.

-- Whether the payee's shares of statements that are issued from now on are guaranteed.
ALTER TABLE clearing_payees ADD COLUMN guaranteed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX clearing_payees_guaranteed ON clearing_payees (payee) WHERE guaranteed = 1;
-- What the books say that the payer owes to the reserve, kept beside them as `owed` is.
ALTER TABLE clearing_payers ADD COLUMN recourse BIGINT NOT NULL DEFAULT 0 CHECK (recourse >= 0);
-- How much of the share is guaranteed: fixed when the statement is issued.
ALTER TABLE clearing_shares ADD COLUMN guaranteed BIGINT NOT NULL DEFAULT 0;

-- What the books say is in the reserve, kept beside them so that the database refuses what it does not reach for.
CREATE TABLE clearing_reserves (
    currency TEXT   NOT NULL PRIMARY KEY,
    amount   BIGINT NOT NULL CHECK (amount >= 0)
);

-- What was paid out of the reserve for a share, in one step or, where the reserve did not reach, in several.
CREATE TABLE clearing_covers (
    statement  TEXT   NOT NULL REFERENCES clearing_statements (statement),
    payee      BIGINT NOT NULL,
    step       BIGINT NOT NULL,
    amount     BIGINT NOT NULL CHECK (amount > 0),
    covered_at BIGINT NOT NULL,
    PRIMARY KEY (statement, payee, step)
);

CREATE TRIGGER clearing_covers_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_covers
FOR EACH STATEMENT EXECUTE FUNCTION clearing_append_only();
