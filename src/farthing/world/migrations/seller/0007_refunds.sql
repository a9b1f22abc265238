-- Refunds that the seller pays by itself. A row comes when a signer is found for a payment in REFUND_DUE, and goes with
-- the payment into the archive. What was signed is here before it is sent anywhere: `payment` is its JSON, empty until
-- then, `series` counts the nonces, `valid_before` is its window's end. `turn_at` is when somebody may look again, which
-- is also whose turn it is; `note` is what went wrong last, for whoever lists what is owed.
CREATE TABLE seller_refund (
    claim        BIGINT NOT NULL PRIMARY KEY,
    signer       TEXT   NOT NULL,
    payment      TEXT   NOT NULL,
    valid_before BIGINT NOT NULL,
    series       BIGINT NOT NULL,
    turn_at      BIGINT NOT NULL,
    note         TEXT   NOT NULL
);
