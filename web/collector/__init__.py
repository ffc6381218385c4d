"""The collector: Segment's HTTP API in front of the log.

    server.py      uvicorn with guards against slow and endless headers; requests in one piece go straight to ingest
    app.py         the routes beside ingest: health, metrics, the browser snippet, the OpenAPI document
    ingest.py      `Collector`: from request to answer, as an ASGI callable and for requests in one piece
    request.py     reading a request: body, gzip, write key, pixel query
    answers.py     what is answered, ready to be sent
    rates.py       a token bucket per write key
    counters.py    metrics
    openapi.py     the API described
"""
