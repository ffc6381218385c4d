"""Whether live segments, SQL at rest and a naive program agree: over worlds of people that nobody has thought of.

`tidewire segments fuzz` is how a stranger checks; docs/segments.md says how to read what it prints.
"""
