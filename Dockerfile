# Tidewire, all roles: docker run tidewire COMMAND. Two stages, so that the image holds no tool that builds.
FROM python:3.11-slim AS build
WORKDIR /src
RUN python -m venv /opt/tidewire
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY config config
COPY processors processors
COPY schemas schemas
COPY sinks sinks
COPY streams streams
COPY web web
RUN /opt/tidewire/bin/pip install --no-cache-dir --constraint requirements.lock '.[demo]'

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/tidewire --create-home tidewire \
    && mkdir /etc/tidewire
COPY --from=build /opt/tidewire /opt/tidewire
COPY config/*.yaml /etc/tidewire/
COPY config/coupons /etc/tidewire/coupons
COPY config/segments /etc/tidewire/segments
ENV PATH=/opt/tidewire/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TIDEWIRE_CONFIG=/etc/tidewire \
    TIDEWIRE_DATA=/var/lib/tidewire \
    TIDEWIRE_HOST=0.0.0.0 \
    TIDEWIRE_PORT=8088
USER tidewire
WORKDIR /var/lib/tidewire
VOLUME /var/lib/tidewire
EXPOSE 8088
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['TIDEWIRE_PORT']}/healthz\", timeout=4)"]
ENTRYPOINT ["tidewire"]
CMD ["up"]
