"""What people reach by the links of messages: without cookies, without scripts, and without anybody else.

    app.py         `/l/…`: clicks, openings, the way out of a topic, preferences
    recording.py   what happened becomes an event
    machines.py    which of it no person did
    pages.py       the few pages, in English and Chinese
    limits.py      how often one address may ask
"""
