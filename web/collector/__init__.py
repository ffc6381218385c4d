"""The collector: Segment's HTTP API in front of the log.

    server.py      uvicorn with guards against slow and endless headers
    app.py         the routes beside ingest: health, metrics, the browser snippet, the OpenAPI document
    ingest.py      `Collector`: one plain ASGI callable from request to answer
    request.py     reading a request: body, gzip, write key, pixel query
    answers.py     what is answered, ready to be sent
    rates.py       a token bucket per write key
    counters.py    metrics
    openapi.py     the API described
"""
