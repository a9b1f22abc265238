-- The payment-identifiers of clients, each bound to its payment in the transaction that puts it on record. `scope` is a hash
-- of caller, payer and identifier.

CREATE TABLE payment_identifiers (
    scope      TEXT NOT NULL PRIMARY KEY,
    payment_id TEXT NOT NULL
);
