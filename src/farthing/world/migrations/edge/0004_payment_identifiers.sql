-- Ids under which a promise may be repeated: `scope` is the hash of network, payer, route and id. Bound with the
-- commitment; `noted` says that a repeat which went out whole was noted, which happens once.
CREATE TABLE edge_identifier (
    scope       TEXT   NOT NULL PRIMARY KEY,
    payer       TEXT   NOT NULL,
    id          TEXT   NOT NULL,
    fingerprint TEXT   NOT NULL,
    settlement  TEXT   NOT NULL,
    expires     BIGINT NOT NULL,
    noted       BIGINT NOT NULL
);
CREATE INDEX edge_identifier_over ON edge_identifier (expires);

-- What was answered, short answers alone, for as long as a repeat can come.
CREATE TABLE edge_answer (
    scope   TEXT   NOT NULL PRIMARY KEY,
    expires BIGINT NOT NULL,
    answer  BYTEA  NOT NULL
);
CREATE INDEX edge_answer_over ON edge_answer (expires);
