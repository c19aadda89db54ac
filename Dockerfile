# syntax=docker/dockerfile:1
# vismae as one command, without a compiler, without root. See docs/docker.md.
#   docker build -t vismae .
#   docker build -t vismae:cuda --build-arg DEVICE=cu128 .

ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
# cpu, or the name of a CUDA build of PyTorch such as cu128.
ARG DEVICE=cpu
ARG TORCH=2.13.0
ARG EXTRAS=dicomseg,itk,onnx,pacs,web
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/vismae
ENV PATH=/opt/vismae/bin:$PATH
RUN pip install "torch==${TORCH}" --index-url "https://download.pytorch.org/whl/${DEVICE}"
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
HEALTHCHECK --interval=30m --timeout=2m --start-period=1m --retries=2 CMD ["vismae", "doctor"]
ENTRYPOINT ["vismae"]
CMD ["--help"]
