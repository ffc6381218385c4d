CREATE TABLE IF NOT EXISTS rejected
(
    workspace LowCardinality(String) COMMENT 'By whose write key it came; empty where that is not known.',
    id String COMMENT 'Of the dead letter; the same for the same record refused for the same cause.',
    at DateTime64(3, 'UTC') COMMENT 'When it was refused.',
    refused_by LowCardinality(String) COMMENT 'collector, stage or clickhouse.',
    processor LowCardinality(String) COMMENT 'Which processor refused it, where one did.',
    reason LowCardinality(String) COMMENT 'Why, in words; the same for all inputs refused for this cause.',
    field String COMMENT 'Dotted path of the offending value; empty for the whole input.',
    value String COMMENT 'The offending value, shortened.',
    mend String COMMENT 'What to change.',
    source LowCardinality(String) COMMENT 'Name of the write key it came by, where known.',
    message_id String COMMENT 'Message id, where it could be read.',
    key String COMMENT 'Person key, where it could be read.',
    topic LowCardinality(String) COMMENT 'Topic the record stood in; empty for what the collector refused before the log.',
    log_partition Int32 COMMENT 'Partition it stood in; -1 where it stood in none.',
    log_offset Int64 COMMENT 'Offset it stood at; -1 where it stood at none.',
    record String COMMENT 'The input as it came.',
    record_key String COMMENT 'Key of the record.'
)
ENGINE = ReplacingMergeTree
ORDER BY (workspace, id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_bytes_for_wide_part = 67108864
COMMENT 'Dead letters: what was refused, whole, with the cause. Read it through rejected_list, or with FINAL.'
