CREATE TABLE IF NOT EXISTS people
(
    workspace LowCardinality(String) COMMENT 'Whose data this is.',
    key String COMMENT 'Person key.',
    user_id String COMMENT 'User id; empty while the person is anonymous.',
    name String COMMENT 'Full name.',
    email String COMMENT 'E-mail address.',
    phone String COMMENT 'Phone number.',
    company String COMMENT 'Company, by the newest group call or the trait company.',
    locale LowCardinality(String) COMMENT 'Locale, such as en-GB.',
    timezone LowCardinality(String) COMMENT 'Time zone, such as Europe/Paris.',
    first_seen Nullable(DateTime64(3, 'UTC')) COMMENT 'Time of the first event.',
    last_seen Nullable(DateTime64(3, 'UTC')) COMMENT 'Time of the newest event.',
    events UInt64 COMMENT 'How many events.',
    visits UInt64 COMMENT 'How many visits.',
    orders UInt64 COMMENT 'How many orders.',
    revenue Map(String, Decimal(18, 4)) COMMENT 'Revenue by currency, less refunds.',
    first_order_at Nullable(DateTime64(3, 'UTC')) COMMENT 'Time of the first order.',
    last_order_at Nullable(DateTime64(3, 'UTC')) COMMENT 'Time of the newest order.',
    traits JSON COMMENT 'The newest value of every trait.',
    identities Array(String) COMMENT 'Every person key whose history is hers, her own among them.',
    sections String COMMENT 'What each processor shows of her, by its name: JSON text.',
    updated_at DateTime64(3, 'UTC') COMMENT 'When this portrait was made.',
    merged_into String COMMENT 'The person key this one was merged into; then nothing else is said.',
    revision UInt64 COMMENT 'Of two portraits of a key the higher is read.',
    INDEX email_bloom lower(email) TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (workspace, key)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 67108864
COMMENT 'The newest portrait of every person key. Read it through person_list, or with FINAL.'
