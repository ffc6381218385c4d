CREATE TABLE IF NOT EXISTS segment_proofs
(
    workspace LowCardinality(String) COMMENT 'Whose data this is.',
    segment LowCardinality(String) COMMENT 'Name of the segment.',
    version UInt32 COMMENT 'Of its definition.',
    at DateTime64(3, 'UTC') COMMENT 'When its members were compared.',
    members UInt64 COMMENT 'People in it live.',
    sql_members UInt64 COMMENT 'People in it by the events at rest.',
    differences UInt64 COMMENT 'People in it by one of the two alone, at every look.',
    missing Array(String) COMMENT 'Keys of the first 100 who are in it by the events alone.',
    surplus Array(String) COMMENT 'Keys of the first 100 who are in it live alone.',
    seconds Float64 COMMENT 'How long it took.'
)
ENGINE = MergeTree
ORDER BY (workspace, segment, at)
TTL toDateTime(at) + INTERVAL 400 DAY
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'What came of comparing live segments with the events at rest.'
