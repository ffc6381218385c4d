CREATE TABLE IF NOT EXISTS identities
(
    workspace LowCardinality(String) COMMENT 'Whose data this is.',
    key String COMMENT 'Person key as events carry it.',
    person String COMMENT 'Key of the person it belongs to today; its own where it stands for itself.',
    moves UInt64 COMMENT 'How often it changed hands; the row with the most is the newest.',
    evidence String COMMENT 'Message id of the event that linked them.',
    linked_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When that event happened.'
)
ENGINE = ReplacingMergeTree(moves)
ORDER BY (workspace, key)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 67108864
COMMENT 'Whose a person key is today. Events keep the key they were sent for, so history joins, and a merge is undone, by one row here. Read it through identity_list, or with FINAL.'
