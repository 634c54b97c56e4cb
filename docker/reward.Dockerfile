# The reward service of rlhf-online, for machines with and without a GPU.
#
#   docker build -f docker/reward.Dockerfile -t rlhf-online-reward .
#   docker build -f docker/reward.Dockerfile --target sbom --output build/sbom .
#
# PYTHON may name the base image with its digest, PYTHON=docker.io/library/python:3.13-slim-trixie@sha256:…
ARG PYTHON=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON} AS packages
WORKDIR /src
COPY requirements/cpu.txt requirements/
COPY docker/build.sh docker/
COPY docker/requirements docker/requirements
RUN COMPILE=1 sh docker/build.sh packages reward requirements/cpu.txt

FROM packages AS build
COPY pyproject.toml README.md ./
COPY rlhf_online rlhf_online
COPY services services
RUN COMPILE=1 sh docker/build.sh project

FROM ${PYTHON} AS runtime
COPY --from=packages /opt/venv /opt/venv
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin rlhf \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/rlhf-online /var/lib/rlhf-online/versions
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rlhf-online-reward" \
    org.opencontainers.image.description="The reward service of rlhf-online, for machines with and without a GPU." \
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
EXPOSE 8002 8003
HEALTHCHECK --interval=10s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-m", "services.health", "http://127.0.0.1:8003/metrics"]
ENTRYPOINT ["python", "-m", "services.reward"]
CMD ["--config", "/etc/rlhf-online/reward.toml"]

FROM runtime AS described
ARG VERSION=0.1.0
COPY docker/sbom.py /usr/share/
RUN python /usr/share/sbom.py rlhf-online-reward "${VERSION}" > /tmp/reward.cdx.json

FROM scratch AS sbom
COPY --from=described /tmp/reward.cdx.json /

FROM runtime
