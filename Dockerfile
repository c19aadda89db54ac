# syntax=docker/dockerfile:1
# vismae as one command, without a compiler, without root. See docs/docker.md.
#   docker build -t vismae .
#   docker build -t vismae:cpu --build-arg TORCH_INDEX=ADDRESS .

ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
# Where PyTorch comes from: pip's own index (a CUDA build), or the address of another build's wheels.
ARG TORCH_INDEX=default
ARG TORCH=2.13.0
ARG EXTRAS=dicomseg,itk,onnx,pacs,web
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/vismae
ENV PATH=/opt/vismae/bin:$PATH
RUN if [ "${TORCH_INDEX}" = default ]; then pip install "torch==${TORCH}"; \
    else pip install "torch==${TORCH}" --index-url "${TORCH_INDEX}"; fi
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
# The project itself, which has no version to pin; its dependencies are bounded in pyproject.toml.
# hadolint ignore=DL3013
RUN pip install ".[${EXTRAS}]"

FROM python:${PYTHON}-slim-bookworm
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin vismae
COPY --from=build /opt/vismae /opt/vismae
ENV PATH=/opt/vismae/bin:$PATH
USER 10001
WORKDIR /data
HEALTHCHECK --interval=30m --timeout=2m --start-period=1m --retries=2 CMD ["vismae", "doctor", "--no-train"]
ENTRYPOINT ["vismae"]
CMD ["--help"]
