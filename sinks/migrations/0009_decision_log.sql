CREATE OR REPLACE VIEW decision_log
(
    workspace LowCardinality(String) COMMENT 'Whose data this is.',
    person String COMMENT 'Key of the person it concerns today.',
    id String COMMENT 'Of the decision.',
    recorded_for String COMMENT 'Person key it was decided about.',
    at DateTime64(3, 'UTC') COMMENT 'When.',
    processor LowCardinality(String) COMMENT 'Who decided.',
    kind LowCardinality(String) COMMENT 'merged, unmerged, merge_refused …',
    about String COMMENT 'What it concerns: an id, a journey, a segment.',
    cause String COMMENT 'The input record that caused it: topic-partition@offset.',
    facts JSON COMMENT 'Why.'
)
AS SELECT
    d.workspace AS workspace, if(i.person = '', d.recorded_for, i.person) AS person, d.id AS id,
    d.recorded_for AS recorded_for, d.at AS at, d.processor AS processor, d.kind AS kind, d.about AS about,
    d.cause AS cause, d.facts AS facts
FROM decisions AS d FINAL
LEFT JOIN (SELECT workspace, key, person FROM identities FINAL WHERE person != key) AS i
    ON d.workspace = i.workspace AND d.recorded_for = i.key
SETTINGS join_use_nulls = 0
COMMENT 'Every decision once, with the person it concerns today.'
