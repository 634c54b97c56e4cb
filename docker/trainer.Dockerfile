# The trainer of rlhf-online, for machines with and without a GPU.
#
#   docker build -f docker/trainer.Dockerfile -t rlhf-online-trainer .
#   docker build -f docker/trainer.Dockerfile --target sbom --output build/sbom .
#
# PYTHON may name the base image with its digest, PYTHON=docker.io/library/python:3.13-slim-trixie@sha256:…
ARG PYTHON=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON} AS packages
WORKDIR /src
COPY requirements/cpu.txt requirements/
COPY docker/build.sh docker/
COPY docker/requirements docker/requirements
RUN COMPILE=1 sh docker/build.sh packages trainer requirements/cpu.txt

FROM packages AS build
COPY pyproject.toml README.md ./
COPY rlhf_online rlhf_online
COPY services services
RUN COMPILE=1 sh docker/build.sh project

FROM ${PYTHON} AS runtime
# Layers are compiled on a GPU: Inductor and Triton call the compilers of the machine.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/venv /opt/venv
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin rlhf \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/rlhf-online /var/lib/rlhf-online/versions
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rlhf-online-trainer" \
    org.opencontainers.image.description="The trainer of rlhf-online, for machines with and without a GPU." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/project /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    HF_HUB_OFFLINE=1
WORKDIR /var/lib/rlhf-online
USER 10001:10001
EXPOSE 8004
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-m", "services.health", "http://127.0.0.1:8004/metrics"]
ENTRYPOINT ["python", "-m", "services.trainer"]
CMD ["--config", "/etc/rlhf-online/trainer.toml"]

FROM runtime AS described
ARG VERSION=0.1.0
COPY docker/sbom.py /usr/share/
RUN python /usr/share/sbom.py rlhf-online-trainer "${VERSION}" > /tmp/trainer.cdx.json

FROM scratch AS sbom
COPY --from=described /tmp/trainer.cdx.json /

FROM runtime
