# syntax=docker/dockerfile:1
# One image for api, worker and migrate; `docker compose build` makes it. What is in it comes from
# requirements-service.lock, hash by hash.
FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS build

ENV PIP_CACHE_DIR=/pip-cache PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /condu
COPY requirements-service.lock /build/
RUN --mount=type=cache,target=/pip-cache /condu/bin/pip install --require-hashes -r /build/requirements-service.lock
# The code last, so that a change of it does not install PyTorch again.
COPY pyproject.toml README.md LICENSE /build/
COPY api /build/api
COPY bench /build/bench
COPY bulk /build/bulk
COPY catalog /build/catalog
COPY cli /build/cli
COPY imagesets /build/imagesets
COPY migrations /build/migrations
COPY serving /build/serving
COPY store /build/store
COPY vlm /build/vlm
COPY worker /build/worker
RUN /condu/bin/pip install --no-deps --no-build-isolation /build

FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d

RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin condu \
    && mkdir /data && chown condu:condu /data
COPY --from=build /condu /condu
# The root file system is read-only in compose: whatever is written goes to /data or /tmp.
ENV PATH=/condu/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/data/kernels \
    CONDU_DATA=/data \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
VOLUME /data
ENTRYPOINT ["condu"]
CMD ["--help"]
