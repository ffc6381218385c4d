"""The contestants: each a process of its own that works through a topic and says what it took.

    python -m bench.contestants.NAME '{"kafka": …}'

All count the same way (`counter.py`), measure the same way (`contest.Meter`) and keep the same bytes for each person.
They differ in what they promise: the floor keeps its state in memory and commits nothing.
"""
