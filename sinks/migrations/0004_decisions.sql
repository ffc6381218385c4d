CREATE TABLE IF NOT EXISTS decisions
(
    workspace LowCardinality(String) COMMENT 'Whose data this is.',
    id String COMMENT 'Of the decision.',
    recorded_for String COMMENT 'Person key it was decided about.',
    at DateTime64(3, 'UTC') COMMENT 'When.',
    processor LowCardinality(String) COMMENT 'Who decided.',
    kind LowCardinality(String) COMMENT 'merged, unmerged, merge_refused …',
    about String COMMENT 'What it concerns: an id, a journey, a segment.',
    cause String COMMENT 'The input record that caused it: topic-partition@offset.',
    facts JSON COMMENT 'Why.'
)
ENGINE = ReplacingMergeTree
ORDER BY (workspace, recorded_for, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 67108864
COMMENT 'The ledger: what was decided about a person, with its cause. Read it through decision_log, or with FINAL.'
