# The engine of rlhf-online, vLLM on a unix socket, with two targets: cpu, and gpu, which is the default.
#
#   docker build -f docker/engine.Dockerfile --target cpu -t rlhf-online-engine:cpu .
#   docker build -f docker/engine.Dockerfile --target sbom-cpu --output build/sbom .
#
# PYTHON may name the base image with its digest, PYTHON=docker.io/library/python:3.13-slim-trixie@sha256:…
ARG PYTHON=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON} AS sources
WORKDIR /src
COPY docker/build.sh docker/
COPY docker/requirements docker/requirements

FROM sources AS packages-cpu
COPY requirements/cpu.txt requirements/
RUN COMPILE=1 sh docker/build.sh packages engine-cpu requirements/cpu.txt

FROM packages-cpu AS build-cpu
COPY pyproject.toml README.md ./
COPY rlhf_online rlhf_online
COPY services services
RUN COMPILE=1 sh docker/build.sh project

FROM sources AS packages-gpu
COPY requirements/gpu.txt requirements/
RUN COMPILE=1 sh docker/build.sh packages engine-gpu requirements/gpu.txt

FROM packages-gpu AS build-gpu
COPY pyproject.toml README.md ./
COPY rlhf_online rlhf_online
COPY services services
RUN COMPILE=1 sh docker/build.sh project

FROM ${PYTHON} AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin rlhf \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/rlhf-online /var/lib/rlhf-online/versions /run/rlhf-online
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/rlhf-online
HEALTHCHECK --interval=10s --timeout=10s --start-period=600s --retries=3 \
    CMD ["python", "-m", "services.health", "unix:/run/rlhf-online/engine/engine.sock"]
ENTRYPOINT ["python", "-m", "services.engine"]
CMD ["--config", "/etc/rlhf-online/engine.toml"]

FROM runtime AS cpu
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
COPY --from=packages-cpu /opt/venv /opt/venv
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rlhf-online-engine" \
    org.opencontainers.image.description="The engine of rlhf-online: vLLM on a unix socket." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-cpu /opt/project /opt/venv
USER 10001:10001

FROM cpu AS described-cpu
ARG VERSION=0.1.0
COPY docker/sbom.py /usr/share/
RUN python /usr/share/sbom.py rlhf-online-engine "${VERSION}" > /tmp/engine-cpu.cdx.json

FROM scratch AS sbom-cpu
COPY --from=described-cpu /tmp/engine-cpu.cdx.json /

# Triton compiles a launcher for each of its kernels with a C compiler, and Inductor calls a C++ compiler.
FROM runtime AS gpu
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=packages-gpu /opt/venv /opt/venv
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rlhf-online-engine" \
    org.opencontainers.image.description="The engine of rlhf-online: vLLM on a unix socket." \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build-gpu /opt/project /opt/venv
USER 10001:10001

FROM gpu AS described-gpu
ARG VERSION=0.1.0
COPY docker/sbom.py /usr/share/
RUN python /usr/share/sbom.py rlhf-online-engine "${VERSION}" > /tmp/engine-gpu.cdx.json

FROM scratch AS sbom-gpu
COPY --from=described-gpu /tmp/engine-gpu.cdx.json /

FROM gpu
