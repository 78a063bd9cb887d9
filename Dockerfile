# The project with its locked dependencies, run by a user without root's rights:
#   docker build -t kindling .                            torch for the CPU
#   docker build -t kindling --build-arg DEVICE=cuda .    torch with the libraries of CUDA
#   docker build -t kindling --build-arg PACKAGES=g++ .   Debian packages on top, here for compile=true
ARG BASE=python:3.11-slim
FROM ${BASE} AS run
ARG DEVICE=cpu
ARG PACKAGES=""
ARG PIP_NO_CACHE_DIR=1

RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends make $PACKAGES \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home user
USER user
WORKDIR /home/user/project
ENV PATH=/home/user/project/.venv/bin:$PATH

# The dependencies first: an edit in src/ or conf/ leaves this layer as it is. An editable install
# looks no deeper than the names of the two folders.
COPY --chown=user Makefile pyproject.toml requirements.lock README.md LICENSE ./
COPY --chown=user src/__init__.py src/
COPY --chown=user conf/train.yaml conf/
RUN mkdir logs && python3 -m venv .venv \
    && case "$DEVICE" in \
        cpu) pip install --quiet --no-deps -c requirements.lock \
            --index-url https://download.pytorch.org/whl/cpu torch ;; \
        cuda) ;; \
        *) echo "error: DEVICE=$DEVICE: cpu or cuda" >&2; exit 2 ;; \
    esac && make .venv/.base

# make compares times, and a file may be newer than that layer with the same content.
COPY --chown=user . .
RUN touch .venv/.base
CMD ["make", "help"]

# What .devcontainer/ opens: git, and the tools of the checks.
FROM run AS dev
ARG PIP_NO_CACHE_DIR=1
USER root
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*
USER user
RUN make .venv/.dev

FROM run
