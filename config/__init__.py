"""Settings, and the YAML of write keys, segments, journeys, templates and channels. Imports `schemas.errors` alone."""
