CREATE OR REPLACE VIEW identity_list
(
    workspace LowCardinality(String) COMMENT 'Whose data this is.',
    key String COMMENT 'Person key as events carry it.',
    person String COMMENT 'Key of the person it belongs to today; its own where it stands for itself.',
    moves UInt64 COMMENT 'How often it changed hands; the row with the most is the newest.',
    evidence String COMMENT 'Message id of the event that linked them.',
    linked_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When that event happened.'
)
AS SELECT workspace, key, person, moves, evidence, linked_at
FROM identities FINAL
COMMENT 'Whose each person key is today.'
